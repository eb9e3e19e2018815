/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a channel block do not overlap, and the block is what both sides think it is. */
#include <orion/layout.h>

#include "check.h"

int main(void)
{
    struct oc_channel *c = aligned_alloc(64, sizeof(*c));

    CHECK(c);
    oc_channel_init(c, 3);
    CHECK(c->magic == OC_MAGIC && c->channel_id == 3);
    CHECK(c->ring_off >= sizeof(*c));
    CHECK(c->slots_off == c->ring_off + OC_RING_LINES * OC_LINE);
    CHECK(c->callbacks_off == c->slots_off + OC_NR_SLOTS * sizeof(struct oc_slot));
    CHECK(OC_OUTPUT_OFF == c->callbacks_off + OC_NR_CALLBACKS * sizeof(struct oc_callback));
    CHECK(c->staging_off == OC_OUTPUT_OFF + OC_OUTPUT_BYTES);
    CHECK(c->staging_off + c->staging_bytes == OC_CHANNEL_BYTES);
    CHECK(c->staging_bytes >= 1u << 20);
    free(c);
    return 0;
}
