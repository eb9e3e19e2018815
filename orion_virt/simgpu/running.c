/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels run and how far they are, for whoever looks after the machine. No card tells that. */
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "sim.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_running *newest; /* of those that run */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void sim_running_begin(struct sim_running *run, const char *name, uint64_t blocks)
{
    *run = (struct sim_running){ .name = name, .blocks = blocks, .began_ns = now_ns() };
    pthread_mutex_lock(&lock);
    run->older = newest;
    newest = run;
    pthread_mutex_unlock(&lock);
}

void sim_running_end(struct sim_running *run)
{
    pthread_mutex_lock(&lock);
    for (struct sim_running **at = &newest; *at; at = &(*at)->older)
        if (*at == run) {
            *at = run->older;
            break;
        }
    pthread_mutex_unlock(&lock);
}

int orion_sim_running(char *name, size_t room, uint64_t *done, uint64_t *blocks, uint64_t *ns)
{
    const struct sim_running *oldest;

    pthread_mutex_lock(&lock);
    for (oldest = newest; oldest && oldest->older; oldest = oldest->older)
        ;
    if (oldest) {
        snprintf(name, room, "%s", oldest->name);
        *done = __atomic_load_n(&oldest->done, __ATOMIC_RELAXED);
        *blocks = oldest->blocks;
        *ns = now_ns() - oldest->began_ns;
    }
    pthread_mutex_unlock(&lock);
    return oldest != NULL;
}
