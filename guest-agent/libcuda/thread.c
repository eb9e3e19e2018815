/* SPDX-License-Identifier: Apache-2.0 */
/* State of each guest thread, and the completion slot that it holds from its first command to its end. */
#include <pthread.h>
#include <stdlib.h>

#include "core.h"

/* One word of static TLS: a library that is loaded by dlopen may use no more of it. */
static __thread struct og_thread *self __attribute__((tls_model("initial-exec")));
static struct og_thread spare; /* for threads that get no memory: they share it and lose no more than context */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

_Atomic int og_talkers;
static _Atomic int slots_lock;
static uint64_t slots_taken[OC_NR_SLOTS / 64];

CUresult og_slot_take(struct og_thread *t)
{
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

    og_lock(&slots_lock);
    for (uint32_t i = 0; i < OC_NR_SLOTS / 64; i++) {
        if (slots_taken[i] == UINT64_MAX)
            continue;
        t->slot = i * 64 + (uint32_t)__builtin_ctzll(~slots_taken[i]);
        slots_taken[i] |= 1ull << t->slot % 64;
        r = CUDA_SUCCESS;
        atomic_fetch_add_explicit(&og_talkers, 1, memory_order_relaxed);
        break;
    }
    og_unlock(&slots_lock);
    if (r != CUDA_SUCCESS)
        og_log_at(OG_ERROR, "more than %u threads of this process use CUDA at once", OC_NR_SLOTS);
    return r;
}

static void give_slot(uint32_t slot)
{
    og_lock(&slots_lock);
    slots_taken[slot / 64] &= ~(1ull << slot % 64);
    atomic_fetch_sub_explicit(&og_talkers, 1, memory_order_relaxed);
    og_unlock(&slots_lock);
}

void og_slots_after_fork(void)
{
    atomic_store_explicit(&slots_lock, 0, memory_order_relaxed);
}

/* The host's twin ends before another thread may have the slot: the ring orders that. */
static void end_twin(struct og_thread *t)
{
    struct og_call c;

    t->syncing = true; /* needs no context */
    t->in_callback = false;
    if (og_begin(&c, OW_OP_orion_thread_exit, 0) == CUDA_SUCCESS)
        (void)og_post(&c);
}

/* Runs at the thread's end; later CUDA calls of other destructors make a new state, which ends here too. */
static void thread_end(void *arg)
{
    struct og_thread *t = arg;

    self = t;
    if (t->slot < OC_NR_SLOTS && atomic_load(&og_life) == OG_CONNECTED) {
        end_twin(t);
        give_slot(t->slot);
    }
    self = NULL;
    free(t);
}

static void make_key(void)
{
    if (pthread_key_create(&key, thread_end) != 0)
        og_log_at(OG_ERROR, "no pthread key is left: ended threads keep their completion slots");
}

static struct og_thread *make(void)
{
    struct og_thread *t = calloc(1, sizeof(*t));

    if (!t)
        t = &spare;
    t->slot = OC_NR_SLOTS;
    t->device = -1;
    self = t;
    pthread_once(&once, make_key);
    if (t != &spare)
        pthread_setspecific(key, t);
    return t;
}

struct og_thread *og_self(void)
{
    return __builtin_expect(self != NULL, 1) ? self : make();
}
