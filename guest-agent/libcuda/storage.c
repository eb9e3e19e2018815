/* SPDX-License-Identifier: Apache-2.0 */
/* Context-local storage: a fixed hash table, writers under a lock, readers on every runtime call without one. */
#include "storage.h"

#include <pthread.h>

/* Live values at once: one for each (copy of the runtime, context); a PyTorch process has about 20. */
#define OG_STORAGE_SLOTS 4096u
#define OG_STORAGE_FREED 1ull /* in `context`: no live value, but probing goes on */

/* A reader takes `version` before and after: odd or changed means that a writer was here. */
struct og_storage_slot {
    _Atomic uint32_t version;
    _Atomic uint64_t context; /* 0: never used, ends a probe */
    _Atomic uintptr_t key, value;
    og_storage_dtor *dtor;    /* under the lock */
};

static struct og_storage_slot og_storage[OG_STORAGE_SLOTS];
static pthread_mutex_t og_storage_lock = PTHREAD_MUTEX_INITIALIZER;

static uint32_t og_storage_hash(uint64_t context, const void *key)
{
    uint64_t x = (context ^ ((uintptr_t)key >> 3)) * 0x9e3779b97f4a7c15ull;

    return (uint32_t)(x >> 40) & (OG_STORAGE_SLOTS - 1);
}

/* Also sets *free_slot to the first slot on the way that a new value may take. */
static struct og_storage_slot *og_storage_find_locked(uint64_t context, const void *key,
                                                      struct og_storage_slot **free_slot)
{
    uint32_t at = og_storage_hash(context, key);

    *free_slot = NULL;
    for (uint32_t n = 0; n < OG_STORAGE_SLOTS; n++) {
        struct og_storage_slot *s = &og_storage[(at + n) & (OG_STORAGE_SLOTS - 1)];
        uint64_t c = atomic_load_explicit(&s->context, memory_order_relaxed);

        if (c == context && atomic_load_explicit(&s->key, memory_order_relaxed) == (uintptr_t)key)
            return s;
        if (c <= OG_STORAGE_FREED && !*free_slot)
            *free_slot = s;
        if (c == 0)
            break;
    }
    return NULL;
}

static void og_storage_write_locked(struct og_storage_slot *s, uint64_t context, void *key, void *value)
{
    uint32_t version = atomic_load_explicit(&s->version, memory_order_relaxed);

    atomic_store_explicit(&s->version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* pairs with the acquire fence in og_storage_read */
    atomic_store_explicit(&s->context, context, memory_order_relaxed);
    atomic_store_explicit(&s->key, (uintptr_t)key, memory_order_relaxed);
    atomic_store_explicit(&s->value, (uintptr_t)value, memory_order_relaxed);
    atomic_store_explicit(&s->version, version + 2, memory_order_release); /* pairs with og_storage_read */
}

CUresult og_storage_put(uint64_t context, void *key, void *value, og_storage_dtor *dtor)
{
    struct og_storage_slot *s, *free_slot;

    pthread_mutex_lock(&og_storage_lock);
    s = og_storage_find_locked(context, key, &free_slot);
    if (!s)
        s = free_slot;
    if (s) {
        og_storage_write_locked(s, context, key, value);
        s->dtor = dtor;
    }
    pthread_mutex_unlock(&og_storage_lock);
    return s ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult og_storage_delete(uint64_t context, void *key)
{
    struct og_storage_slot *s, *free_slot;

    pthread_mutex_lock(&og_storage_lock);
    s = og_storage_find_locked(context, key, &free_slot);
    if (s) {
        og_storage_write_locked(s, OG_STORAGE_FREED, NULL, NULL);
        s->dtor = NULL;
    }
    pthread_mutex_unlock(&og_storage_lock);
    return s ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Consistent copy of a slot. */
static void og_storage_read(struct og_storage_slot *s, uint64_t *context, uintptr_t *key, uintptr_t *value)
{
    uint32_t before, after;

    do {
        before = atomic_load_explicit(&s->version, memory_order_acquire); /* pairs with og_storage_write_locked */
        *context = atomic_load_explicit(&s->context, memory_order_relaxed);
        *key = atomic_load_explicit(&s->key, memory_order_relaxed);
        *value = atomic_load_explicit(&s->value, memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load_explicit(&s->version, memory_order_relaxed);
    } while ((before & 1) || before != after);
}

CUresult og_storage_get(uint64_t context, void *key, void **value)
{
    uint32_t at = og_storage_hash(context, key);

    for (uint32_t n = 0; n < OG_STORAGE_SLOTS; n++) {
        uint64_t c;
        uintptr_t k, v;

        og_storage_read(&og_storage[(at + n) & (OG_STORAGE_SLOTS - 1)], &c, &k, &v);
        if (c == 0)
            break;
        if (c != context || k != (uintptr_t)key)
            continue;
        *value = (void *)v;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_HANDLE;
}

/* Takes one value of the context out of the table; false: none is left. */
static bool og_storage_take(uint64_t context, uint32_t *from, void **key, void **value, og_storage_dtor **dtor)
{
    bool found = false;

    pthread_mutex_lock(&og_storage_lock);
    for (; *from < OG_STORAGE_SLOTS && !found; ++*from) {
        struct og_storage_slot *s = &og_storage[*from];

        if (atomic_load_explicit(&s->context, memory_order_relaxed) != context)
            continue;
        *key = (void *)atomic_load_explicit(&s->key, memory_order_relaxed);
        *value = (void *)atomic_load_explicit(&s->value, memory_order_relaxed);
        *dtor = s->dtor;
        og_storage_write_locked(s, OG_STORAGE_FREED, NULL, NULL);
        s->dtor = NULL;
        found = true;
    }
    pthread_mutex_unlock(&og_storage_lock);
    return found;
}

void og_storage_context_died(uint64_t context)
{
    uint32_t from = 0;
    void *key, *value;
    og_storage_dtor *dtor;

    /* destructors enter the library again, so the lock is not held; what they put stays */
    while (og_storage_take(context, &from, &key, &value, &dtor))
        if (dtor)
            dtor(context, key, value);
}
