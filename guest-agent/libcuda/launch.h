/* SPDX-License-Identifier: Apache-2.0 */
/* Launches: the shape of one, shared by its ways in and by the occupancy questions about it. */
#ifndef OG_LAUNCH_H
#define OG_LAUNCH_H

#include "modules.h"

struct og_shape {
    unsigned grid[3], block[3], shared;
};

/* The result for what is no function of ours. launch.c */
CUresult og_no_function(void);

/* Within what every card allows; a card's own limits are checked by the first launch of a shape. */
static inline bool og_grid_ok(const struct og_shape *s)
{
    return s->grid[0] - 1 < 0x7fffffffu && s->grid[1] - 1 < 65535u && s->grid[2] - 1 < 65535u;
}

static inline bool og_block_ok(const struct og_shape *s)
{
    return s->block[0] - 1 < 1024u && s->block[1] - 1 < 1024u && s->block[2] - 1 < 64u &&
           s->block[0] * s->block[1] * s->block[2] <= 1024u;
}

/* What does not fit the packed form becomes its largest value, which is as wrong. */
static inline void og_block_clamp(struct og_shape *s)
{
    static const unsigned most[3] = { 0x7ff, 0x7ff, 0x3ff };

    for (int i = 0; i < 3; i++)
        s->block[i] = s->block[i] < most[i] ? s->block[i] : most[i];
}

/* As it crosses: x | y << 11 | z << 22. */
static inline uint32_t og_block_packed(const struct og_shape *s)
{
    return s->block[0] | s->block[1] << 11 | s->block[2] << 22;
}

#endif
