/* SPDX-License-Identifier: Apache-2.0 */
/* The path of one call: room in the ring, payload, publication, and for a round trip the answer. */
#include "core.h"
#include "variable.h"
#include "gen/send.h" /* og_op_flags */

/* What ends a context that a sticky error hit, or gives things back: it must reach the host. */
static bool cures(uint32_t op)
{
    switch (op) {
    case OW_OP_orion_ctx_activate:
    case OW_OP_orion_ctx_end:
    case OW_OP_orion_set_current:
    case OW_OP_orion_thread_exit:
    case OW_OP_orion_library_unload:
    case OW_OP_orion_module_unload:
    case OW_OP_orion_image_drop:
    case OW_OP_orion_release:
    case OW_OP_orion_unalias:
    case OW_OP_orion_ping:
    case OW_OP_orion_nop:
        return true;
    default:
        return false;
    }
}

static CUresult sticky_error(const struct og_thread *t, uint32_t op)
{
    uint32_t error;

    if (t->device < 0 || t->device >= (int)OC_MAX_DEVICES)
        return CUDA_SUCCESS;
    /* pairs with the executor's publication */
    error = atomic_load_explicit(&og_link.channel->device_error[t->device], memory_order_relaxed);
    if (__builtin_expect(error == 0, 1) || cures(op))
        return CUDA_SUCCESS;
    og_output_check(); /* whoever is told of a failed assertion sees which */
    return (CUresult)error;
}

CUresult og_sticky(void)
{
    return sticky_error(og_self(), OC_OP_PAD);
}

static CUresult unknown_to_host(uint32_t op)
{
    const char *name = ow_op_name(op);

    return og_unsupported(name ? name : "an operation that the host does not know");
}

/* The host's twin must have our context before a command that may depend on it. */
static CUresult sync_context(struct og_thread *t, uint32_t op)
{
    CUresult r;

    if (t->syncing || !(og_op_flags[op] & OG_OP_CONTEXT))
        return CUDA_SUCCESS;
    t->syncing = true;
    r = og_sync_context(true);
    t->syncing = false;
    return r;
}

static CUresult may_call(struct og_thread *t, uint32_t op, uint32_t bytes)
{
    CUresult r;

    if (__builtin_expect(atomic_load_explicit(&og_life, memory_order_acquire) != OG_CONNECTED, 0)) {
        r = og_check_init();
        if (r == CUDA_SUCCESS && op < OW_NR_OPS && og_op_flags[op] & OG_OP_CONTEXT && !t->syncing && !og_current())
            r = CUDA_ERROR_INVALID_CONTEXT; /* takes no allocation */
        if (r == CUDA_SUCCESS)
            r = og_connect();
        if (r != CUDA_SUCCESS)
            return r;
    }
    if (__builtin_expect(t->in_callback, 0))
        return CUDA_ERROR_NOT_PERMITTED;
    if (__builtin_expect(bytes > OG_MAX_PAYLOAD, 0))
        return CUDA_ERROR_INVALID_VALUE;
    r = sticky_error(t, op);
    if (r != CUDA_SUCCESS)
        return r;
    if (__builtin_expect(!og_peer_knows(op), 0))
        return unknown_to_host(op);
    if (__builtin_expect(t->slot >= OC_NR_SLOTS, 0)) {
        r = og_slot_take(t);
        if (r != CUDA_SUCCESS)
            return r;
    }
    return sync_context(t, op);
}

struct room {
    uint64_t end; /* of the command, pad counted */
};

static bool has_room(void *arg)
{
    const struct room *room = arg;

    /* Signed: while this thread slept others went on, and the head may be beyond `end`. Pairs with oc_ring_release. */
    return (int64_t)(room->end - atomic_load_explicit(&og_link.channel->head, memory_order_acquire)) <= (int64_t)OC_RING_LINES;
}

static void wake_host(void)
{
    if (og_link.shm)
        og_shm_wake();
}

