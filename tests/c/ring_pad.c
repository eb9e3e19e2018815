/* SPDX-License-Identifier: Apache-2.0 */
/* A command that would cross the ring's end is preceded by a pad that fills it. */
#include "ring_fixture.h"

int main(void)
{
    struct ring *r = ring_new();
    static uint8_t payload[OC_CMD_MAX_LINES * OC_LINE];
    const struct oc_cmd *cmd;
    struct oc_cmd h;

    r->p.tail = r->p.head_seen = r->c.head = r->c.head_published = OC_RING_LINES - 2;
    atomic_store(&r->channel.head, OC_RING_LINES - 2);
    CHECK(ring_put(r, 40 + 3 * OC_LINE, 9, NULL) == OC_RING_LINES + 1);
    cmd = oc_ring_peek(&r->c);
    CHECK(cmd && oc_ring_header(&r->c, cmd, &h) && h.op == OC_OP_PAD && h.lines == 2);
    CHECK(ring_get(r, &h, payload) && h.lines == 4 && payload[40 + 3 * OC_LINE - 1] == 9);
    CHECK(r->c.head == OC_RING_LINES + 4);
    free(r);
    return 0;
}
