/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of the thread that holds the baton: copy a command out, check it, execute it, answer it. */
#include <stdarg.h>
#include <stdio.h>

#include "extra.h"
#include "limit.h"
#include "loop.h"
#include "turn.h"

#define HEAD_EVERY (OC_RING_LINES / 16) /* lines after which head is published under load */

/* Of the holder, whoever it is. */
static struct oh_spin idle_spin;
static uint64_t idle_since; /* when the ring was left alone, 0: it is read */

static struct twin *of(struct oh_twin *t)
{
    return (struct twin *)t;
}

void oh_unlock_ring(struct oh_twin *t)
{
    struct twin *tw = of(t);

    if (tw->unlocked)
        return;
    tw->unlocked = true;
    oh_ring_publish_head();
    oh_baton_yield(false);
}

CUresult oh_fault(struct oh_twin *t, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsnprintf(of(t)->fault, sizeof(of(t)->fault), format, ap);
    va_end(ap);
    return OH_FAULT;
}

static const char *name_of(uint32_t op)
{
    const char *name = ow_op_name(op);

    return name ? name : "unknown operation";
}

static CUresult unknown(const struct oc_cmd *h)
{
    oh_log("guest thread %u asked for unknown operation %u", h->thread, h->op);
    return CUDA_ERROR_NOT_SUPPORTED;
}

static CUresult dispatch(struct twin *tw, const struct oc_cmd *h, const struct oh_op *op, uint32_t *bytes)
{
    bool takes_turn, limited;
    CUresult r;

    if (!op)
        return unknown(h);
    takes_turn = oh_turns_on && op->works;
    limited = oh_limit_on && oh_limit_counts(h->op);
    if (h->bytes < op->in_bytes)
        return oh_fault(&tw->pub, "%u bytes of payload, %u needed", h->bytes, op->in_bytes);
    if (takes_turn)
        oh_turn_enter(&tw->pub);
    if (limited)
        oh_limit_enter(&tw->pub);
    if (op->blocks)
        oh_unlock_ring(&tw->pub);
    r = op->grows ? oh_extra_step(tw->pub.device, h->flags & OC_CMD_REPLY) : CUDA_SUCCESS;
    if (r == CUDA_SUCCESS)
        r = op->run(&tw->pub, tw->pub.buffer, h->bytes, tw->out, bytes);
    oh_extra_settle();
    if (limited)
        oh_limit_leave();
    if (takes_turn)
        oh_turn_leave();
    if (*bytes > sizeof(tw->out))
        return oh_fault(&tw->pub, "answer of %u bytes", *bytes);
    return r;
}

/* What a thread's earlier one-way commands left behind is told once, where the API allows late errors. */
static CUresult with_deferred(struct twin *tw, const struct oh_op *op, CUresult r)
{
    if (r != CUDA_SUCCESS || !op || !op->reports || tw->pub.deferred == CUDA_SUCCESS)
        return r;
    r = tw->pub.deferred;
    tw->pub.deferred = CUDA_SUCCESS;
    oh_log("%s reports error %d of %s (sequence %llu)", op->name, (int)r, name_of(tw->pub.deferred_op),
           (unsigned long long)tw->pub.deferred_seq);
    return r;
}

static void defer(struct twin *tw, const struct oc_cmd *h, CUresult r)
{
    oh_log("one-way %s (sequence %llu) of guest thread %u failed: error %d", name_of(h->op),
           (unsigned long long)h->seq, h->thread, (int)r);
    if (tw->pub.deferred != CUDA_SUCCESS)
        return;
    tw->pub.deferred = r;
    tw->pub.deferred_seq = h->seq;
    tw->pub.deferred_op = h->op;
}

/* Executes the command in the twin's buffer; false: the baton is elsewhere now. */
static bool execute(struct twin *tw, const struct oc_cmd *h)
{
    const struct oh_op *op = h->op < OW_NR_OPS && oh_ops[h->op].run ? &oh_ops[h->op] : NULL;
    uint64_t begin = oh_stats_on ? oh_now_ns() : 0;
    uint32_t bytes = 0;
    bool held = true;
    CUresult r;

    tw->unlocked = false;
    tw->fault[0] = 0;
    r = dispatch(tw, h, op, &bytes);
    if (oh_stats_on)
        oh_stats_note(h->op, h->flags & OC_CMD_REPLY, oh_now_ns() - begin);
    if (r == OH_FAULT) {
        oh_end(OC_CLOSED_PROTOCOL, "%s of guest thread %u (sequence %llu): %s", op ? op->name : "command",
               h->thread, (unsigned long long)h->seq, tw->fault[0] ? tw->fault : "malformed");
        return false;
    }
    if (r != CUDA_SUCCESS && atomic_load(&oh_ending) != OC_OPEN)
        return false; /* likely for want of the daemon that has ended: the client hears that the channel has */
    if (r != CUDA_SUCCESS)
        oh_note_sticky(&tw->pub, r);
    /* Before the answer: else a single-threaded guest would see consumer_parked at its next call. */
    if (tw->unlocked)
        held = oh_baton_retake(tw);
    if (h->flags & OC_CMD_REPLY) {
        oh_output_flush();
        if (held) /* the guest infers from the head what was not executed; an answered call must not look so */
            oh_ring_publish_head();
        oh_transport_reply(h->thread, h, with_deferred(tw, op, r), tw->out, bytes);
    } else if (r != CUDA_SUCCESS) {
        defer(tw, h, r);
    }
    return held;
}

/* Nothing to read. True: a command came and the baton is still ours. */
static bool idle(void)
{
    uint64_t begin = oh_now_ns();

    oh_ring_publish_head();
    if (oh_spin(&idle_spin, oh_ring_ready, NULL))
        return true;
    atomic_store(&oh_ring.channel->consumer_parked, 1);
    if (oh_watch(OC_PARK_GRACE_NS, oh_ring_ready, NULL)) {
        atomic_store(&oh_ring.channel->consumer_parked, 0);
        return true;
    }
    idle_since = begin;
    oh_baton_yield(true);
    return false;
}

static void malformed(const struct oc_cmd *h)
{
    oh_end(OC_CLOSED_PROTOCOL, "malformed command at line %llu of the ring: operation %u, %u lines, %u bytes, thread %u",
           (unsigned long long)oh_ring.head, h->op, h->lines, h->bytes, h->thread);
}

void oh_loop_run(struct twin *tw)
{
    const struct oc_cmd *cmd;
    struct oc_cmd h;

    while (!atomic_load_explicit(&oh_ending, memory_order_relaxed)) {
        cmd = oc_ring_peek(&oh_ring);
        if (!cmd) {
            if (!idle())
                return;
            continue;
        }
        if (idle_since) {
            oh_spin_slept(&idle_spin, oh_now_ns() - idle_since);
            idle_since = 0;
        }
        if (!oc_ring_header(&oh_ring, cmd, &h)) {
            malformed(&h);
            return;
        }
        if (h.op == OC_OP_PAD) {
            oh_ring.head += h.lines;
            continue;
        }
        if (h.thread != tw->pub.slot) {
            oh_ring_publish_head();
            oh_baton_pass(h.thread);
            return;
        }
        oc_ring_take(&oh_ring, cmd, &h, tw->pub.buffer);
        /* one writer: no locked instruction */
        atomic_store_explicit(&oh_nr_commands, atomic_load_explicit(&oh_nr_commands, memory_order_relaxed) + 1,
                              memory_order_relaxed);
        if (oh_ring.head - oh_ring.head_published >= HEAD_EVERY)
            oh_ring_publish_head();
        if (!execute(tw, &h))
            return;
    }
}
