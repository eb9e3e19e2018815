/* SPDX-License-Identifier: Apache-2.0 */
/* Handles that the client mints: one table for each kind, growing in chunks that never move. */
#include <stdlib.h>

#include "core.h"

#define KINDS 64u
#define CHUNK 1024u  /* entries */
#define CHUNKS 1024u /* 2^20 indices */
#define LIVE 0x10000u

/* bits 4..23 of a handle: index; 24..39: generation; 40..45: kind */
struct entry {
    _Atomic uint32_t state; /* generation, and LIVE */
    uint32_t next_free;     /* index + 1; under the table's lock */
    _Atomic(void *) data;
    _Atomic uint64_t context; /* current when it was made */
};

struct table {
    _Atomic int lock;                     /* of minting and freeing; readers take none */
    uint32_t used, first_free;            /* indices handed out so far; index + 1 of a freed one */
    _Atomic(_Atomic(struct entry *) *) chunks; /* CHUNKS pointers, made at first use */
};

static struct table tables[KINDS];

uint32_t og_index(uint64_t handle)
{
    return (uint32_t)(handle >> 4) & 0xfffff;
}

static unsigned kind_of(uint64_t handle)
{
    return (unsigned)(handle >> 40) & (KINDS - 1);
}

static struct entry *entry_at(struct table *t, uint32_t index)
{
    /* pairs with add_chunk */
    _Atomic(struct entry *) *chunks = atomic_load_explicit(&t->chunks, memory_order_acquire);
    struct entry *chunk;

    if (!chunks)
        return NULL;
    chunk = atomic_load_explicit(&chunks[index / CHUNK], memory_order_acquire);
    return chunk ? &chunk[index % CHUNK] : NULL;
}

/* The live entry of a handle, NULL when it is none of ours. */
static struct entry *find(uint64_t handle)
{
    struct entry *e;

    if (handle & 15 || handle >> 46)
        return NULL;
    e = entry_at(&tables[kind_of(handle)], og_index(handle));
    if (!e || atomic_load_explicit(&e->state, memory_order_acquire) != (LIVE | ((uint32_t)(handle >> 24) & 0xffff)))
        return NULL;
    return e;
}

static bool add_chunk(struct table *t, uint32_t index)
{
    _Atomic(struct entry *) *chunks = atomic_load_explicit(&t->chunks, memory_order_relaxed);
    struct entry *chunk;

    if (!chunks) {
        chunks = calloc(CHUNKS, sizeof(*chunks));
        if (!chunks)
            return false;
        atomic_store_explicit(&t->chunks, chunks, memory_order_release); /* pairs with entry_at */
    }
    chunk = calloc(CHUNK, sizeof(*chunk));
    if (chunk)
        atomic_store_explicit(&chunks[index / CHUNK], chunk, memory_order_release);
    return chunk != NULL;
}

/* An index whose entry exists, or UINT32_MAX. Freed ones first: the host's tables stay small. */
static uint32_t take_index_locked(struct table *t)
{
    uint32_t index = t->first_free - 1;

    if (t->first_free) {
        t->first_free = entry_at(t, index)->next_free;
        return index;
    }
    if (t->used == CHUNK * CHUNKS || (t->used % CHUNK == 0 && !add_chunk(t, t->used)))
        return UINT32_MAX;
    return t->used++;
}

uint64_t og_mint(enum ow_kind kind)
{
    struct table *t = &tables[(unsigned)kind % KINDS];
    struct entry *e;
    uint32_t index, generation = 0;

    og_lock(&t->lock);
    index = take_index_locked(t);
    if (index != UINT32_MAX) {
        e = entry_at(t, index);
        generation = atomic_load_explicit(&e->state, memory_order_relaxed) & 0xffff;
        atomic_store_explicit(&e->data, NULL, memory_order_relaxed);
        atomic_store_explicit(&e->context, og_current(), memory_order_relaxed);
        atomic_store_explicit(&e->state, LIVE | generation, memory_order_release); /* pairs with find */
    }
    og_unlock(&t->lock);
    if (index == UINT32_MAX)
        return 0;
    return (uint64_t)((unsigned)kind % KINDS) << 40 | (uint64_t)generation << 24 | (uint64_t)index << 4;
}

void og_unmint(enum ow_kind kind, uint64_t handle)
{
    struct table *t = &tables[(unsigned)kind % KINDS];
    struct entry *e;

    if (!og_valid(kind, handle))
        return;
    og_lock(&t->lock);
    e = find(handle);
    if (e) {
        /* the next handle with this index differs: a stale one is not valid again for 65536 rounds */
        atomic_store_explicit(&e->state, ((uint32_t)(handle >> 24) + 1) & 0xffff, memory_order_release);
        atomic_store_explicit(&e->data, NULL, memory_order_relaxed);
        e->next_free = t->first_free;
        t->first_free = og_index(handle) + 1;
    }
    og_unlock(&t->lock);
}

/* Another thread of the parent may have held a lock; the child's calls fail, but only after minting. */
void og_handles_after_fork(void)
{
    for (unsigned kind = 0; kind < KINDS; kind++)
        atomic_store_explicit(&tables[kind].lock, 0, memory_order_relaxed);
}

bool og_valid(enum ow_kind kind, uint64_t handle)
{
    return kind_of(handle) == (unsigned)kind && find(handle) != NULL;
}

void og_set_data(uint64_t handle, void *data)
{
    struct entry *e = find(handle);

    if (e)
        atomic_store_explicit(&e->data, data, memory_order_release); /* pairs with og_data */
}

void *og_data(uint64_t handle)
{
    struct entry *e = find(handle);

    return e ? atomic_load_explicit(&e->data, memory_order_acquire) : NULL;
}

uint64_t og_made_in(uint64_t handle)
{
    struct entry *e = find(handle);

    return e ? atomic_load_explicit(&e->context, memory_order_relaxed) : 0;
}

bool og_swap_data(uint64_t handle, void **seen, void *data)
{
    struct entry *e = find(handle);

    /* pairs with og_data */
    return !e || atomic_compare_exchange_strong_explicit(&e->data, seen, data, memory_order_acq_rel,
                                                         memory_order_acquire);
}

void og_each(enum ow_kind kind, void (*visit)(uint64_t handle, void *data, void *arg), void *arg)
{
    struct table *t = &tables[(unsigned)kind % KINDS];

    for (uint32_t index = 0; index < CHUNK * CHUNKS; index++) {
        struct entry *e = entry_at(t, index);
        uint32_t state;

        if (!e)
            return; /* chunks are made in order */
        state = atomic_load_explicit(&e->state, memory_order_acquire);
        if (state & LIVE)
            visit((uint64_t)((unsigned)kind % KINDS) << 40 | (uint64_t)(state & 0xffff) << 24 | (uint64_t)index << 4,
                  atomic_load_explicit(&e->data, memory_order_acquire), arg);
    }
}