/* The ring is full. The lock is given up: a callback thread may need it for the ring to drain. */
static CUresult wait_for_room(uint32_t lines)
{
    struct room room = { og_link.ring.tail + oc_ring_need(&og_link.ring, lines) + 1 };
    CUresult r;

    og_unlock(&og_link.submit);
    if (atomic_load_explicit(&og_link.channel->consumer_parked, memory_order_relaxed))
        wake_host();
    r = og_wait(has_room, &room, NULL);
    if (r == CUDA_SUCCESS)
        og_lock(&og_link.submit);
    return r;
}

CUresult og_begin(struct og_call *c, uint32_t op, uint32_t bytes)
{
    struct og_thread *t = og_self();
    uint32_t lines = oc_cmd_lines(bytes);
    CUresult r = may_call(t, op, bytes);

    if (og_has_variables() && r == CUDA_SUCCESS)
        og_variables_before(op);
    if (r != CUDA_SUCCESS)
        return r;
    og_lock(&og_link.submit);
    while (!(c->cmd = oc_ring_reserve(&og_link.ring, lines))) {
        r = wait_for_room(lines);
        if (r != CUDA_SUCCESS)
            return r;
    }
    c->cmd->op = (uint16_t)op;
    c->cmd->lines = (uint16_t)lines;
    c->cmd->bytes = bytes;
    c->cmd->thread = t->slot;
    c->cmd->flags = 0;
    c->in = c->cmd->payload;
    c->out = NULL;
    c->out_bytes = 0;
    c->more = false;
    return CUDA_SUCCESS;
}

/* Publishes and gives the lock up. */
static void publish(struct og_call *c)
{
    bool parked;

    if (og_settings.bar_wc)
        __builtin_ia32_sfence(); /* stores to a write-combining mapping are not ordered by release */
    parked = oc_ring_publish(&og_link.ring, c->cmd, &c->seq);
    if (__builtin_expect(!og_link.shm, 0)) {
        og_tcp_publish();
        parked = false; /* the frame wakes */
    }
    og_unlock(&og_link.submit);
    if (og_settings.bar_wc)
        __builtin_ia32_sfence();
    if (parked && !c->more)
        og_shm_wake();
}

struct answer {
    struct oc_slot *slot;
    uint64_t seq;
};

static bool answered(void *arg)
{
    const struct answer *a = arg;

    /* pairs with the executor's reply */
    return atomic_load_explicit(&a->slot->done, memory_order_acquire) == a->seq;
}

/* The answer is the caller's: what the exchange is answered must not take its place. */
static void exchange_variables(struct oc_slot *slot, uint32_t op)
{
    uint8_t out[OC_SLOT_OUT_BYTES];

    memcpy(out, slot->out, sizeof(out));
    og_variables_after(op);
    memcpy(slot->out, out, sizeof(out));
}

CUresult og_call(struct og_call *c)
{
    struct answer a = { &og_link.slots[c->cmd->thread], 0 };
    uint32_t op = c->cmd->op;
    CUresult r;

    c->cmd->flags = OC_CMD_REPLY;
    c->more = false;
    publish(c);
    a.seq = c->seq;
    r = og_wait(answered, &a, &a.slot->parked);
    if (r != CUDA_SUCCESS)
        return r;
    og_output_check();
    c->out = a.slot->out;
    c->out_bytes = a.slot->bytes <= OC_SLOT_OUT_BYTES ? a.slot->bytes : 0;
    r = (CUresult)a.slot->result;
    if (og_has_variables() && r == CUDA_SUCCESS)
        exchange_variables(a.slot, op);
    if (__builtin_expect(r != CUDA_SUCCESS && r != CUDA_ERROR_NOT_READY, 0))
        og_tools_log(ow_op_name(op), r);
    return r;
}

CUresult og_post(struct og_call *c)
{
    if (__builtin_expect(og_settings.sync, 0))
        return og_call(c);
    publish(c);
    return CUDA_SUCCESS;
}

/* A pad may have been published before the command; over TCP it goes with the next one. */
void og_abandon(struct og_call *c)
{
    c->cmd = NULL;
    og_unlock(&og_link.submit);
}
