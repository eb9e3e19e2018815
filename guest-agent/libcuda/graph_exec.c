/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs as wholes: destroy, instantiate, launch, update; objects that graphs keep. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "gen/send.h"

/* ---- executables that device code launches: the application has the driver's own handle ---- */

static struct alias {
    uint64_t real, handle;
} *aliases;
static size_t nr_aliases;
static _Atomic size_t nr_live;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool alias_add(uint64_t real, uint64_t handle)
{
    struct alias *more;

    pthread_mutex_lock(&lock);
    more = realloc(aliases, (nr_aliases + 1) * sizeof(*aliases));
    if (more) {
        aliases = more;
        aliases[nr_aliases++] = (struct alias){ real, handle };
        atomic_store(&nr_live, nr_aliases);
    }
    pthread_mutex_unlock(&lock);
    return more != NULL;
}

static void alias_del(uint64_t handle)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < nr_aliases; i++)
        if (aliases[i].handle == handle)
            aliases[i] = aliases[--nr_aliases];
    atomic_store(&nr_live, nr_aliases);
    pthread_mutex_unlock(&lock);
}

CUgraphExec og_exec(CUgraphExec exec)
{
    uint64_t given = (uint64_t)(uintptr_t)exec;

    if (atomic_load_explicit(&nr_live, memory_order_acquire) == 0)
        return exec;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < nr_aliases; i++)
        if (aliases[i].real == given)
            given = aliases[i].handle;
    pthread_mutex_unlock(&lock);
    return (CUgraphExec)(uintptr_t)given;
}

/* ---- graphs ---- */

OG_EXPORT CUresult cuGraphDestroy(CUgraph hGraph)
{
    CUresult r = og_send_cuGraphDestroy(hGraph);

    if (r == CUDA_SUCCESS)
        og_graph_gone((uint64_t)(uintptr_t)hGraph);
    return r;
}

static char has_memory; /* data of an executable that allocates */

static CUresult instantiate(CUgraphExec *exec, CUgraph graph, uint64_t flags, CUstream stream, CUgraphNode *bad,
                            uint32_t *result)
{
    uint64_t handle, candidate, node = 0, real = 0;
    uint32_t answer = 0, allocates = 0;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!exec)
        return CUDA_ERROR_INVALID_VALUE;
    handle = og_mint(OW_KIND_GRAPH_EXEC);
    candidate = og_mint(OW_KIND_GRAPH_NODE);
    r = handle && candidate ? og_send_orion_exec_make(graph, handle, flags, (uint64_t)(uintptr_t)stream, candidate,
                                                      &real, &node, result, &answer, &allocates)
                            : CUDA_ERROR_OUT_OF_MEMORY;
    og_node_settle(candidate, node, (uint64_t)(uintptr_t)graph);
    if (r == CUDA_SUCCESS)
        r = (CUresult)answer;
    *bad = (CUgraphNode)(uintptr_t)node;
    if (r != CUDA_SUCCESS) {
        og_unmint(OW_KIND_GRAPH_EXEC, handle);
        return r;
    }
    if (real && !alias_add(real, handle)) {
        (void)cuGraphExecDestroy((CUgraphExec)(uintptr_t)handle);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    og_set_data(handle, allocates ? &has_memory : NULL);
    *exec = (CUgraphExec)(uintptr_t)(real ? real : handle);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags)
{
    uint32_t result = 0;
    CUgraphNode bad;

    return instantiate(phGraphExec, hGraph, flags, NULL, &bad, &result);
}

/* The oldest form reports in text: the result says as much. */
OG_EXPORT CUresult cuGraphInstantiate_v2(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
                                         char *logBuffer, size_t bufferSize)
{
    CUgraphNode bad = NULL;
    uint32_t result = 0;
    CUresult r = instantiate(phGraphExec, hGraph, 0, NULL, &bad, &result);

    if (phErrorNode)
        *phErrorNode = bad;
    if (logBuffer && bufferSize)
        logBuffer[0] = '\0';
    return r;
}

OG_EXPORT CUresult cuGraphInstantiate(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
                                      char *logBuffer, size_t bufferSize)
{
    return cuGraphInstantiate_v2(phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize);
}

OG_EXPORT CUresult cuGraphInstantiateWithParams(CUgraphExec *phGraphExec, CUgraph hGraph,
                                                CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
    CUDA_GRAPH_INSTANTIATE_PARAMS *p = instantiateParams;
    uint32_t result = CUDA_GRAPH_INSTANTIATE_ERROR;
    CUresult r;

    if (!p || !og_stream_valid((uint64_t)(uintptr_t)p->hUploadStream))
        return og_refuse(CUDA_ERROR_INVALID_VALUE);
    p->hErrNode_out = NULL;
    r = instantiate(phGraphExec, hGraph, p->flags, p->hUploadStream, &p->hErrNode_out, &result);
    p->result_out = result;
    return r;
}

