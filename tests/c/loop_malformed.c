/* SPDX-License-Identifier: Apache-2.0 */
/* Each kind of malformed stream ends its channel with OC_CLOSED_PROTOCOL, and the client can see it. */
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

static void ends_with_protocol_error(struct client *c)
{
    CHECK(client_end(c, 2000) == OC_CLOSED_PROTOCOL);
    CHECK(atomic_load(&c->channel->closed) == OC_CLOSED_PROTOCOL);
    close(c->socket);
    close(c->control);
}

static void raw(struct client *c, uint16_t lines, uint32_t bytes, uint32_t thread)
{
    struct oc_cmd *cmd = oc_line(c->p.lines, c->p.tail);

    cmd->op = OW_OP_orion_ping;
    cmd->lines = lines;
    cmd->bytes = bytes;
    cmd->thread = thread;
    atomic_store(&cmd->seq, c->p.tail + 1);
    client_wake(c);
}

int main(void)
{
    struct client c;

    client_start(&c);
    raw(&c, 0, 8, 0); /* the first command of all: the watcher finds it */
    ends_with_protocol_error(&c);
    client_start(&c);
    CHECK(client_call(&c, 0, OW_OP_orion_ping, 0) == 0);
    raw(&c, 1, 8, OC_NR_SLOTS); /* a twin finds it */
    ends_with_protocol_error(&c);
    client_start(&c);
    raw(&c, 1, 4, 0); /* shorter than the operation's fixed part */
    ends_with_protocol_error(&c);
    client_start(&c);
    client_post(&c, 0, TEST_OP_FAULT, 0, OC_CMD_REPLY);
    ends_with_protocol_error(&c);
    client_start(&c);
    CHECK(send(c.socket, "x", 1, 0) == 1); /* no wake-up */
    ends_with_protocol_error(&c);
    return 0;
}
