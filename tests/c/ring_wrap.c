/* SPDX-License-Identifier: Apache-2.0 */
/* Commands of every size survive many laps of the ring, in order and unchanged. */
#include "ring_fixture.h"

int main(void)
{
    struct ring *r = ring_new();
    static uint8_t payload[OC_CMD_MAX_LINES * OC_LINE];
    struct oc_cmd h;
    uint32_t bytes = 1;

    for (int i = 0; i < 20000; i++) {
        uint64_t seq = ring_put(r, bytes, (uint8_t)i, NULL);

        CHECK(seq);
        CHECK(ring_get(r, &h, payload));
        CHECK(h.seq == seq && h.bytes == bytes && h.thread == (uint8_t)i && h.op == 7);
        CHECK(payload[0] == (uint8_t)i && payload[bytes - 1] == (uint8_t)i);
        CHECK(!ring_get(r, &h, payload));
        oc_ring_release(&r->c);
        bytes = (bytes * 7 + 13) % 65000 + 1;
    }
    CHECK(r->p.tail == r->c.head && r->p.tail > 100 * OC_RING_LINES);
    free(r);
    return 0;
}
