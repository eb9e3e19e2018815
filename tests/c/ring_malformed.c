/* SPDX-License-Identifier: Apache-2.0 */
/* Every header that breaks the ring's rules is refused. */
#include "ring_fixture.h"

static bool accepted(uint32_t at, uint16_t op, uint16_t lines, uint32_t bytes, uint32_t thread)
{
    struct ring *r = ring_new();
    struct oc_cmd *cmd = oc_line(r->lines, at), h;
    const struct oc_cmd *seen;
    bool ok;

    r->c.head = at;
    cmd->op = op;
    cmd->lines = lines;
    cmd->bytes = bytes;
    cmd->thread = thread;
    atomic_store(&cmd->seq, at + 1);
    seen = oc_ring_peek(&r->c);
    CHECK(seen);
    ok = oc_ring_header(&r->c, seen, &h);
    free(r);
    return ok;
}

int main(void)
{
    CHECK(accepted(0, 7, 1, 40, 0));
    CHECK(accepted(0, 7, 1024, 1023 * 64 + 40, OC_NR_SLOTS - 1));
    CHECK(!accepted(0, 7, 0, 0, 0));                          /* no lines */
    CHECK(!accepted(0, 7, 1, 41, 0));                         /* more payload than lines */
    CHECK(!accepted(0, 7, 2, 40, 0));                         /* fewer */
    CHECK(!accepted(0, 7, 1, 0xffffffffu, 0));                /* overflow of the sum */
    CHECK(!accepted(0, 7, 1025, 1024 * 64 + 40, 0));          /* too long */
    CHECK(!accepted(OC_RING_LINES - 1, 7, 2, 64, 0));         /* crosses the end */
    CHECK(!accepted(0, 7, 1, 8, OC_NR_SLOTS));                /* no such slot */
    CHECK(!accepted(0, 7, 1, 8, 0xffffffffu));
    CHECK(accepted(OC_RING_LINES - 3, OC_OP_PAD, 3, 0, 0));
    CHECK(!accepted(OC_RING_LINES - 3, OC_OP_PAD, 2, 0, 0));  /* a pad ends at the ring's end */
    CHECK(!accepted(5, OC_OP_PAD, 0xffff, 0, 0));
    return 0;
}
