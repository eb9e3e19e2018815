/* SPDX-License-Identifier: Apache-2.0 */
/* The client's handles: by kind, from the number that the client minted to the driver's handle, and back. */
#include <stdlib.h>

#include "limit.h"
#include "loop.h"
#include "turn.h"

/* id: bits 4..23 index, 24..39 generation, 40..45 kind. Readers take no lock: an entry's
 * `id` is stored last and looked at again after `real` was read. */
#define INDEX_BITS 20
#define CHUNK_BITS 10
#define CHUNK (1u << CHUNK_BITS)
#define NR_CHUNKS (1u << (INDEX_BITS - CHUNK_BITS))
#define NR_KINDS 64u
#define BUCKETS 4096u

struct entry {
    _Atomic uint64_t id; /* 0: free */
    void *_Atomic real;
    void *_Atomic data;
    struct entry *next;  /* in its bucket; [lock] */
};

struct table {
    struct entry *_Atomic chunk[NR_CHUNKS];
    struct entry *bucket[BUCKETS]; /* by driver handle; [lock] */
};

static struct table *_Atomic tables[NR_KINDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all changes and of reverse look-ups */

static uint32_t index_of(uint64_t id)
{
    return (uint32_t)(id >> 4) & ((1u << INDEX_BITS) - 1);
}

static bool well_formed(enum ow_kind kind, uint64_t id)
{
    return (id >> 40) == (uint64_t)kind && !(id & 15);
}

static CUresult invalid(enum ow_kind kind)
{
    return kind == OW_KIND_CONTEXT ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_HANDLE;
}

static struct entry *slot_of(enum ow_kind kind, uint64_t id)
{
    struct table *t = (unsigned)kind < NR_KINDS ? atomic_load(&tables[kind]) : NULL;
    struct entry *chunk = t ? atomic_load(&t->chunk[index_of(id) >> CHUNK_BITS]) : NULL;

    return chunk ? &chunk[index_of(id) & (CHUNK - 1)] : NULL;
}

static struct entry *live(enum ow_kind kind, uint64_t id)
{
    struct entry *e = well_formed(kind, id) ? slot_of(kind, id) : NULL;

    return e && atomic_load(&e->id) == id ? e : NULL;
}

static void tell_stream(void *stream)
{
    if (oh_turns_on)
        oh_turn_stream(stream);
    if (oh_limit_on)
        oh_limit_stream(stream);
}

CUresult oh_get(enum ow_kind kind, uint64_t id, void **real)
{
    struct entry *e;

    *real = NULL;
    if (kind == OW_KIND_STREAM && id <= 2) { /* NULL, legacy, per thread */
        *real = (void *)(uintptr_t)id;
        tell_stream(*real);
        return CUDA_SUCCESS;
    }
    e = live(kind, id);
    if (!e)
        return invalid(kind);
    *real = atomic_load(&e->real);
    if (kind == OW_KIND_STREAM)
        tell_stream(*real);
    return atomic_load(&e->id) == id ? CUDA_SUCCESS : invalid(kind);
}

/* ---- changes: the lock is held ---- */

static struct entry **bucket_of(struct table *t, void *real)
{
    return &t->bucket[((uintptr_t)real >> 4) * 0x9e3779b97f4a7c15ull >> 52];
}

static struct entry *make_slot(enum ow_kind kind, uint64_t id)
{
    struct table *t = atomic_load(&tables[kind]);
    struct entry *chunk;
    uint32_t c = index_of(id) >> CHUNK_BITS;

    if (!t) {
        t = calloc(1, sizeof(*t));
        if (!t)
            return NULL;
        atomic_store(&tables[kind], t);
    }
    if (!atomic_load(&t->chunk[c])) {
        chunk = calloc(CHUNK, sizeof(*chunk));
        if (!chunk)
            return NULL;
        atomic_store(&t->chunk[c], chunk);
    }
    return slot_of(kind, id);
}

static void unlink_entry(struct table *t, struct entry *e)
{
    struct entry **p = bucket_of(t, atomic_load(&e->real));

    while (*p && *p != e)
        p = &(*p)->next;
    if (*p)
        *p = e->next;
}

CUresult oh_put(enum ow_kind kind, uint64_t id, void *real)
{
    CUresult r = OH_FAULT;
    struct entry *e, **bucket;

    if (!well_formed(kind, id) || (unsigned)kind >= NR_KINDS)
        return OH_FAULT;
    pthread_mutex_lock(&lock);
    e = make_slot(kind, id);
    if (!e) {
        r = CUDA_ERROR_OUT_OF_MEMORY;
    } else if (!atomic_load(&e->id)) {
        bucket = bucket_of(tables[kind], real);
        atomic_store(&e->real, real);
        atomic_store(&e->data, NULL);
        e->next = *bucket;
        *bucket = e;
        atomic_store(&e->id, id);
        r = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

bool oh_take(enum ow_kind kind, uint64_t id, void **real, void **data)
{
    struct entry *e;

    pthread_mutex_lock(&lock);
    e = live(kind, id);
    if (e) {
        *real = atomic_load(&e->real);
        *data = atomic_load(&e->data);
        atomic_store(&e->id, 0);
        unlink_entry(tables[kind], e);
    }
    pthread_mutex_unlock(&lock);
    if (e && kind == OW_KIND_STREAM && oh_turns_on)
        oh_turn_stream_ends(*real);
    return e != NULL;
}

void oh_del(enum ow_kind kind, uint64_t id)
{
    void *real, *data;

    (void)!oh_take(kind, id, &real, &data);
}

uint64_t oh_find(enum ow_kind kind, void *real)
{
    struct table *t = (unsigned)kind < NR_KINDS ? atomic_load(&tables[kind]) : NULL;
    struct entry *e;
    uint64_t id = 0;

    if (!t)
        return 0;
    pthread_mutex_lock(&lock);
    for (e = *bucket_of(t, real); e && !id; e = e->next)
        if (atomic_load(&e->real) == real)
            id = atomic_load(&e->id);
    pthread_mutex_unlock(&lock);
    return id;
}

void oh_set_data(enum ow_kind kind, uint64_t id, void *data)
{
    struct entry *e = live(kind, id);

    if (e)
        atomic_store(&e->data, data);
}

void *oh_data(enum ow_kind kind, uint64_t id)
{
    struct entry *e = live(kind, id);

    return e ? atomic_load(&e->data) : NULL;
}

void oh_each(enum ow_kind kind, void (*f)(uint64_t id, void *real, void *data, void *arg), void *arg)
{
    struct table *t = (unsigned)kind < NR_KINDS ? atomic_load(&tables[kind]) : NULL;

    for (uint32_t c = 0; t && c < NR_CHUNKS; c++) {
        struct entry *chunk = atomic_load(&t->chunk[c]);

        for (uint32_t i = 0; chunk && i < CHUNK; i++) {
            uint64_t id = atomic_load(&chunk[i].id);

            if (id)
                f(id, atomic_load(&chunk[i].real), atomic_load(&chunk[i].data), arg);
        }
    }
}
