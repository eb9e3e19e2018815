/* SPDX-License-Identifier: Apache-2.0 */
/* Payload of the lap before that looks exactly like the next seq is not taken for a command. */
#include "ring_fixture.h"

int main(void)
{
    struct ring *r = ring_new();
    static uint8_t payload[OC_CMD_MAX_LINES * OC_LINE];
    struct oc_cmd h, *cmd;
    uint64_t seq;

    for (uint64_t lap = 0; lap < 3; lap++) {
        for (uint32_t at = 0; at < OC_RING_LINES; at += 2) {
            cmd = oc_ring_reserve(&r->p, 2);
            CHECK(cmd);
            cmd->op = 7;
            cmd->lines = 2;
            cmd->bytes = 40 + 64;
            cmd->thread = cmd->flags = 0;
            /* what a command of one line less would make the next lap's seq of this line */
            *(uint64_t *)(void *)(cmd->payload + 40) = r->p.tail + 1 + OC_RING_LINES + 1;
            oc_ring_publish(&r->p, cmd, &seq);
            CHECK(ring_get(r, &h, payload) && h.seq == seq);
            CHECK(!oc_ring_peek(&r->c));
            oc_ring_release(&r->c);
        }
        ring_put(r, 8, 1, NULL); /* shifts the next lap by one line */
        CHECK(ring_get(r, &h, payload));
        CHECK(!oc_ring_peek(&r->c));
        oc_ring_release(&r->c);
    }
    free(r);
    return 0;
}