OG_EXPORT CUresult cuGraphExecUpdate_v2(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphExecUpdateResultInfo *resultInfo)
{
    uint64_t node = 0, from = 0, one, two, graph = (uint64_t)(uintptr_t)hGraph;
    uint32_t result = CU_GRAPH_EXEC_UPDATE_ERROR, answer = 0;
    CUresult r;

    if (!resultInfo)
        return CUDA_ERROR_INVALID_VALUE;
    one = og_mint(OW_KIND_GRAPH_NODE);
    two = og_mint(OW_KIND_GRAPH_NODE);
    r = one && two ? og_send_orion_exec_update(og_exec(hGraphExec), hGraph, one, two, &node, &from, &result, &answer)
                   : CUDA_ERROR_OUT_OF_MEMORY;
    og_node_settle(one, node == one || from == one ? one : 0, graph);
    og_node_settle(two, node == two || from == two ? two : 0, graph);
    if (r != CUDA_SUCCESS)
        return r;
    resultInfo->result = result;
    resultInfo->errorNode = (CUgraphNode)(uintptr_t)node;
    resultInfo->errorFromNode = (CUgraphNode)(uintptr_t)from;
    return (CUresult)answer;
}

OG_EXPORT CUresult cuGraphExecUpdate(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphNode *hErrorNode_out,
                                     CUgraphExecUpdateResult *updateResult_out)
{
    CUgraphExecUpdateResultInfo info = { 0 };
    CUresult r = cuGraphExecUpdate_v2(hGraphExec, hGraph, &info);

    if (hErrorNode_out)
        *hErrorNode_out = info.errorNode;
    if (updateResult_out)
        *updateResult_out = info.result;
    return r;
}

OG_EXPORT CUresult cuGraphExecDestroy(CUgraphExec hGraphExec)
{
    CUgraphExec exec = og_exec(hGraphExec);
    CUresult r = og_send_cuGraphExecDestroy(exec);

    if (r != CUDA_SUCCESS)
        return r;
    if (exec != hGraphExec)
        alias_del((uint64_t)(uintptr_t)exec);
    og_unmint(OW_KIND_GRAPH_EXEC, (uint64_t)(uintptr_t)exec);
    return r;
}

/* As natively a launch is refused at once where the memory of the last one was not freed, or none is left. */
static CUresult launch_with_memory(uint64_t exec, CUstream stream)
{
    OG_ON((uint64_t)(uintptr_t)stream);
    struct ow_cuGraphLaunch_in *in;
    struct og_call c;
    CUresult r;

    if (!og_stream_valid((uint64_t)(uintptr_t)stream))
        return CUDA_ERROR_INVALID_HANDLE;
    r = og_begin(&c, OW_OP_cuGraphLaunch, (uint32_t)sizeof(*in));
    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    in->hGraph = exec;
    in->hStream = (uint64_t)(uintptr_t)stream;
    return og_call(&c);
}

OG_EXPORT CUresult cuGraphLaunch(CUgraphExec hGraph, CUstream hStream)
{
    uint64_t exec = (uint64_t)(uintptr_t)og_exec(hGraph);

    if (og_valid(OW_KIND_GRAPH_EXEC, exec) && og_data(exec) == &has_memory)
        return launch_with_memory(exec, hStream);
    return og_send_cuGraphLaunch((CUgraphExec)(uintptr_t)exec, hStream);
}

OG_EXPORT CUresult cuGraphUpload(CUgraphExec hGraph, CUstream hStream)
{
    return og_send_cuGraphUpload(og_exec(hGraph), hStream);
}

OG_EXPORT CUresult cuGraphExecGetFlags(CUgraphExec hGraphExec, cuuint64_t *flags)
{
    return og_send_cuGraphExecGetFlags(og_exec(hGraphExec), flags);
}

OG_EXPORT CUresult cuGraphExecGetId(CUgraphExec hGraphExec, unsigned int *graphId)
{
    return og_send_cuGraphExecGetId(og_exec(hGraphExec), graphId);
}

/* No context given: the current one. */
OG_EXPORT CUresult cuGraphConditionalHandleCreate(CUgraphConditionalHandle *pHandle_out, CUgraph hGraph, CUcontext ctx,
                                                  unsigned int defaultLaunchValue, unsigned int flags)
{
    return og_send_cuGraphConditionalHandleCreate(pHandle_out, hGraph,
                                                  ctx ? ctx : (CUcontext)(uintptr_t)og_current(), defaultLaunchValue,
                                                  flags);
}

/* ---- user objects: the destructor runs on the callback thread, and with it the handle ends ---- */

struct object {
    uint64_t handle;
    CUhostFn destroy;
    void *data;
};

static void object_ends(void *object)
{
    struct object *o = object;

    og_unmint(OW_KIND_USER_OBJECT, o->handle);
    o->destroy(o->data);
    free(o);
}

OG_EXPORT CUresult cuUserObjectCreate(CUuserObject *object_out, void *ptr, CUhostFn destroy,
                                      unsigned int initialRefcount, unsigned int flags)
{
    CUuserObject made = NULL;
    struct object *o;
    CUresult r;

    if (!object_out || !destroy || !initialRefcount || initialRefcount > INT32_MAX || flags != 1)
        return og_refuse(CUDA_ERROR_INVALID_VALUE);
    r = og_callbacks_start();
    if (r != CUDA_SUCCESS)
        return r;
    o = malloc(sizeof(*o));
    if (!o)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *o = (struct object){ 0, destroy, ptr };
    r = og_send_cuUserObjectCreate(&made, o, object_ends, initialRefcount, flags);
    if (r != CUDA_SUCCESS) {
        free(o);
        return r;
    }
    o->handle = (uint64_t)(uintptr_t)made;
    *object_out = made;
    return CUDA_SUCCESS;
}
