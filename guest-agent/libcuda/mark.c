/* SPDX-License-Identifier: Apache-2.0 */
/* Marks: how far the GPU has come on a stream, and the bound on launches in flight that is made of them. */
#include "core.h"
#include "gen/send.h"

/* The driver queues about 1024 launches of a stream and blocks the thread that brings one more (measured). Here that
 * thread reads the ring for all threads of the process, so the launching one waits instead, a little earlier. */
#define LAUNCHES_A_MARK 128u
#define MARKS_AHEAD 6u
#define STUCK_NS 2000000000u /* no progress for so long: kernels of many milliseconds, or a mark that was lost */
#define LANES (OC_NR_MARKS - OC_EVENT_MARKS)
#define MADE_LANES (LANES - OC_MAX_DEVICES) /* streams of higher index know no bound */

/* Launches of one stream while other threads talk to the host. A lane outlives its stream: marks only grow. */
static struct lane {
    _Atomic uint64_t launches, marks;
} lanes[LANES];
static _Atomic bool none_came; /* once waited in vain where no mark was ever written: maybe the driver writes none */

bool og_can_mark(void)
{
    return og_link.shm && og_peer_knows(OW_OP_orion_mark) &&
           atomic_load_explicit(&og_captures, memory_order_acquire) == 0;
}

void og_mark(uint64_t stream, uint32_t index, uint64_t value)
{
    CUresult r = og_send_orion_mark((CUstream)(uintptr_t)stream, value, index);

    (void)r; /* a mark that does not arrive: the host is asked */
}

uint64_t og_marked(uint32_t index)
{
    /* pairs with the GPU's write, before which all that the stream held is visible */
    return atomic_load_explicit(&og_link.channel->marks[index], memory_order_acquire);
}

struct progress {
    uint32_t index;
    uint64_t wanted, seen, deadline;
    const _Atomic uint32_t *device_error;
};

static bool near_enough(void *arg)
{
    struct progress *p = arg;
    uint64_t now, reached = og_marked(p->index);

    if (reached >= p->wanted || atomic_load_explicit(p->device_error, memory_order_relaxed))
        return true;
    now = og_now_ns();
    if (reached != p->seen)
        p->deadline = now + STUCK_NS;
    p->seen = reached;
    return now > p->deadline;
}

static void mark_and_wait(uint32_t at, uint64_t stream)
{
    struct progress p = { .index = OC_EVENT_MARKS + at };
    uint64_t mark;

    if (!og_can_mark())
        return;
    mark = atomic_fetch_add_explicit(&lanes[at].marks, 1, memory_order_relaxed) + 1;
    og_mark(stream, p.index, mark);
    p.seen = og_marked(p.index);
    if (mark <= MARKS_AHEAD || (!p.seen && atomic_load_explicit(&none_came, memory_order_relaxed)))
        return;
    p.wanted = mark - MARKS_AHEAD;
    p.deadline = og_now_ns() + STUCK_NS;
    p.device_error = &og_link.channel->device_error[og_self()->device];
    (void)!og_wait(near_enough, &p, NULL);
    if (!p.seen)
        atomic_store_explicit(&none_came, true, memory_order_relaxed);
}

void og_launched(uint64_t stream)
{
    int device = og_self()->device;
    uint32_t at;

    if (device < 0 || stream == 2 || (stream > 2 && og_index(stream) >= MADE_LANES))
        return;
    at = stream > 2 ? og_index(stream) : MADE_LANES + (uint32_t)device;
    if ((atomic_fetch_add_explicit(&lanes[at].launches, 1, memory_order_relaxed) + 1) % LAUNCHES_A_MARK == 0)
        mark_and_wait(at, stream);
}
