/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters: blocks that run together, reach each other's shared memory and meet at a barrier of their own. */
#include "ptx_internal.h"

/* An address in the shared memory of the block of rank r: an offset with r + 1 above it; without that, the own block's. */
#define RANK_SHIFT 24u
#define OFFSET_MASK ((1u << RANK_SHIFT) - 1)
#define NO_RANK 0xfeu /* of no block: a cluster has fewer */

struct ptx_block *ptx_shared_owner(struct ptx_block *b, uint64_t *address)
{
    unsigned above = (uint32_t)*address >> RANK_SHIFT;

    if (!above)
        return b;
    if (above > b->nr_cluster)
        return NULL;
    *address &= OFFSET_MASK;
    return &b->cluster[above - 1];
}

uint64_t ptx_shared_of(const struct ptx_block *b, uint32_t rank, uint64_t address)
{
    return (address & ~(0xffull << RANK_SHIFT)) | (uint64_t)((rank < b->nr_cluster ? rank : NO_RANK) + 1) << RANK_SHIFT;
}

void ptx_mapa(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b);

    EACH d[l] = ptx_shared_of(w->block, (uint32_t)b[l], a[l]);
}

void ptx_getctarank(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);

    EACH {
        unsigned above = (uint32_t)a[l] >> RANK_SHIFT;
        d[l] = above ? above - 1 : w->block->rank;
    }
}

/* Threads that have ended need not arrive, and who waits has arrived: so it is over for those whose count everybody has. */
void ptx_meet_cluster(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    EACH {
        if (i->mode == M_ARRIVE)
            w->arrivals[l]++;
        else
            w->state[l] = L_CLUSTER;
    }
}

void ptx_release_cluster(struct ptx_block *blocks, unsigned nr)
{
    uint32_t least = UINT32_MAX, waiting = 0;

    for (unsigned n = 0; n < nr; n++)
        for (unsigned k = 0; k < blocks[n].nr_warps; k++)
            waiting |= ptx_lanes_in(&blocks[n].warps[k], L_CLUSTER);
    if (!waiting)
        return;
    for (unsigned n = 0; n < nr; n++)
        for (unsigned k = 0; k < blocks[n].nr_warps; k++) {
            const struct ptx_warp *w = &blocks[n].warps[k];
            uint32_t m = w->alive;
            EACH least = w->arrivals[l] < least ? w->arrivals[l] : least;
        }
    for (unsigned n = 0; n < nr; n++)
        for (unsigned k = 0; k < blocks[n].nr_warps; k++) {
            struct ptx_warp *w = &blocks[n].warps[k];
            uint32_t m = ptx_lanes_in(w, L_CLUSTER);
            EACH w->state[l] = w->arrivals[l] <= least ? L_RUN : L_CLUSTER;
        }
}
