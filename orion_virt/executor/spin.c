/* SPDX-License-Identifier: Apache-2.0 */
/* Adaptive spinning: up to 1 ms where sleeps turn out short, hardly any where they are long. A guest that computes
 * on all its CPUs between its calls loses whole time slices to a spinner: it must learn to sleep at once. */
#define _GNU_SOURCE
#include <sched.h>

#include "loop.h"

#define SPIN_MAX_NS 1000000u
#define SPIN_MIN_NS 20000u
#define SPIN_FIRST_NS 100000u
/* Sixteen pauses last 1 to 2 us; a gap this long means that the thread was preempted. */
#define PREEMPTED_NS 100000u
#define REST_NS 20000000u

static bool alone; /* one CPU: whoever spins keeps the other side from running */

uint64_t oh_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void oh_spin_setup(void)
{
    cpu_set_t set;

    if (!sched_getaffinity(0, sizeof(set), &set))
        alone = CPU_COUNT(&set) < 2;
}

static inline void relax(void)
{
    __builtin_ia32_pause();
}

bool oh_watch(uint32_t ns, bool (*ready)(void *), void *arg)
{
    uint64_t start = oh_now_ns();

    do {
        for (int i = 0; i < 8; i++) {
            if (ready(arg))
                return true;
            relax();
        }
    } while (oh_now_ns() - start < ns);
    return ready(arg);
}

static bool spin(struct oh_spin *s, bool (*ready)(void *), void *arg)
{
    uint64_t start = oh_now_ns(), last = start, now;

    if (start < s->rest_until)
        return ready(arg);
    do {
        for (int i = 0; i < 16; i++) {
            if (ready(arg))
                return true;
            relax();
        }
        now = oh_now_ns();
        if (now - last > PREEMPTED_NS) {
            s->rest_until = now + REST_NS;
            break;
        }
        last = now;
    } while (now - start < s->budget_ns);
    return ready(arg);
}

bool oh_spin(struct oh_spin *s, bool (*ready)(void *), void *arg)
{
    if (alone)
        return ready(arg);
    if (!s->budget_ns)
        s->budget_ns = SPIN_FIRST_NS;
    return spin(s, ready, arg);
}

void oh_spin_slept(struct oh_spin *s, uint64_t ns)
{
    if (ns < SPIN_MAX_NS)
        s->budget_ns = s->budget_ns < SPIN_MAX_NS / 2 ? s->budget_ns * 2 : SPIN_MAX_NS;
    else
        s->budget_ns = s->budget_ns > SPIN_MIN_NS * 2 ? s->budget_ns / 2 : SPIN_MIN_NS;
}
