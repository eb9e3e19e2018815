/* SPDX-License-Identifier: Apache-2.0 */
/* What graphs keep: user objects, whose end the guest is told, and the handles of conditions. */
#include <stdlib.h>

#include "graph.h"

#define MAX_CONDITIONS 65536u /* that live, of one client */
enum { NO_DESTRUCTOR_SYNC = 1, MOVE = 1 };

bool oh_graph_keeps(CUgraph graph, void *object, CUhostFn end, CUuserObject *made)
{
    CUuserObject o = NULL;

    if (OH_CALL(cuUserObjectCreate, &o, object, end, 1, NO_DESTRUCTOR_SYNC) != CUDA_SUCCESS)
        return false;
    if (made)
        *made = o;
    return OH_CALL(cuGraphRetainUserObject, graph, o, 1, MOVE) == CUDA_SUCCESS;
}

/* ---- the guest's own ---- */

struct object {
    uint64_t id;
    struct oh_host_call call;
};

/* The last reference is gone: the driver may not be called here. */
static void object_ends(void *object)
{
    struct object *o = object;

    oh_del(OW_KIND_USER_OBJECT, o->id);
    oh_deliver(&o->call, 0, false);
    free(o);
}

CUresult oh_cuUserObjectCreate(struct oh_twin *t, const struct ow_cuUserObjectCreate_in *in, uint32_t bytes,
                               struct ow_cuUserObjectCreate_out *out, uint32_t *out_bytes)
{
    struct object *o = calloc(1, sizeof(*o));
    CUuserObject made = NULL;
    CUresult r;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (!o)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *o = (struct object){ in->object_out, { .fn = in->destroy, .data = in->ptr } };
    r = OH_CALL(cuUserObjectCreate, &made, o, object_ends, in->initialRefcount, in->flags);
    if (r != CUDA_SUCCESS) {
        free(o);
        return r;
    }
    return oh_put(OW_KIND_USER_OBJECT, in->object_out, made);
}

/* ---- conditions: the handle is the driver's, device code uses it ---- */

static struct condition {
    uint64_t handle;
    void *graph;
} *conditions;
static uint32_t nr_conditions;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

bool oh_condition_known(uint64_t handle)
{
    bool known = false;

    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < nr_conditions && !known; i++)
        known = conditions[i].handle == handle;
    pthread_mutex_unlock(&lock);
    return known;
}

void oh_conditions_forget(void *graph)
{
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < nr_conditions;)
        if (conditions[i].graph == graph)
            conditions[i] = conditions[--nr_conditions];
        else
            i++;
    pthread_mutex_unlock(&lock);
}

static CUresult keep(uint64_t handle, void *graph)
{
    struct condition *more;

    pthread_mutex_lock(&lock);
    more = realloc(conditions, (nr_conditions + 1) * sizeof(*conditions));
    if (more) {
        conditions = more;
        conditions[nr_conditions++] = (struct condition){ handle, graph };
    }
    pthread_mutex_unlock(&lock);
    return more ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult oh_cuGraphConditionalHandleCreate(struct oh_twin *t, const struct ow_cuGraphConditionalHandleCreate_in *in,
                                           uint32_t bytes, struct ow_cuGraphConditionalHandleCreate_out *out,
                                           uint32_t *out_bytes)
{
    CUgraphConditionalHandle handle = 0;
    void *graph, *context = NULL;
    CUresult r = oh_get(OW_KIND_GRAPH, in->hGraph, &graph);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_CONTEXT, in->ctx, &context);
    if (r == CUDA_SUCCESS && nr_conditions >= MAX_CONDITIONS)
        r = CUDA_ERROR_OUT_OF_MEMORY;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphConditionalHandleCreate, &handle, graph, context, in->defaultLaunchValue, in->flags);
    if (r == CUDA_SUCCESS)
        r = keep(handle, graph);
    if (r != CUDA_SUCCESS)
        return r;
    out->pHandle_out = handle;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}
