/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels print: taken from the host's queue and written to this process's stdout and stderr. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
_Atomic uint64_t og_output_taken; /* written under the lock */

static bool put_reached(void *arg)
{
    /* pairs with the executor's move_locked */
    return atomic_load_explicit(&og_link.channel->output_put, memory_order_acquire) >= *(const uint64_t *)arg;
}

/* Copies [at, at + bytes) of the stream of records out of the ring; false: the channel ended. */
static bool fetch(uint64_t at, void *to, uint64_t bytes)
{
    const uint8_t *ring = (const uint8_t *)og_link.channel + OC_OUTPUT_OFF;
    uint64_t end = at + bytes, from = at % OC_OUTPUT_BYTES;
    uint64_t first = bytes < OC_OUTPUT_BYTES - from ? bytes : OC_OUTPUT_BYTES - from;

    if (og_wait(put_reached, &end, NULL) != CUDA_SUCCESS)
        return false;
    memcpy(to, ring + from, first);
    memcpy((uint8_t *)to + first, ring, bytes - first);
    return true;
}

/* As the driver does it natively: through C's streams, whose buffers order it with the application's own text. */
static void show(const struct oc_output *head, const char *text)
{
    uint64_t lost;

    if (head->fd == 0 && head->bytes == sizeof(lost)) {
        memcpy(&lost, text, sizeof(lost));
        og_say("%llu bytes that kernels printed were lost: too much at once", (unsigned long long)lost);
        return;
    }
    fwrite(text, 1, head->bytes, head->fd == 2 ? stderr : stdout);
}

static bool one_record_locked(void)
{
    static char text[OC_OUTPUT_TEXT];
    uint64_t at = atomic_load_explicit(&og_output_taken, memory_order_relaxed);
    struct oc_output head;
    uint64_t padded;

    if (!fetch(at, &head, sizeof(head)))
        return false;
    if (head.bytes > OC_OUTPUT_TEXT || head.fd > 2) {
        og_lost("the worker sent malformed output", "host and guest versions differ? Start the program again");
        return false;
    }
    padded = (head.bytes + 7ull) & ~7ull;
    if (!fetch(at + sizeof(head), text, padded))
        return false;
    at += sizeof(head) + padded;
    atomic_store_explicit(&og_link.channel->output_taken, at, memory_order_release); /* pairs with move_locked */
    og_flush(og_block_off() + offsetof(struct oc_channel, output_taken), sizeof(at));
    show(&head, text);
    atomic_store_explicit(&og_output_taken, at, memory_order_release); /* pairs with og_output_check */
    return true;
}

/* All that was printed before the caller's answer, also where another thread is writing it just now. */
void og_output_show(void)
{
    uint64_t until = atomic_load_explicit(&og_link.channel->output_made, memory_order_acquire);

    pthread_mutex_lock(&lock);
    while (atomic_load_explicit(&og_output_taken, memory_order_relaxed) < until && one_record_locked())
        continue;
    fflush(stdout); /* as the driver does */
    pthread_mutex_unlock(&lock);
}
