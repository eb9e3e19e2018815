/* SPDX-License-Identifier: Apache-2.0 */
/* ring-dump FILE [BLOCK_OFFSET]: prints a region's header and mailbox, and a channel with its pending commands. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <orion/ring.h>

#include "wire.h"

#define MAX_SHOWN 64u /* pending commands printed one by one */

/* Reads, never maps: a region that is truncated meanwhile must not kill us. */
static int read_at(int fd, void *to, size_t bytes, uint64_t off)
{
    ssize_t n = pread(fd, to, bytes, (off_t)off);

    return n == (ssize_t)bytes ? 0 : -1;
}

static void print_uuid(const char *label, const uint8_t *u)
{
    printf("%-14s", label);
    for (int i = 0; i < 16; i++)
        printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
    putchar('\n');
}

/* The guest can write anything here: print what a terminal may see. */
static void print_text(const char *label, const char *text, size_t room)
{
    printf("%-14s", label);
    for (size_t i = 0; i < room && text[i]; i++)
        putchar(isprint((unsigned char)text[i]) ? text[i] : '?');
    putchar('\n');
}

static void dump_slot(unsigned n, const struct oc_mail_slot *s)
{
    static const char *const services[] = { "?", "server", "controller" };

    printf("slot %-9u%s, %s, opening %u of %u, packets %u/%u to the host, %u/%u to the guest%s%s\n", n,
           s->owner & OC_OWNER_DIED ? "its owner died" : "owned", services[s->service < 3 ? s->service : 0], s->opened,
           s->opening, s->host_ack, s->seq, s->ack, s->host_seq, s->fin ? ", guest ended" : "",
           s->host_fin ? ", host ended" : "");
}

static void dump_mailbox(int fd)
{
    struct oc_mailbox m;

    if (read_at(fd, &m, sizeof(m), OC_MAILBOX_OFF))
        return;
    printf("%-14s%s, epoch %016llx, bell %u\n", "mailbox", m.epoch ? "served" : "not served", (unsigned long long)m.epoch,
           m.bell);
    for (unsigned i = 0; i < OC_MAIL_SLOTS; i++)
        if (m.slot[i].owner)
            dump_slot(i, &m.slot[i]);
}

static int dump_header(int fd)
{
    struct oc_header h;

    if (read_at(fd, &h, sizeof(h), 0) || h.magic != OC_MAGIC)
        return -1;
    printf("%-14s%u, %llu bytes\n", "version", h.version, (unsigned long long)h.region_bytes);
    print_uuid("domain", h.domain_uuid);
    print_uuid("boot", h.boot_id);
    printf("%-14s%llu\n", "generation", (unsigned long long)h.generation);
    for (unsigned i = 0; i < OC_MAX_ADDRS; i++)
        if (h.server_addr[i][0])
            print_text("server", h.server_addr[i], OC_ADDR_BYTES);
    if (h.controller_addr[0])
        print_text("controller", h.controller_addr, OC_ADDR_BYTES);
    printf("%-14s%u bytes\n", "snapshot", h.snapshot_bytes);
    if (h.features & OC_FEATURE_MAILBOX)
        dump_mailbox(fd);
    return 0;
}

static void dump_channel(const struct oc_channel *c)
{
    printf("channel %u%s\n", c->channel_id, c->magic == OC_MAGIC ? "" : " (no magic: not a channel block?)");
    printf("  head %llu, fence %llu, callbacks %u, closed %u\n", (unsigned long long)c->head,
           (unsigned long long)c->fence_done, c->callback_seq, c->closed);
    printf("  executor %s, callback thread %s\n", c->consumer_parked ? "parked" : "reads",
           c->callback_parked ? "parked" : "awake");
    for (unsigned i = 0; i < OC_MAX_DEVICES; i++)
        if (c->device_error[i])
            printf("  device %u: sticky error %u\n", i, c->device_error[i]);
}

static void print_command(const struct oc_cmd *h)
{
    const char *name = ow_op_name(h->op);

    printf("  %12llu  %-32s thread %-3u %u line(s), %u bytes%s\n", (unsigned long long)h->seq,
           name ? name : "unknown operation", h->thread, h->lines, h->bytes, h->flags & OC_CMD_REPLY ? ", waits" : "");
}

static void dump_ring(struct oc_channel *c, uint8_t *lines)
{
    struct oc_consumer r = { .channel = c, .lines = lines, .head = c->head };
    const struct oc_cmd *cmd;
    struct oc_cmd h;
    unsigned pending = 0;
    uint64_t end = r.head + OC_RING_LINES;

    while (r.head < end && (cmd = oc_ring_peek(&r))) {
        if (!oc_ring_header(&r, cmd, &h)) {
            printf("  malformed command at line %llu\n", (unsigned long long)r.head);
            break;
        }
        if (h.op != OC_OP_PAD && pending++ < MAX_SHOWN)
            print_command(&h);
        r.head += h.lines;
    }
    printf("pending: %u\n", pending);
}

static int dump_block(int fd, uint64_t off)
{
    uint8_t *block = aligned_alloc(OC_LINE, OC_SLOTS_OFF);

    if (!block || read_at(fd, block, OC_SLOTS_OFF, off)) {
        fprintf(stderr, "ring-dump: no channel block at offset 0x%llx: the file ends before it\n",
                (unsigned long long)off);
        free(block);
        return 1;
    }
    dump_channel((struct oc_channel *)(void *)block);
    dump_ring((struct oc_channel *)(void *)block, block + OC_RING_OFF);
    free(block);
    return 0;
}

int main(int argc, char **argv)
{
    char *end = NULL;
    uint64_t off = 0;
    int fd, r = 0;

    if (argc == 3)
        off = strtoull(argv[2], &end, 0);
    if (argc < 2 || argc > 3 || (end && (*end || end == argv[2]))) {
        fprintf(stderr, "usage: ring-dump FILE [BLOCK_OFFSET]\n");
        return 2;
    }
    fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "ring-dump: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    if (dump_header(fd)) {
        fprintf(stderr, "ring-dump: %s is no region: its first bytes are not a region's header\n", argv[1]);
        return 1;
    }
    if (argc == 3)
        r = dump_block(fd, off);
    close(fd);
    return r;
}
