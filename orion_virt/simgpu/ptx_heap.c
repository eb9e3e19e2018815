/* SPDX-License-Identifier: Apache-2.0 */
/* malloc and free of device code: first fit in one piece of device memory, as large as the limit was at the first call. */
#include <pthread.h>
#include <stdlib.h>

#include "ptx_internal.h"

/* Before each block of the heap; blocks follow one another to its end. */
struct block {
    uint64_t bytes;                  /* with this header */
    uint64_t used;
};
struct ptx_heap {
    uint8_t *base;
    uint64_t bytes;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct ptx_heap *heap_locked(struct ptx_module *m)
{
    if (!m->heap && (m->heap = calloc(1, sizeof(*m->heap)))) {
        m->heap->bytes = (m->memory.heap_bytes(m->memory.arg) + 4095) & ~4095ull;
        m->heap->base = m->heap->bytes ? m->memory.alloc(m->memory.arg, m->heap->bytes, 0) : NULL;
        if (m->heap->base)
            ((struct block *)(void *)m->heap->base)->bytes = m->heap->bytes;
    }
    return m->heap && m->heap->base ? m->heap : NULL;
}

static uint64_t take(struct ptx_heap *h, uint64_t bytes)
{
    uint64_t need = (bytes + sizeof(struct block) + 15) & ~15ull;
    struct block *b, *next;

    if (bytes > h->bytes)
        return 0;
    for (uint64_t at = 0; at < h->bytes; at += b->bytes) {
        b = (struct block *)(void *)(h->base + at);
        while (!b->used && at + b->bytes < h->bytes) { /* free neighbours become one */
            next = (struct block *)(void *)(h->base + at + b->bytes);
            if (next->used)
                break;
            b->bytes += next->bytes;
        }
        if (b->used || b->bytes < need)
            continue;
        if (b->bytes >= need + 32) {
            next = (struct block *)(void *)(h->base + at + need);
            next->bytes = b->bytes - need;
            next->used = 0;
            b->bytes = need;
        }
        b->used = 1;
        return (uint64_t)(uintptr_t)(b + 1);
    }
    return 0;
}

/* True: `address` is a block in use, which is free now. */
static bool give(struct ptx_heap *h, uint64_t address)
{
    struct block *b;

    for (uint64_t at = 0; at < h->bytes; at += b->bytes) {
        b = (struct block *)(void *)(h->base + at);
        if (b->bytes < sizeof(*b) || b->bytes > h->bytes - at)
            return false; /* overwritten by the program */
        if ((uint64_t)(uintptr_t)(b + 1) != address)
            continue;
        bool used = b->used == 1;
        b->used = 0;
        return used;
    }
    return false;
}

void ptx_malloc(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    struct ptx_module *module = w->kernel->module;

    EACH {
        uint64_t bytes, got;
        uint8_t *base = w->local + (size_t)l * w->local_bytes;
        memcpy(&bytes, base + REG(i->a)[l], 8);
        pthread_mutex_lock(&lock);
        struct ptx_heap *h = heap_locked(module);
        got = h ? take(h, bytes) : 0;
        pthread_mutex_unlock(&lock);
        if (i->d >= 0)
            memcpy(base + REG(i->d)[l], &got, 8);
    }
}

void ptx_free(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    struct ptx_module *module = w->kernel->module;

    EACH {
        uint64_t address;
        memcpy(&address, w->local + (size_t)l * w->local_bytes + REG(i->a)[l], 8);
        if (!address)
            continue;
        pthread_mutex_lock(&lock);
        bool fine = module->heap && module->heap->base && give(module->heap, address);
        pthread_mutex_unlock(&lock);
        if (!fine) {
            ptx_fault(w, l, PTX_TRAP, "free of 0x%llx, which malloc did not give or which was freed already",
                      (unsigned long long)address);
            return;
        }
    }
}

void ptx_heap_drop(struct ptx_module *m)
{
    if (m->heap && m->heap->base)
        m->memory.free(m->memory.arg, m->heap->base);
    free(m->heap);
}
