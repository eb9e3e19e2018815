/* SPDX-License-Identifier: Apache-2.0 */
/* Grants come from the daemon, are checked, and are wiped before they go back. */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "executor.h"
#include "harness.h"

static struct client c;
static uint64_t answer_off;

static void *daemon_once(void *arg)
{
    struct oh_control m;

    (void)arg;
    do
        CHECK(recv(c.control, &m, sizeof(m), 0) == sizeof(m));
    while (m.kind != OH_GRANT);
    m.b = (m.a + OC_EXTENT_BYTES - 1) & ~(OC_EXTENT_BYTES - 1);
    m.a = answer_off;
    m.status = answer_off ? 0 : -28;
    CHECK(send(c.control, &m, sizeof(m), 0) == sizeof(m));
    return NULL;
}

static int grant(uint64_t bytes, uint64_t off)
{
    pthread_t t;
    int r;

    answer_off = off;
    CHECK(!pthread_create(&t, NULL, daemon_once, NULL));
    r = client_call(&c, 0, OW_OP_orion_grant, bytes);
    pthread_join(t, NULL);
    return r;
}

static int release(uint64_t off, uint64_t bytes)
{
    struct oc_cmd *cmd = oc_ring_reserve(&c.p, 1);
    uint64_t seq;

    CHECK(cmd);
    cmd->op = OW_OP_orion_release;
    cmd->lines = 1;
    cmd->bytes = 16;
    cmd->thread = 0;
    cmd->flags = OC_CMD_REPLY;
    memcpy(cmd->payload, &off, 8);
    memcpy(cmd->payload + 8, &bytes, 8);
    if (oc_ring_publish(&c.p, cmd, &seq))
        client_wake(&c);
    CHECK(client_wait(&c, 0, seq, 5000));
    return client_slot(&c, 0)->result;
}

int main(void)
{
    const uint64_t off = 4 * OC_EXTENT_BYTES;
    struct oh_control m;

    client_start(&c);
    CHECK(grant(3u << 20, off) == 0);
    CHECK(*(uint64_t *)(void *)client_slot(&c, 0)->out == off);
    CHECK(((uint64_t *)(void *)client_slot(&c, 0)->out)[1] == 2 * OC_EXTENT_BYTES);
    CHECK(grant(1, off + OC_EXTENT_BYTES) == 2);      /* a daemon gone mad: overlaps */
    CHECK(grant(1, HARNESS_BLOCK) == 2);              /* the block itself */
    CHECK(grant(1, HARNESS_REGION) == 2);             /* outside the region */
    CHECK(grant(1, 0) == 2);                          /* no room */
    memset(c.memory + off, 0xaa, 100);
    CHECK(release(off, OC_EXTENT_BYTES) == 1);        /* not what was granted */
    CHECK(release(HARNESS_BLOCK, OC_CHANNEL_BYTES) == 1);
    CHECK(c.memory[off] == 0xaa);
    CHECK(release(off, 2 * OC_EXTENT_BYTES) == 0);
    CHECK(c.memory[off] == 0 && c.memory[off + 99] == 0);
    CHECK(recv(c.control, &m, sizeof(m), 0) == sizeof(m) && m.kind == OH_RELEASE && m.a == off);
    CHECK(release(off, 2 * OC_EXTENT_BYTES) == 1);
    close(c.socket);
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    return 0;
}
