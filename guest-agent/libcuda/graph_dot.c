/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphDebugDotPrint: the application's file, from what it can ask of the graph itself. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"

#define VERBOSE 1u
#define HANDLES 1024u

struct dot {
    FILE *file;
    unsigned flags;
    unsigned next; /* number of the next graph */
};

static const char *const names[] = { "KERNEL", "MEMCPY", "MEMSET", "HOST", "GRAPH", "EMPTY", "WAIT_EVENT", "EVENT_RECORD",
                                     "EXT_SEMAS_SIGNAL", "EXT_SEMAS_WAIT", "MEM_ALLOC", "MEM_FREE", "BATCH_MEM_OP",
                                     "CONDITIONAL" };

/* `bit`: the flag that asks for this kind's parameters. */
static bool wants(const struct dot *d, unsigned bit)
{
    return d->flags & (VERBOSE | bit);
}

static void print_kernel(const struct dot *d, const CUDA_KERNEL_NODE_PARAMS *p)
{
    const char *name = NULL;

    if (p->func && cuFuncGetName(&name, p->func) == CUDA_SUCCESS && name)
        fprintf(d->file, "\n%s", name);
    else if (p->kern && cuKernelGetName(&name, p->kern) == CUDA_SUCCESS && name)
        fprintf(d->file, "\n%s", name);
    if (wants(d, 1u << 2))
        fprintf(d->file, "\n\\<\\<\\<(%u,%u,%u),(%u,%u,%u),%u\\>\\>\\>", p->gridDimX, p->gridDimY, p->gridDimZ,
                p->blockDimX, p->blockDimY, p->blockDimZ, p->sharedMemBytes);
}

static void print_params(const struct dot *d, const CUgraphNodeParams *p)
{
    const CUDA_MEMCPY3D *c = &p->memcpy.copyParams;
    const CUDA_MEMSET_NODE_PARAMS *m = &p->memset.params;

    if (p->type == CU_GRAPH_NODE_TYPE_KERNEL)
        print_kernel(d, &p->kernel);
    else if (p->type == CU_GRAPH_NODE_TYPE_MEMCPY && wants(d, 1u << 3))
        fprintf(d->file, "\n%zu x %zu x %zu bytes\n%p to %p", c->WidthInBytes, c->Height, c->Depth,
                c->srcMemoryType == OC_MEMORY_HOST ? c->srcHost : (const void *)(uintptr_t)c->srcDevice,
                c->dstMemoryType == OC_MEMORY_HOST ? c->dstHost : (void *)(uintptr_t)c->dstDevice);
    else if (p->type == CU_GRAPH_NODE_TYPE_MEMSET && wants(d, 1u << 4))
        fprintf(d->file, "\n%zu x %zu of %u bytes\n%p = %#x", m->width, m->height, m->elementSize,
                (void *)(uintptr_t)m->dst, m->value);
    else if (p->type == CU_GRAPH_NODE_TYPE_HOST && wants(d, 1u << 5))
        fprintf(d->file, "\n%p(%p)", (void *)(uintptr_t)p->host.fn, p->host.userData);
    else if ((p->type == CU_GRAPH_NODE_TYPE_WAIT_EVENT || p->type == CU_GRAPH_NODE_TYPE_EVENT_RECORD) &&
             wants(d, 1u << 6))
        fprintf(d->file, "\n%p", (void *)p->event.event);
    else if (p->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && wants(d, 1u << 11))
        fprintf(d->file, "\n%zu bytes at %p", p->alloc.bytesize, (void *)(uintptr_t)p->alloc.dptr);
    else if (p->type == CU_GRAPH_NODE_TYPE_MEM_FREE && wants(d, 1u << 12))
        fprintf(d->file, "\n%p", (void *)(uintptr_t)p->free.dptr);
    else if (p->type == CU_GRAPH_NODE_TYPE_BATCH_MEM_OP && wants(d, 1u << 13))
        fprintf(d->file, "\n%u operations", p->memOp.count);
    else if (p->type == CU_GRAPH_NODE_TYPE_CONDITIONAL && wants(d, 1u << 15))
        fprintf(d->file, "\ntype %u, %u bodies", p->conditional.type, p->conditional.size);
}

static CUresult print_graph(struct dot *d, CUgraph graph);

