/* SPDX-License-Identifier: Apache-2.0 */
/* A ring in private memory with both of its ends. */
#ifndef RING_FIXTURE_H
#define RING_FIXTURE_H

#include <orion/ring.h>

#include "check.h"

struct ring {
    _Alignas(64) struct oc_channel channel;
    _Alignas(64) uint8_t lines[OC_RING_LINES * OC_LINE];
    struct oc_producer p;
    struct oc_consumer c;
};

static inline struct ring *ring_new(void)
{
    struct ring *r = aligned_alloc(64, sizeof(*r));

    CHECK(r);
    memset(r, 0, sizeof(*r));
    r->p = (struct oc_producer){ .channel = &r->channel, .lines = r->lines };
    r->c = (struct oc_consumer){ .channel = &r->channel, .lines = r->lines };
    return r;
}

/* Writes one command whose payload bytes all are `fill`; 0 when the ring is full, else its sequence. */
static inline uint64_t ring_put(struct ring *r, uint32_t bytes, uint8_t fill, bool *parked)
{
    struct oc_cmd *cmd = oc_ring_reserve(&r->p, oc_cmd_lines(bytes));
    uint64_t seq;
    bool wake;

    if (!cmd)
        return 0;
    cmd->op = 7;
    cmd->lines = (uint16_t)oc_cmd_lines(bytes);
    cmd->bytes = bytes;
    cmd->thread = fill;
    cmd->flags = 0;
    memset(cmd->payload, fill, bytes);
    wake = oc_ring_publish(&r->p, cmd, &seq);
    if (parked)
        *parked = wake;
    return seq;
}

/* Takes the next command, skipping pads; false: nothing there. */
static inline bool ring_get(struct ring *r, struct oc_cmd *h, uint8_t *payload)
{
    const struct oc_cmd *cmd;

    while ((cmd = oc_ring_peek(&r->c))) {
        CHECK(oc_ring_header(&r->c, cmd, h));
        if (h->op != OC_OP_PAD) {
            oc_ring_take(&r->c, cmd, h, payload);
            return true;
        }
        r->c.head += h->lines;
    }
    return false;
}

#endif
