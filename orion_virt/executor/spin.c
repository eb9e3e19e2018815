/* SPDX-License-Identifier: Apache-2.0 */
/* Adaptive spinning: up to 1 ms where sleeps turn out short, hardly any where they are long. A guest that computes
 * on all its CPUs between its calls loses whole time slices to a spinner: it must learn to sleep at once. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "loop.h"

#define SPIN_MAX_NS 1000000u
#define SPIN_MIN_NS 20000u
#define SPIN_FIRST_NS 100000u
/* Sixteen pauses last 1 to 2 us; a gap this long means that the thread was preempted. A sleep that ends in so long a
 * wait for a CPU means that it will take one away from somebody, maybe from the thread that woke it. */
#define PREEMPTED_NS 100000u
#define REST_NS 20000000u
#define MAX_ASKED 64

static bool alone; /* one CPU: whoever spins keeps the other side from running */
static _Atomic uint64_t rest_until; /* no thread spins before: all CPUs are in use */

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

static void rest(void)
{
    atomic_store_explicit(&rest_until, oh_now_ns() + REST_NS, memory_order_relaxed);
}

static bool resting(uint64_t now)
{
    return now < atomic_load_explicit(&rest_until, memory_order_relaxed);
}

static bool spin(const struct oh_spin *s, bool (*ready)(void *), void *arg)
{
    uint64_t start = oh_now_ns(), last = start, now;

    if (resting(start))
        return ready(arg);
    do {
        for (int i = 0; i < 16; i++) {
            if (ready(arg))
                return true;
            relax();
        }
        now = oh_now_ns();
        if (now - last > PREEMPTED_NS) {
            rest();
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

/* How long this thread has waited for a CPU in its life; 0 where the kernel does not say. */
static uint64_t waited_for_cpu(void)
{
    static _Atomic int asked;
    static _Thread_local int fd = -2;
    char text[80], *end;
    ssize_t n;

    if (fd == -2) /* descriptors are scarce too: the busiest twins are the first */
        fd = atomic_fetch_add(&asked, 1) >= MAX_ASKED ? -1 : open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = 0;
    strtoull(text, &end, 10); /* time on a CPU */
    return strtoull(end, NULL, 10);
}

void oh_spin_woke(void)
{
    static _Thread_local uint64_t before;
    uint64_t waited = waited_for_cpu();

    if (waited > before + PREEMPTED_NS)
        rest();
    before = waited;
}

void oh_spin_slept(struct oh_spin *s, uint64_t ns)
{
    if (resting(oh_now_ns()))
        s->budget_ns = SPIN_MIN_NS; /* the length of this sleep says nothing */
    else if (ns < SPIN_MAX_NS)
        s->budget_ns = s->budget_ns < SPIN_MAX_NS / 2 ? s->budget_ns * 2 : SPIN_MAX_NS;
    else
        s->budget_ns = s->budget_ns > SPIN_MIN_NS * 2 ? s->budget_ns / 2 : SPIN_MIN_NS;
}
