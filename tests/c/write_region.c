/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a small region file with two pending commands, for the test of ring-dump. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <orion/ring.h>

#include "check.h"
#include "wire.h"

#define BYTES (2 * OC_EXTENT_BYTES)

static void put(struct oc_producer *p, uint32_t thread)
{
    struct oc_cmd *cmd = oc_ring_reserve(p, 1);
    uint64_t seq;

    CHECK(cmd);
    cmd->op = OW_OP_orion_ping;
    cmd->lines = 1;
    cmd->bytes = 8;
    cmd->thread = thread;
    cmd->flags = OC_CMD_REPLY;
    oc_ring_publish(p, cmd, &seq);
}

int main(int argc, char **argv)
{
    int fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;
    uint8_t *m;
    struct oc_header *h;
    struct oc_mailbox *box;
    struct oc_channel *c;
    struct oc_producer p;

    CHECK(fd >= 0 && !ftruncate(fd, BYTES));
    m = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(m != MAP_FAILED);
    h = (void *)m;
    c = (void *)(m + OC_EXTENT_BYTES);
    h->magic = OC_MAGIC;
    h->version = OC_LAYOUT_VERSION;
    h->region_bytes = BYTES;
    for (int i = 0; i < 16; i++)
        h->domain_uuid[i] = (uint8_t)(i * 0x11);
    strcpy(h->server_addr[0], "10.0.0.1:9960");
    h->features = OC_FEATURE_MAILBOX;
    box = (void *)(m + OC_MAILBOX_OFF);
    box->epoch = 0xabc;
    box->slot[7] = (struct oc_mail_slot){ .owner = OC_OWNER_DIED, .service = OC_MAIL_SERVER, .opening = 3, .seq = 9 };
    oc_channel_init(c, 5);
    p = (struct oc_producer){ .channel = c, .lines = (uint8_t *)c + OC_RING_OFF };
    put(&p, 0);
    put(&p, 1);
    return 0;
}
