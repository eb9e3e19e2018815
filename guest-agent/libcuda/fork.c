/* SPDX-License-Identifier: Apache-2.0 */
/* fork(): the child of a process that used CUDA cannot use it, and touches nothing shared. */
#include <pthread.h>
#include <unistd.h>

#include "core.h"

/* The region is MADV_DONTFORK; the descriptor is closed here without shutdown, which would reach the parent. */
static void in_child(void)
{
    int life = atomic_load(&og_life);

    /* other threads of the parent may have held these */
    atomic_store_explicit(&og_state_lock, 0, memory_order_relaxed);
    og_log_after_fork();
    og_slots_after_fork();
    og_handles_after_fork();
    if (life == OG_NEW || life == OG_EXITED)
        return;
    atomic_store(&og_life, OG_FORKED);
    if (og_link.fd >= 0)
        close(og_link.fd);
    og_link.fd = -1;
    og_mailbox_after_fork();
}

__attribute__((constructor)) static void at_load(void)
{
    pthread_atfork(NULL, NULL, in_child);
}
