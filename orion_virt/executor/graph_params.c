/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of graph nodes as they come in commands: checked, with the driver's handles in them. */
#include <stdlib.h>
#include <string.h>

#include "extra.h"
#include "gen/checks.h"
#include "graph.h"

#define MAX_BODIES 4096u /* of a conditional node */

static _Thread_local struct oh_params scratch; /* too large for the stack of a twin's deep calls */

static CUresult kernel(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    const struct oc_node_kernel *k = (const void *)blob;
    uint8_t *params = (uint8_t *)(uintptr_t)(blob + sizeof(*k));
    void *real, *kern = NULL;
    struct oh_function *f;
    CUresult r = CUDA_SUCCESS;

    if (bytes < sizeof(*k) || k->params_bytes > bytes - sizeof(*k))
        return CUDA_ERROR_INVALID_VALUE;
    if (k->kernel || !k->function)
        r = oh_get(OW_KIND_KERNEL, k->kernel, &kern);
    if (r == CUDA_SUCCESS)
        r = oh_function_get(k->function ? k->function : k->kernel, &real, &f);
    if (r == CUDA_SUCCESS)
        r = oh_function_room(oh_context_device(p->context), oh_stack_slot(p->context),
                             k->function ? k->function : k->kernel, real, f);
    if (r != CUDA_SUCCESS)
        return r;
    p->np.type = CU_GRAPH_NODE_TYPE_KERNEL;
    p->np.kernel = (CUDA_KERNEL_NODE_PARAMS){
        .func = k->function ? real : NULL, .kern = kern, .ctx = p->context,
        .gridDimX = k->grid[0], .gridDimY = k->grid[1], .gridDimZ = k->grid[2],
        .blockDimX = k->block[0], .blockDimY = k->block[1], .blockDimZ = k->block[2],
        .sharedMemBytes = k->shared_bytes };
    if (k->params_bytes >= f->params_bytes) {
        for (uint32_t i = 0; i < f->nr_params; i++)
            p->args[i] = params + f->offset[i];
        p->np.kernel.kernelParams = p->args;
        return CUDA_SUCCESS;
    }
    p->extra_bytes = k->params_bytes; /* too short: the driver refuses it in its own words */
    p->extra[0] = (void *)1;          /* CU_LAUNCH_PARAM_BUFFER_POINTER */
    p->extra[1] = params;
    p->extra[2] = (void *)2;          /* CU_LAUNCH_PARAM_BUFFER_SIZE */
    p->extra[3] = &p->extra_bytes;
    p->extra[4] = NULL;
    p->np.kernel.extra = p->extra;
    return CUDA_SUCCESS;
}

static CUresult copy(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    p->np.type = CU_GRAPH_NODE_TYPE_MEMCPY;
    p->np.memcpy.copyCtx = p->context;
    return bytes < sizeof(struct oc_copy_nd) ? CUDA_ERROR_INVALID_VALUE
                                             : oh_copy_nd_get((const void *)blob, &p->np.memcpy.copyParams);
}

static CUresult set(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    const struct oc_node_memset *m = (const void *)blob;
    uint64_t width;

    if (bytes < sizeof(*m) || (m->element_bytes != 1 && m->element_bytes != 2 && m->element_bytes != 4))
        return CUDA_ERROR_INVALID_VALUE;
    width = oh_array_bytes(m->width, m->element_bytes);
    if (!m->width || !m->height || (m->height > 1 && m->pitch < width) ||
        !oh_touches(m->dst, oh_rows_bytes(width, m->height > 1 ? m->pitch : width, m->height)))
        return CUDA_ERROR_INVALID_VALUE;
    p->np.type = CU_GRAPH_NODE_TYPE_MEMSET;
    p->np.memset.ctx = p->context;
    p->np.memset.params = (CUDA_MEMSET_NODE_PARAMS){ .dst = m->dst, .pitch = m->pitch, .value = m->value,
                                                     .elementSize = m->element_bytes, .width = m->width,
                                                     .height = m->height };
    return CUDA_SUCCESS;
}

