/* SPDX-License-Identifier: Apache-2.0 */
/* With ORION_STATS=1 in oriond's environment: how often each operation ran and how long it took, logged at the end. */
#include <stdatomic.h>
#include <stdlib.h>

#include "loop.h"

#define SHOWN 40

static struct { _Atomic uint64_t calls, waited, ns; } seen[OW_NR_OPS];
static _Atomic uint64_t wakes;
bool oh_stats_on;

void oh_stats_setup(void)
{
    const char *on = getenv("ORION_STATS");

    oh_stats_on = on && *on == '1';
}

void oh_stats_note(uint32_t op, bool waited, uint64_t ns)
{
    if (op >= OW_NR_OPS)
        return;
    atomic_fetch_add_explicit(&seen[op].calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&seen[op].waited, waited, memory_order_relaxed);
    atomic_fetch_add_explicit(&seen[op].ns, ns, memory_order_relaxed);
}

void oh_stats_wake(void)
{
    if (oh_stats_on)
        atomic_fetch_add_explicit(&wakes, 1, memory_order_relaxed);
}

/* The operation that took the most time and was not shown yet; -1: none is left. */
static int costliest(const bool *shown)
{
    int best = -1;

    for (int i = 0; i < (int)OW_NR_OPS; i++)
        if (!shown[i] && seen[i].calls && (best < 0 || seen[i].ns > seen[best].ns))
            best = i;
    return best;
}

void oh_stats_report(void)
{
    static bool shown[OW_NR_OPS];
    int op;

    if (!oh_stats_on)
        return;
    oh_log("statistics: operation, calls, of them round trips, total us, us a call; %llu sleeps of a guest thread's twin",
           (unsigned long long)wakes);
    for (unsigned i = 0; i < SHOWN && (op = costliest(shown)) >= 0; i++) {
        shown[op] = true;
        oh_log("statistics: %-36s %9llu %9llu %12.0f %9.2f", ow_op_name((uint32_t)op) ? ow_op_name((uint32_t)op) : "?",
               (unsigned long long)seen[op].calls, (unsigned long long)seen[op].waited, (double)seen[op].ns / 1e3,
               (double)seen[op].ns / 1e3 / (double)seen[op].calls);
    }
}
