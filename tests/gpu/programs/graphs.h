/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs on graphs by the driver API share: nodes added in one line each, and what a graph looks like. */
#ifndef GRAPHS_H
#define GRAPHS_H

#include <stdbool.h>

#include "program.h"

#define N 1000

static inline CUgraph new_graph(void)
{
    CUgraph g = NULL;

    MUST(cuGraphCreate(&g, 0));
    return g;
}

static inline CUgraphNodeParams any(CUgraphNodeType type)
{
    CUgraphNodeParams p;

    memset(&p, 0, sizeof(p));
    p.type = type;
    return p;
}

static inline CUgraphNode put(CUgraph g, CUgraphNode dep, CUgraphNodeParams *p)
{
    CUgraphNode node = NULL;

    MUST(cuGraphAddNode_v2(&node, g, dep ? &dep : NULL, NULL, dep ? 1 : 0, p));
    return node;
}

/* p[i] += v for n numbers. */
static inline CUgraphNode put_add(CUgraph g, CUgraphNode dep, CUdeviceptr to, int v, int n)
{
    void *args[] = { &to, &v, &n };
    CUgraphNodeParams p = any(CU_GRAPH_NODE_TYPE_KERNEL);

    p.kernel = (CUDA_KERNEL_NODE_PARAMS){ .func = function("add"), .gridDimX = (n + 127) / 128, .gridDimY = 1,
                                          .gridDimZ = 1, .blockDimX = 128, .blockDimY = 1, .blockDimZ = 1,
                                          .kernelParams = args };
    return put(g, dep, &p);
}

static inline CUgraphNode put_set(CUgraph g, CUgraphNode dep, CUdeviceptr to, unsigned value, size_t n)
{
    CUgraphNodeParams p = any(CU_GRAPH_NODE_TYPE_MEMSET);

    p.memset.params = (CUDA_MEMSET_NODE_PARAMS){ .dst = to, .value = value, .elementSize = 4, .width = n, .height = 1 };
    p.memset.ctx = context;
    return put(g, dep, &p);
}

static inline CUDA_MEMCPY3D flat(void *host, CUdeviceptr device, size_t bytes, bool up)
{
    CUDA_MEMCPY3D c;

    memset(&c, 0, sizeof(c));
    c.srcMemoryType = up ? 1 : 2;
    c.dstMemoryType = up ? 2 : 1;
    c.srcHost = c.dstHost = host;
    c.srcDevice = c.dstDevice = device;
    c.srcPitch = c.dstPitch = c.WidthInBytes = bytes;
    c.srcHeight = c.dstHeight = c.Height = c.Depth = 1;
    return c;
}

static inline CUgraphNode put_copy(CUgraph g, CUgraphNode dep, CUDA_MEMCPY3D c)
{
    CUgraphNodeParams p = any(CU_GRAPH_NODE_TYPE_MEMCPY);

    p.memcpy.copyCtx = context;
    p.memcpy.copyParams = c;
    return put(g, dep, &p);
}

static inline CUgraphExec made(CUgraph g, unsigned long long flags)
{
    CUgraphExec x = NULL;

    MUST(cuGraphInstantiateWithFlags(&x, g, flags));
    return x;
}

static inline void run(CUgraphExec x, CUstream s)
{
    MUST(cuGraphLaunch(x, s));
    MUST(cuStreamSynchronize(s));
}

static inline int first_of(CUdeviceptr p)
{
    int v = -1;

    MUST(cuMemcpyDtoH_v2(&v, p, 4));
    return v;
}

static inline size_t nodes_of(CUgraph g)
{
    size_t n = 0;

    MUST(cuGraphGetNodes(g, NULL, &n));
    return n;
}

static inline void show(const char *what, CUgraph g)
{
    CUgraphNode nodes[64], roots[64];
    size_t n = 64, r = 64, e = 0;
    CUgraphNodeType type;

    MUST(cuGraphGetNodes(g, nodes, &n));
    MUST(cuGraphGetRootNodes(g, roots, &r));
    MUST(cuGraphGetEdges(g, NULL, NULL, &e));
    printf("%s: %zu nodes, %zu roots, %zu edges, types", what, n, r, e);
    for (size_t i = 0; i < n; i++) {
        MUST(cuGraphNodeGetType(nodes[i], &type));
        printf(" %u", type);
    }
    printf("\n");
}

static inline CUgraph two_adds(CUdeviceptr d, int v, int w, bool in_order)
{
    CUgraph g = new_graph();
    CUgraphNode first = put_add(g, NULL, d, v, N);

    put_add(g, in_order ? first : NULL, d, w, N);
    return g;
}

#endif
