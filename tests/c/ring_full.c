/* SPDX-License-Identifier: Apache-2.0 */
/* A full ring refuses, loses nothing, and takes commands again once head has moved. */
#include "ring_fixture.h"

int main(void)
{
    struct ring *r = ring_new();
    uint8_t payload[OC_LINE];
    struct oc_cmd h;
    uint64_t put = 0, got = 0;

    while (ring_put(r, 8, (uint8_t)put, NULL))
        put++;
    CHECK(put == OC_RING_LINES - 1); /* the line after a command is zeroed, so one stays free */
    CHECK(!oc_ring_has_room(&r->p, 1));
    CHECK(ring_get(r, &h, payload));
    got++;
    CHECK(!oc_ring_has_room(&r->p, 1)); /* consumed, not yet released */
    oc_ring_release(&r->c);
    CHECK(oc_ring_has_room(&r->p, 1) && !oc_ring_has_room(&r->p, 2));
    CHECK(ring_put(r, 8, (uint8_t)put, NULL));
    put++;
    while (ring_get(r, &h, payload))
        CHECK(payload[0] == (uint8_t)got++);
    CHECK(got == put);
    free(r);
    return 0;
}
