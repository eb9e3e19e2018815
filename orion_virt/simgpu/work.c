/* SPDX-License-Identifier: Apache-2.0 */
/* Executes one piece of work: what a stream's queue and a graph's nodes hold. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim.h"

static void *at(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

void sim_copy_box(const struct sim_copy *c)
{
    uint64_t src = c->owned ? (uint64_t)(uintptr_t)c->owned : c->src;

    if (c->height == 1 && c->depth == 1) {
        memmove(at(c->dst), at(src), c->width);
        return;
    }
    for (size_t z = 0; z < c->depth; z++)
        for (size_t y = 0; y < c->height; y++)
            memmove(at(c->dst + z * c->dst_slice + y * c->dst_pitch), at(src + z * c->src_slice + y * c->src_pitch),
                    c->width);
}

static void set_row(void *row, const struct sim_set *s)
{
    if (s->element == 1)
        memset(row, (int)s->value, s->width);
    else if (s->element == 2)
        for (size_t i = 0; i < s->width; i++)
            ((uint16_t *)row)[i] = (uint16_t)s->value;
    else
        for (size_t i = 0; i < s->width; i++)
            ((uint32_t *)row)[i] = s->value;
}

static void run_host(struct CUctx_st *ctx, const struct sim_host *h)
{
    sim_output_show(ctx);
    sim_in_callback = true;
    if (h->callback)
        h->callback(h->stream, (CUresult)ctx->error, h->data);
    else if (!ctx->error)
        h->fn(h->data);
    sim_in_callback = false;
}

static bool value_ready(const struct sim_value *v)
{
    uint64_t now = v->wide ? __atomic_load_n((uint64_t *)at(v->address), __ATOMIC_ACQUIRE)
                           : __atomic_load_n((uint32_t *)at(v->address), __ATOMIC_ACQUIRE);

    switch (v->flags & 3) {
    case 0: return v->wide ? (int64_t)(now - v->value) >= 0 : (int32_t)((uint32_t)now - (uint32_t)v->value) >= 0;
    case 1: return now == v->value;
    case 2: return (now & v->value) != 0;
    default: return (~(now | v->value)) != 0;
    }
}

void sim_value_run(struct CUctx_st *ctx, const struct sim_value *v)
{
    struct timespec nap = { 0, 20000 };

    if (v->wait)
        while (!value_ready(v) && !ctx->cancel)
            nanosleep(&nap, NULL);
    else if (v->wide)
        __atomic_store_n((uint64_t *)at(v->address), v->value, __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint32_t *)at(v->address), (uint32_t)v->value, __ATOMIC_RELEASE);
}

static void run_batch(struct CUctx_st *ctx, const struct sim_work *w)
{
    for (unsigned i = 0; i < w->nr_ops; i++) {
        const CUstreamBatchMemOpParams *op = &w->ops[i];
        bool wide = op->operation == 4 || op->operation == 5;
        struct sim_value v = { .address = op->waitValue.address, .flags = op->waitValue.flags, .wide = wide,
                               .value = wide ? op->waitValue.value64 : op->waitValue.value,
                               .wait = op->operation == 1 || op->operation == 4 };

        if (op->operation != 3 && op->operation != 6) /* flush and barrier: nothing is late here */
            sim_value_run(ctx, &v);
    }
}

CUresult sim_work_run(struct CUctx_st *ctx, struct sim_work *w)
{
    switch (w->kind) {
    case SIM_WORK_COPY:
        sim_copy_box(&w->copy);
        return CUDA_SUCCESS;
    case SIM_WORK_SET:
        for (size_t y = 0; y < w->set.height; y++)
            set_row(at(w->set.dst + y * w->set.pitch), &w->set);
        return CUDA_SUCCESS;
    case SIM_WORK_KERNEL:
        return sim_call_run(ctx, &w->call);
    case SIM_WORK_HOST:
        run_host(ctx, &w->host);
        return CUDA_SUCCESS;
    case SIM_WORK_RECORD:
        sim_event_reached(w->mark.event, w->mark.count);
        return CUDA_SUCCESS;
    case SIM_WORK_WAIT:
        sim_event_await(w->mark.event, w->mark.count);
        return CUDA_SUCCESS;
    case SIM_WORK_GRAPH:
        return sim_exec_run(ctx, w->exec);
    case SIM_WORK_ALLOC:
        sim_alloc_begin(w->alloc);
        return CUDA_SUCCESS;
    case SIM_WORK_BATCH:
        run_batch(ctx, w);
        return CUDA_SUCCESS;
    case SIM_WORK_FREE:
        if (w->alloc)
            sim_alloc_end(w->alloc);
        else
            sim_space_free(w->address);
        return CUDA_SUCCESS;
    case SIM_WORK_VALUE:
        sim_value_run(ctx, &w->val);
        return CUDA_SUCCESS;
    default:
        return CUDA_SUCCESS;
    }
}

void sim_work_clear(struct sim_work *w)
{
    free(w->copy.owned);
    free(w->call.params);
    free(w->ops);
    w->copy.owned = w->call.params = NULL;
    w->ops = NULL;
    if (w->alloc)
        sim_alloc_put(w->alloc);
    w->alloc = NULL;
    if (w->mark.event)
        sim_event_put(w->mark.event);
    w->mark.event = NULL;
    if (w->exec)
        sim_exec_put(w->exec);
    w->exec = NULL;
}

CUresult sim_work_clone(struct sim_work *to, const struct sim_work *from)
{
    *to = *from;
    to->copy.owned = NULL;
    to->call.params = NULL;
    to->ops = NULL;
    if (to->alloc)
        sim_alloc_get(to->alloc);
    if (from->ops) {
        to->ops = calloc(from->nr_ops + 1, sizeof(*to->ops));
        if (!to->ops)
            return CUDA_ERROR_OUT_OF_MEMORY;
        memcpy(to->ops, from->ops, from->nr_ops * sizeof(*to->ops));
    }
    if (from->call.params) {
        to->call.params = malloc(from->call.params_bytes + 1);
        if (!to->call.params)
            return CUDA_ERROR_OUT_OF_MEMORY;
        memcpy(to->call.params, from->call.params, from->call.params_bytes);
    }
    if (to->mark.event)
        __atomic_fetch_add(&to->mark.event->refs, 1, __ATOMIC_SEQ_CST);
    if (to->exec)
        sim_exec_get(to->exec);
    return CUDA_SUCCESS;
}