static CUresult host(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    const struct oc_node_host *h = (const void *)blob;
    CUresult r;

    if (bytes < sizeof(*h))
        return CUDA_ERROR_INVALID_VALUE;
    r = oh_host_call_make(h->fn, h->data, 0, 0, true, &p->call);
    p->np.type = CU_GRAPH_NODE_TYPE_HOST;
    p->np.host = (CUDA_HOST_NODE_PARAMS){ .fn = oh_trampoline, .userData = p->call };
    return r;
}

static CUresult child(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    const struct oc_node_child *c = (const void *)blob;
    void *graph;
    CUresult r;

    if (bytes < sizeof(*c))
        return CUDA_ERROR_INVALID_VALUE;
    r = oh_get(OW_KIND_GRAPH, c->graph, &graph);
    p->np.type = CU_GRAPH_NODE_TYPE_GRAPH;
    p->np.graph.graph = graph;
    p->np.graph.ownership = c->move ? 1 : 0;
    p->moved = c->move ? c->graph : 0;
    return r;
}

static CUresult event(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    void *real;
    CUresult r;

    if (bytes < sizeof(uint64_t))
        return CUDA_ERROR_INVALID_VALUE;
    r = oh_get(OW_KIND_EVENT, *(const uint64_t *)(const void *)blob, &real);
    p->np.type = p->kind == OC_NODE_RECORD ? CU_GRAPH_NODE_TYPE_EVENT_RECORD : CU_GRAPH_NODE_TYPE_WAIT_EVENT;
    p->np.event.event = real;
    return r;
}

static CUresult allocation(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    CUDA_MEM_ALLOC_NODE_PARAMS *a = &p->np.alloc;
    CUresult r;

    if (bytes < sizeof(*a))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(a, blob, sizeof(*a));
    p->np.type = CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    if (a->accessDescCount > OH_MAX_ACCESS || bytes - sizeof(*a) < a->accessDescCount * sizeof(p->access[0]) ||
        a->poolProps.location.type != 1)
        return CUDA_ERROR_INVALID_VALUE;
    if (a->poolProps.handleTypes)
        return CUDA_ERROR_NOT_SUPPORTED;
    memcpy(p->access, blob + sizeof(*a), a->accessDescCount * sizeof(p->access[0]));
    p->device = a->poolProps.location.id;
    r = oh_ordinal(p->device, &a->poolProps.location.id);
    for (size_t i = 0; r == CUDA_SUCCESS && i < a->accessDescCount; i++)
        r = p->access[i].location.type == 1 ? oh_ordinal(p->access[i].location.id, &p->access[i].location.id)
                                            : CUDA_ERROR_INVALID_VALUE;
    a->poolProps.win32SecurityAttributes = NULL;
    a->accessDescs = a->accessDescCount ? p->access : NULL;
    a->dptr = 0;
    if (r == CUDA_SUCCESS && a->bytesize > oh_devices[p->device].limit_bytes)
        r = CUDA_ERROR_OUT_OF_MEMORY;
    return r;
}

static CUresult release(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    uint64_t ptr, start, size;
    int device;

    if (bytes < sizeof(ptr))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&ptr, blob, sizeof(ptr));
    p->np.type = CU_GRAPH_NODE_TYPE_MEM_FREE;
    p->np.free.dptr = ptr;
    return oh_ledger_find(ptr, &start, &size, &device) && start == ptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static bool operation_ok(CUstreamBatchMemOpParams *op)
{
    switch (op->operation) {
    case 1: case 2: case 4: case 5: /* wait and write, of 32 and of 64 bits */
        op->waitValue.alias = 0;
        return oh_touches(op->waitValue.address, op->operation > 2 ? 8 : 4);
    case 3: case 6: /* flush, barrier */
        return true;
    case 8:
        op->atomicReduction.alias = 0;
        return oh_touches(op->atomicReduction.address, op->atomicReduction.dataType == 0 ? 4 : 8);
    default:
        return false;
    }
}

