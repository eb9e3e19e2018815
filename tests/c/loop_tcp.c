/* SPDX-License-Identifier: Apache-2.0 */
/* Over TCP frames fill a private ring; answers come back as frames; bad frames end the channel. */
#include <sys/socket.h>

#include "harness.h"

struct frame {
    uint32_t type, bytes;
    uint64_t offset;
};

static void send_frame(struct client *c, uint32_t type, uint64_t offset, const void *data, uint32_t bytes)
{
    struct frame f = { type, bytes, offset };

    CHECK(send(c->socket, &f, sizeof(f), MSG_NOSIGNAL | MSG_MORE) == sizeof(f));
    if (bytes)
        CHECK(send(c->socket, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes);
}

/* The command's lines and the zeroed seq of the line after it, in one frame where they are adjacent. */
static void post(struct client *c, uint64_t value)
{
    struct oc_cmd *cmd = oc_ring_reserve(&c->p, 1);
    uint64_t at = (uint64_t)((uint8_t *)cmd - c->memory), seq;

    CHECK(cmd);
    cmd->op = OW_OP_orion_ping;
    cmd->lines = 1;
    cmd->bytes = 8;
    cmd->thread = 2;
    cmd->flags = OC_CMD_REPLY;
    memcpy(cmd->payload, &value, 8);
    oc_ring_publish(&c->p, cmd, &seq);
    if (at + OC_LINE == OC_SLOTS_OFF) {
        send_frame(c, 1, OC_RING_OFF, c->p.lines, 8);
        send_frame(c, 1, at, cmd, OC_LINE);
    } else {
        send_frame(c, 1, at, cmd, OC_LINE + 8);
    }
}

/* Applies frames until the slot has answer `seq`. */
static void receive(struct client *c, uint64_t seq)
{
    while (atomic_load(&client_slot(c, 2)->done) < seq) {
        struct frame f;

        CHECK(recv(c->socket, &f, sizeof(f), MSG_WAITALL) == sizeof(f));
        CHECK(f.type == 1 || f.type == 2);
        CHECK(f.offset + f.bytes <= OC_CHANNEL_BYTES);
        if (f.bytes)
            CHECK(recv(c->socket, c->memory + f.offset, f.bytes, MSG_WAITALL) == (ssize_t)f.bytes);
    }
}

static void refuses(uint32_t type, uint64_t offset, uint32_t bytes)
{
    static const uint8_t data[64];
    struct client c;

    client_start_tcp(&c);
    send_frame(&c, type, offset, data, bytes);
    CHECK(client_end(&c, 20000) == OC_CLOSED_PROTOCOL);
    client_close(&c);
}

int main(void)
{
    struct client c;

    client_start_tcp(&c);
    for (uint64_t i = 0; i < 5000; i++) {
        post(&c, i);
        receive(&c, c.p.tail);
        CHECK(*(uint64_t *)(void *)client_slot(&c, 2)->out == i + 1);
    }
    CHECK(atomic_load(&c.channel->head) > OC_RING_LINES / 2);
    CHECK(!shutdown(c.socket, SHUT_RDWR));
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    client_close(&c);
    refuses(3, 4096, 8);                        /* unknown type */
    refuses(1, 64, 8);                          /* a word that the host writes */
    refuses(1, OC_CHANNEL_BYTES - 4, 8);        /* over the end */
    refuses(1, 0xfffffffffffffff8ull, 16);
    refuses(1, 4096, 0);
    return 0;
}