/* A node, and before it in the file the graphs that it holds. */
static CUresult print_node(struct dot *d, CUgraphNode node, unsigned graph, size_t i)
{
    CUgraphNodeParams p;
    CUresult r = og_node_get(node, &p);

    for (uint32_t b = 0; r == CUDA_SUCCESS && p.type == CU_GRAPH_NODE_TYPE_CONDITIONAL && b < p.conditional.size; b++)
        r = print_graph(d, p.conditional.phGraph_out[b]);
    if (r == CUDA_SUCCESS && p.type == CU_GRAPH_NODE_TYPE_GRAPH)
        r = print_graph(d, p.graph.graph);
    if (r != CUDA_SUCCESS)
        return r;
    fprintf(d->file, "\"graph_%u_node_%zu\"[style=\"solid\" shape=\"rectangle\" label=\"%zu\n%s", graph, i, i,
            p.type < sizeof(names) / sizeof(names[0]) ? names[p.type] : "UNKNOWN");
    if (wants(d, HANDLES))
        fprintf(d->file, "\n%p", (void *)node);
    print_params(d, &p);
    fprintf(d->file, "\"];\n");
    return CUDA_SUCCESS;
}

static size_t index_of(CUgraphNode node, const CUgraphNode *nodes, size_t count)
{
    size_t i = 0;

    while (i < count && nodes[i] != node)
        i++;
    return i;
}

static CUresult print_edges(const struct dot *d, unsigned number, const CUgraphNode *nodes, size_t count)
{
    CUgraphEdgeData *data = NULL;
    CUgraphNode *to = NULL;
    size_t nr;
    CUresult r = CUDA_SUCCESS;

    for (size_t i = 0; i < count && r == CUDA_SUCCESS; i++) {
        r = cuGraphNodeGetDependentNodes_v2(nodes[i], NULL, NULL, &nr);
        if (r != CUDA_SUCCESS || !nr)
            continue;
        to = calloc(nr, sizeof(*to));
        data = calloc(nr, sizeof(*data));
        r = to && data ? cuGraphNodeGetDependentNodes_v2(nodes[i], to, data, &nr) : CUDA_ERROR_OUT_OF_MEMORY;
        for (size_t k = 0; r == CUDA_SUCCESS && k < nr; k++)
            fprintf(d->file, "\"graph_%u_node_%zu\" -> \"graph_%u_node_%zu\"%s;\n", number, i, number,
                    index_of(to[k], nodes, count), data[k].type ? " [style=\"dashed\"]" : "");
        free(to);
        free(data);
    }
    return r;
}

static CUresult print_graph(struct dot *d, CUgraph graph)
{
    unsigned number = d->next++;
    CUgraphNode *nodes;
    size_t count = 0;
    CUresult r = cuGraphGetNodes(graph, NULL, &count);

    if (r != CUDA_SUCCESS)
        return r;
    nodes = calloc(count + 1, sizeof(*nodes));
    if (!nodes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = count ? cuGraphGetNodes(graph, nodes, &count) : CUDA_SUCCESS;
    fprintf(d->file, "subgraph cluster_%u {\nlabel=\"graph_%u\" graph[style=\"dashed\"];\n", number, number);
    for (size_t i = 0; i < count && r == CUDA_SUCCESS; i++)
        r = print_node(d, nodes[i], number, i);
    if (r == CUDA_SUCCESS)
        r = print_edges(d, number, nodes, count);
    fprintf(d->file, "}\n");
    free(nodes);
    return r;
}

OG_EXPORT CUresult cuGraphDebugDotPrint(CUgraph hGraph, const char *path, unsigned int flags)
{
    struct dot d = { .flags = flags };
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!path || !og_valid(OW_KIND_GRAPH, (uint64_t)(uintptr_t)hGraph))
        return CUDA_ERROR_INVALID_VALUE;
    d.file = fopen(path, "w");
    if (!d.file) {
        og_log("cuGraphDebugDotPrint: %s cannot be written: %s", path, strerror(errno));
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    fprintf(d.file, "digraph dot {\n");
    r = print_graph(&d, hGraph);
    fprintf(d.file, "}\n");
    if (fclose(d.file) && r == CUDA_SUCCESS)
        r = CUDA_ERROR_OPERATING_SYSTEM;
    return r;
}