static CUresult batch(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    const struct oc_node_batch *b = (const void *)blob;
    CUstreamBatchMemOpParams *ops = (CUstreamBatchMemOpParams *)(uintptr_t)(b + 1);

    if (bytes < sizeof(*b) || (bytes - sizeof(*b)) / sizeof(*ops) < b->count)
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < b->count; i++)
        if (!operation_ok(&ops[i]))
            return CUDA_ERROR_INVALID_VALUE;
    p->np.type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP;
    p->np.memOp = (CUDA_BATCH_MEM_OP_NODE_PARAMS){ .ctx = p->context, .count = b->count, .paramArray = ops,
                                                   .flags = b->flags };
    return CUDA_SUCCESS;
}

static CUresult condition(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    const struct oc_node_cond *c = (const void *)blob;

    if (bytes < sizeof(*c) || c->size > MAX_BODIES || (bytes - sizeof(*c)) / sizeof(uint64_t) < c->size ||
        !oh_condition_known(c->handle))
        return CUDA_ERROR_INVALID_VALUE;
    p->np.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
    p->np.conditional = (CUDA_CONDITIONAL_NODE_PARAMS){ .handle = c->handle, .type = c->type, .size = c->size,
                                                        .ctx = p->context };
    p->candidates = (const void *)(c + 1);
    return CUDA_SUCCESS;
}

static CUresult shadow(const uint8_t *blob, uint32_t bytes, struct oh_params *p)
{
    CUgraph graph = NULL;
    CUresult r = oh_shadow_make(blob, bytes, p->context, &p->shadow, &graph);

    p->np.type = CU_GRAPH_NODE_TYPE_GRAPH;
    p->np.graph.graph = graph;
    return r;
}

typedef CUresult params_get(const uint8_t *blob, uint32_t bytes, struct oh_params *p);

CUresult oh_params_get(uint32_t kind, uint64_t context, const uint8_t *blob, uint32_t bytes, struct oh_params **params)
{
    static params_get *const get[] = {
        [OC_NODE_KERNEL] = kernel, [OC_NODE_COPY] = copy, [OC_NODE_MEMSET] = set, [OC_NODE_HOST] = host,
        [OC_NODE_CHILD] = child, [OC_NODE_RECORD] = event, [OC_NODE_WAIT] = event, [OC_NODE_ALLOC] = allocation,
        [OC_NODE_FREE] = release, [OC_NODE_BATCH] = batch, [OC_NODE_COND] = condition, [OC_NODE_SHADOW] = shadow,
    };
    struct oh_params *p = *params = &scratch;
    void *real = NULL;
    CUresult r;

    memset(&p->np, 0, sizeof(p->np));
    p->kind = kind;
    p->call = NULL;
    p->shadow = NULL;
    p->moved = 0;
    p->context = NULL;
    r = context ? oh_get(OW_KIND_CONTEXT, context, &real) : OH_CALL(cuCtxGetCurrent, &p->context);
    if (context)
        p->context = real;
    if (r != CUDA_SUCCESS)
        return r;
    if (kind == OC_NODE_EMPTY) {
        p->np.type = CU_GRAPH_NODE_TYPE_EMPTY;
        return CUDA_SUCCESS;
    }
    return kind < sizeof(get) / sizeof(get[0]) ? get[kind](blob, bytes, p) : CUDA_ERROR_INVALID_VALUE;
}

void oh_params_drop(struct oh_params *p, CUgraph graph)
{
    if (p->call && !graph)
        oh_host_call_free(p->call);
    else if (p->call)
        (void)oh_graph_keeps(graph, p->call, oh_host_call_free, NULL);
    if (p->shadow && !graph)
        oh_shadow_disown(p->shadow);
    if (p->shadow)
        OH_CALL(cuGraphDestroy, p->np.graph.graph); /* the node has a clone */
    p->call = NULL;
    p->shadow = NULL;
}
