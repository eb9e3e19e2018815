/* SPDX-License-Identifier: Apache-2.0 */
/* The one-word lock's slow path and the futex calls under it and under waiting. */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core.h"

#define SPINS 100 /* about the time of one submission */

void og_futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

void og_futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
    struct timespec ts = { (time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u) };

    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, &ts, NULL, 0);
}

void og_lock_slow(_Atomic int *lock)
{
    for (int i = 0; i < SPINS; i++) {
        int idle = 0;

        __builtin_ia32_pause();
        /* pairs with og_unlock */
        if (atomic_load_explicit(lock, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(lock, &idle, 1, memory_order_acquire, memory_order_relaxed))
            return;
    }
    /* 2 tells the holder that it must wake somebody */
    while (atomic_exchange_explicit(lock, 2, memory_order_acquire) != 0)
        og_futex_wait((_Atomic uint32_t *)lock, 2, 1000000000u);
}
