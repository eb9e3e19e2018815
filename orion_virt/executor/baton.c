/* SPDX-License-Identifier: Apache-2.0 */
/* The baton: which host thread may read the ring. Giving it up and taking it back are atomic stores only. */
#include "loop.h"

/* The baton word is FREE, a twin's slot + 1, or KICKER while a thread that found it
 * free looks for the twin that should have it. Invariants against lost wake-ups:
 *
 *  1. consumer_parked and the ring's consumer are written by the holder only.
 *  2. consumer_parked is 1 whenever the baton is FREE; it is set before.
 *  3. Whoever stores FREE looks at the ring afterwards (oh_baton_kick); a wake byte that
 *     reached the watcher while someone held the baton was sent after its command was
 *     published, so that later look finds the command.
 *  4. A producer's load of consumer_parked may pass its store of seq. An idle holder
 *     therefore watches for OC_PARK_GRACE_NS with consumer_parked set before it stores
 *     FREE. A holder that gives up for a blocking call does not wait that long: with
 *     other guest threads alive it watches for BLOCK_GRACE_NS (a store drains faster
 *     than that unless the CPU is gone), their twins look while they spin, and the
 *     watcher's tick of one second bounds what is left.
 *  5. A baton passed to a twin that is inside the driver stays with it; it reads the ring
 *     when it returns, and consumer_parked is 0 because it will. */
#define BATON_KICKER 0xffffffffu
#define BLOCK_GRACE_NS 500u

struct oc_consumer oh_ring;
_Atomic int oh_ending;

static _Atomic uint32_t baton;
static _Atomic uint64_t head_seen; /* oh_ring.head when the baton was last given up, for those without it */

void oh_baton_start(struct oc_channel *channel, uint8_t *lines)
{
    oh_ring = (struct oc_consumer){ .channel = channel, .lines = lines };
    atomic_store(&channel->consumer_parked, 1);
    atomic_store(&head_seen, 0);
    atomic_store(&baton, OH_BATON_FREE);
}

bool oh_baton_mine(const struct twin *tw)
{
    return atomic_load_explicit(&baton, memory_order_acquire) == tw->pub.slot + 1;
}

/* True when a command (or garbage where one should be) is at the head that was last announced. */
static bool command_seen(void)
{
    uint64_t head = atomic_load_explicit(&head_seen, memory_order_relaxed);

    return atomic_load_explicit(&oc_line(oh_ring.lines, head)->seq, memory_order_acquire) == head + 1;
}

bool oh_baton_idle(void)
{
    return atomic_load_explicit(&baton, memory_order_acquire) == OH_BATON_FREE && command_seen();
}

static bool take(uint32_t as)
{
    uint32_t expected = OH_BATON_FREE;

    return atomic_compare_exchange_strong(&baton, &expected, as);
}

static void set_parked(uint32_t value)
{
    atomic_store_explicit(&oh_ring.channel->consumer_parked, value, memory_order_seq_cst);
}

bool oh_baton_retake(struct twin *tw)
{
    if (oh_baton_mine(tw))
        return true;
    if (!take(tw->pub.slot + 1))
        return false;
    set_parked(0);
    return true;
}

void oh_baton_pass(uint32_t slot)
{
    struct twin *to = oh_twin_get(slot);

    if (!to) /* the baton stays here: nobody reads on in a channel that ends */
        return;
    set_parked(0);
    atomic_store(&baton, slot + 1); /* pairs with oh_baton_mine; full, before the look at `sleeping` */
    oh_twin_wake(to);
}

static void store_free(void)
{
    atomic_store_explicit(&head_seen, oh_ring.head, memory_order_relaxed);
    atomic_store(&baton, OH_BATON_FREE); /* full: the look at the ring comes after it (invariant 3) */
}

/* Holder: slot of the next command, consuming pads; -1 none, -2 malformed. */
static int next_slot(void)
{
    const struct oc_cmd *cmd;
    struct oc_cmd h;

    while ((cmd = oc_ring_peek(&oh_ring))) {
        if (!oc_ring_header(&oh_ring, cmd, &h))
            return -2;
        if (h.op != OC_OP_PAD)
            return (int)h.thread;
        oh_ring.head += h.lines;
    }
    return -1;
}

void oh_baton_kick(void)
{
    while (!atomic_load(&oh_ending) && oh_baton_idle() && take(BATON_KICKER)) {
        int slot = next_slot();

        if (slot >= 0) {
            oh_baton_pass((uint32_t)slot);
            return;
        }
        if (slot == -2) { /* keeps the baton: nobody reads a broken stream on */
            oh_end(OC_CLOSED_PROTOCOL, "malformed command at line %llu of the ring",
                   (unsigned long long)oh_ring.head);
            return;
        }
        store_free();
    }
}

static bool head_moved(void *unused)
{
    (void)unused;
    return oc_ring_peek(&oh_ring) != NULL;
}

bool oh_baton_moved(uint64_t *seen)
{
    uint64_t head = atomic_load_explicit(&head_seen, memory_order_relaxed);
    bool moved = head != *seen;

    *seen = head;
    return moved || atomic_load_explicit(&baton, memory_order_relaxed) != OH_BATON_FREE;
}

void oh_baton_yield(bool watched)
{
    if (!watched) {
        set_parked(1);
        if (oh_twins_alive() > 1)
            oh_watch(BLOCK_GRACE_NS, head_moved, NULL);
    }
    store_free();
    oh_baton_kick();
}

bool oh_ring_ready(void *unused)
{
    (void)unused;
    return oc_ring_peek(&oh_ring) || atomic_load_explicit(&oh_ending, memory_order_relaxed);
}

void oh_ring_publish_head(void)
{
    if (oh_ring.head == oh_ring.head_published)
        return;
    oc_ring_release(&oh_ring);
    oh_transport_head();
}
