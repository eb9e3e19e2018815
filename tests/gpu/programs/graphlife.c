/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs by the driver API: their memory, executables that change, user objects, conditions, edges, attributes. */
#include <unistd.h>

#include "graphs.h"

/* ---- memory of graphs ---- */

static CUgraph with_memory(CUdeviceptr *p, bool freed)
{
    CUgraphNodeParams a = any(CU_GRAPH_NODE_TYPE_MEM_ALLOC), f = any(CU_GRAPH_NODE_TYPE_MEM_FREE);
    CUDA_MEM_ALLOC_NODE_PARAMS got;
    CUgraph g = new_graph();
    CUgraphNode node;
    CUdeviceptr back = 0;

    a.alloc.poolProps.allocType = 1;
    a.alloc.poolProps.location.type = 1;
    a.alloc.bytesize = 8u << 20;
    node = put(g, NULL, &a);
    *p = a.alloc.dptr;
    MUST(cuGraphMemAllocNodeGetParams(node, &got));
    printf("alloc: %zu bytes, the same address %d\n", got.bytesize, got.dptr == *p);
    node = put_add(g, put_set(g, node, *p, 40, N), *p, 2, N);
    if (freed) {
        f.free.dptr = *p;
        node = put(g, node, &f);
        MUST(cuGraphMemFreeNodeGetParams(node, &back));
        printf("free: the same address %d\n", back == *p);
    }
    return g;
}

static void footprint(const char *when)
{
    cuuint64_t value[4];

    for (unsigned i = 0; i < 4; i++)
        MUST(cuDeviceGetGraphMemAttribute(0, i, &value[i]));
    printf("%s: used %d high %d reserved %d high %d\n", when, value[0] > 0, value[1] > 0, value[2] > 0, value[3] > 0);
}

static void memory(void)
{
    CUdeviceptr p = 0, q = 0;
    CUgraph g, h;
    CUgraphExec x, y;
    cuuint64_t zero = 0;
    CUstream s;

    start();
    s = new_stream();
    footprint("at first");
    g = with_memory(&p, false);
    x = made(g, 0);
    run(x, s);
    printf("%d\n", first_of(p));
    footprint("allocated");
    SAY(cuGraphLaunch(x, s)); /* not freed yet */
    MUST(cuMemFreeAsync(p, s));
    MUST(cuStreamSynchronize(s));
    run(x, s);
    printf("again %d\n", first_of(p));
    MUST(cuMemFree_v2(p));
    SAY(cuMemFree_v2(p));
    run(x, s);
    printf("and again %d\n", first_of(p));
    MUST(cuMemFreeAsync(p, s));
    MUST(cuStreamSynchronize(s));
    MUST(cuGraphExecDestroy(x));
    MUST(cuGraphDestroy(g));
    h = with_memory(&q, true);
    y = made(h, 0);
    for (int i = 0; i < 3; i++)
        run(y, s);
    footprint("freed in the graph");
    MUST(cuGraphExecDestroy(y));
    MUST(cuGraphDestroy(h));
    MUST(cuDeviceGraphMemTrim(0));
    MUST(cuDeviceSetGraphMemAttribute(0, 1, &zero));
    MUST(cuDeviceSetGraphMemAttribute(0, 3, &zero));
    footprint("trimmed");
    g = with_memory(&p, false);
    x = made(g, 1); /* AUTO_FREE_ON_LAUNCH */
    for (int i = 0; i < 3; i++)
        run(x, s);
    printf("freed at launch %d\n", first_of(p));
}

/* As frameworks do: graph after graph whose memory is asked for while it is recorded. */
static void many(void)
{
    static int out[20];
    CUgraphExec x[20];
    CUstream s;
    int n = N;

    start();
    s = new_stream();
    for (int i = 0; i < 20; i++) {
        CUdeviceptr a = 0, b = 0;
        CUgraph g = NULL;
        int v = i;

        MUST(cuStreamBeginCapture_v2(s, 1));
        MUST(cuMemAllocAsync(&a, N * 4, s));
        MUST(cuMemAllocAsync(&b, N * 4, s));
        void *args[] = { &b, &v, &n };
        MUST(cuMemsetD32Async(a, 1000, N, s));
        MUST(cuMemcpyDtoDAsync_v2(b, a, N * 4, s));
        MUST(launch("add", 8, 128, s, args));
        MUST(cuMemcpyDtoHAsync_v2(&out[i], b, 4, s));
        MUST(cuMemFreeAsync(a, s));
        MUST(cuMemFreeAsync(b, s));
        MUST(cuStreamEndCapture(s, &g));
        if (i == 0)
            show("one of them", g);
        x[i] = made(g, 0);
        MUST(cuGraphDestroy(g));
    }
    for (int turn = 0; turn < 3; turn++)
        for (int i = 0; i < 20; i++)
            MUST(cuGraphLaunch(x[i], s));
    MUST(cuStreamSynchronize(s));
    printf("%d %d %d\n", out[0], out[7], out[19]);
    for (int i = 0; i < 20; i++)
        MUST(cuGraphExecDestroy(x[i]));
}

/* ---- executables that change ---- */

static void update(void)
{
    CUgraphExecUpdateResultInfo info;
    CUdeviceptr d;
    CUgraph g, bad;
    CUgraphNode nodes[2];
    CUgraphExec x;
    size_t n = 2;
    unsigned on = 9;
    CUstream s;

    start();
    d = device_memory(N * 4);
    s = new_stream();
    MUST(cuMemsetD32_v2(d, 0, N));
    g = two_adds(d, 1, 10, true);
    x = made(g, 0);
    run(x, s);
    SAY(cuGraphExecUpdate_v2(x, two_adds(d, 100, 1000, true), &info));
    printf("result %u\n", info.result);
    run(x, s);
    printf("%d\n", first_of(d));
    bad = two_adds(d, 1, 1, false);
    SAY(cuGraphExecUpdate_v2(x, bad, &info));
    printf("result %u\n", info.result);
    bad = new_graph();
    put_set(bad, put_add(bad, NULL, d, 1, N), d, 1, N);
    SAY(cuGraphExecUpdate_v2(x, bad, &info));
    printf("result %u node %d\n", info.result, info.errorNode != NULL);
    MUST(cuGraphGetNodes(g, nodes, &n));
    MUST(cuGraphNodeGetEnabled(x, nodes[0], &on));
    printf("enabled %u\n", on);
    MUST(cuGraphNodeSetEnabled(x, nodes[0], 0));
    MUST(cuGraphNodeGetEnabled(x, nodes[0], &on));
    run(x, s);
    printf("enabled %u: %d\n", on, first_of(d));
    CUDA_KERNEL_NODE_PARAMS k;
    memset(&k, 0, sizeof(k));
    MUST(cuGraphKernelNodeGetParams_v2(nodes[1], &k));
    int v = 7;
    void *args[] = { &d, &v, k.kernelParams[2] };
    k.kernelParams = args;
    MUST(cuGraphExecKernelNodeSetParams_v2(x, nodes[1], &k));
    run(x, s);
    printf("one changed: %d\n", first_of(d));
}

/* ---- user objects ---- */

static volatile int ended;
static void end(void *number)
{
    ended += *(int *)number;
}

static void wait_ended(const char *when, int wanted)
{
    for (int i = 0; i < 500 && ended != wanted; i++)
        usleep(10000);
    printf("%s: %d\n", when, ended);
}

static void objects(void)
{
    static int one = 1, ten = 10, hundred = 100;
    CUuserObject a, b, c;
    CUdeviceptr d;
    CUgraph g, clone;
    CUgraphExec x;
    CUstream s;

    start();
    d = device_memory(N * 4);
    s = new_stream();
    MUST(cuUserObjectCreate(&a, &one, end, 1, 1));
    MUST(cuUserObjectCreate(&b, &ten, end, 2, 1));
    MUST(cuUserObjectCreate(&c, &hundred, end, 1, 1));
    MUST(cuUserObjectRetain(a, 1));
    MUST(cuUserObjectRelease(a, 1));
    printf("alive: %d\n", ended);
    MUST(cuUserObjectRelease(a, 1));
    wait_ended("released", 1);
    g = two_adds(d, 1, 2, true);
    MUST(cuGraphRetainUserObject(g, b, 1, 1)); /* one of our two */
    MUST(cuGraphRetainUserObject(g, c, 1, 0));
    MUST(cuUserObjectRelease(c, 1));
    MUST(cuUserObjectRelease(b, 1));
    MUST(cuGraphClone(&clone, g));
    MUST(cuGraphReleaseUserObject(g, c, 1));
    x = made(g, 0);
    MUST(cuGraphDestroy(g));
    run(x, s);
    printf("with clone and executable: %d\n", ended);
    MUST(cuGraphDestroy(clone));
    wait_ended("without the clone", 101);
    MUST(cuGraphExecDestroy(x));
    wait_ended("without the executable", 111);
    SAY(cuUserObjectCreate(&a, &one, end, 1, 0));
    SAY(cuUserObjectCreate(&a, &one, NULL, 1, 1));
}

/* ---- conditions, edges, attributes ---- */

static int chosen(unsigned type, unsigned size, unsigned value)
{
    CUgraphNodeParams p = any(CU_GRAPH_NODE_TYPE_CONDITIONAL);
    CUgraph g = new_graph();
    CUdeviceptr d = device_memory(256);
    CUstream s = new_stream();
    CUgraphNode last;

    MUST(cuGraphConditionalHandleCreate(&p.conditional.handle, g, context, value, 1));
    p.conditional.type = type;
    p.conditional.size = size;
    p.conditional.ctx = context;
    last = put(g, put_set(g, NULL, d, 5, 1), &p);
    for (unsigned i = 0; i < size; i++)
        put_add(p.conditional.phGraph_out[i], NULL, d, 100 * (int)(i + 1), 1);
    put_add(g, last, d, 1, 1);
    CUgraphExec x = made(g, 0);
    run(x, s);
    run(x, s);
    MUST(cuGraphExecDestroy(x));
    MUST(cuGraphDestroy(g));
    return first_of(d);
}

static void conditions(void)
{
    start();
    printf("if: %d %d\n", chosen(0, 1, 1), chosen(0, 1, 0));
    printf("if else: %d %d\n", chosen(0, 2, 1), chosen(0, 2, 0));
    printf("while: %d\n", chosen(1, 1, 0));
    printf("switch: %d %d %d\n", chosen(2, 3, 0), chosen(2, 3, 2), chosen(2, 3, 3));
}

static void memory_in(CUstream s, size_t bytes, CUgraph *g, CUgraphExec *x)
{
    CUdeviceptr p;

    MUST(cuStreamBeginCapture_v2(s, 0));
    MUST(cuMemAllocAsync(&p, bytes, s));
    MUST(cuMemsetD8Async(p, 1, bytes, s));
    MUST(cuMemsetD8Async(p + bytes / 2, 2, bytes / 2, s));
    MUST(cuMemFreeAsync(p, s));
    MUST(cuStreamEndCapture(s, g));
    *x = made(*g, 0);
}

static volatile int released;

static void hold(void *unused)
{
    (void)unused;
    while (!released)
        usleep(1000);
}

/* Graphs end while they still run; the addresses of what they allocated are given again, for more. */
static void ended_early(void)
{
    CUgraphExec x;
    CUgraph g;
    CUstream s;

    start();
    s = new_stream();
    for (size_t bytes = 64; bytes <= 1 << 20; bytes *= 4) {
        released = 0;
        memory_in(s, bytes, &g, &x);
        MUST(cuLaunchHostFunc(s, hold, NULL));
        MUST(cuGraphLaunch(x, s));
        say("executable", cuGraphExecDestroy(x));
        say("graph", cuGraphDestroy(g));
        released = 1;
        say("stream", cuStreamSynchronize(s));
    }
}

/* *p counts down, and the condition holds until it is 0. */
static const char counting[] = ".version 8.3\n.target sm_75\n.address_size 64\n"
    ".extern .func cudaGraphSetConditional(.param .b64 handle, .param .b32 value);\n"
    ".visible .entry count_down(.param .u64 p, .param .u64 condition)\n{\n.reg .b32 %r<3>;\n.reg .b64 %rd<4>;\n"
    "ld.param.u64 %rd1, [p];\nld.param.u64 %rd2, [condition];\nld.global.u32 %r1, [%rd1];\nadd.s32 %r2, %r1, -1;\n"
    "st.global.u32 [%rd1], %r2;\n{\n.param .b64 a;\n.param .b32 b;\nst.param.b64 [a], %rd2;\nst.param.b32 [b], %r2;\n"
    "call.uni cudaGraphSetConditional, (a, b);\n}\nret;\n}\n";

/* Kernels say whether a body runs again. */
static void steered(void)
{
    CUgraphNodeParams p = any(CU_GRAPH_NODE_TYPE_CONDITIONAL), k = any(CU_GRAPH_NODE_TYPE_KERNEL);
    CUgraph g;
    CUdeviceptr d, sum;
    CUmodule m;
    CUstream s;

    start();
    g = new_graph();
    d = device_memory(256);
    sum = device_memory(256);
    s = new_stream();
    MUST(cuModuleLoadData(&m, counting));
    MUST(cuGraphConditionalHandleCreate(&p.conditional.handle, g, context, 1, 1));
    p.conditional.type = 1; /* while */
    p.conditional.size = 1;
    p.conditional.ctx = context;
    put(g, put_set(g, put_set(g, NULL, d, 7, 1), sum, 0, 1), &p);
    void *parameters[] = { &d, &p.conditional.handle };
    MUST(cuModuleGetFunction(&k.kernel.func, m, "count_down"));
    k.kernel.gridDimX = k.kernel.gridDimY = k.kernel.gridDimZ = k.kernel.blockDimX = k.kernel.blockDimY = k.kernel.blockDimZ = 1;
    k.kernel.kernelParams = parameters;
    put_add(p.conditional.phGraph_out[0], put(p.conditional.phGraph_out[0], NULL, &k), sum, 1, 1);
    CUgraphExec x = made(g, 0);
    run(x, s);
    run(x, s);
    printf("left %d, rounds %d\n", first_of(d), first_of(sum));
}

static void edges(void)
{
    CUgraphEdgeData programmatic = { .from_port = 1, .type = 1 }, data[4];
    CUgraphNode a, b, c, from[4], to[4];
    CUdeviceptr d;
    CUgraph g;
    size_t n;

    start();
    d = device_memory(N * 4);
    g = new_graph();
    a = put_add(g, NULL, d, 1, N);
    b = put_add(g, NULL, d, 2, N);
    c = put_add(g, NULL, d, 3, N);
    SAY(cuGraphAddDependencies(g, &a, &b, 1));
    SAY(cuGraphAddDependencies_v2(g, &b, &c, &programmatic, 1));
    n = 4;
    SAY(cuGraphGetEdges(g, from, to, &n));
    n = 4;
    MUST(cuGraphGetEdges_v2(g, from, to, data, &n));
    for (size_t i = 0; i < n; i++)
        printf("%d to %d: port %u type %u\n", from[i] == a ? 1 : 2, to[i] == b ? 2 : 3, data[i].from_port, data[i].type);
    n = 4;
    MUST(cuGraphNodeGetDependencies_v2(c, from, data, &n));
    printf("of the third: %zu, the second %d, type %u\n", n, from[0] == b, data[0].type);
    n = 4;
    SAY(cuGraphNodeGetDependentNodes(b, to, &n));
    SAY(cuGraphRemoveDependencies_v2(g, &b, &c, &programmatic, 1));
    SAY(cuGraphRemoveDependencies(g, &a, &b, 1));
    show("apart", g);
    SAY(cuGraphDestroyNode(b));
    show("one less", g);
}

static void attributes(void)
{
    CUkernelNodeAttrValue v;
    CUgraphNode a, b;
    CUdeviceptr d;
    CUgraph g;
    CUstream s;

    start();
    d = device_memory(N * 4);
    s = new_stream();
    g = two_adds(d, 1, 2, true);
    a = put_add(g, NULL, d, 1, N);
    b = put_add(g, a, d, 1, N);
    memset(&v, 0, sizeof(v));
    v.priority = -1;
    SAY(cuGraphKernelNodeSetAttribute(a, 8, &v));
    memset(&v, 0, sizeof(v));
    SAY(cuGraphKernelNodeGetAttribute(a, 8, &v));
    printf("priority %d\n", v.priority);
    SAY(cuGraphKernelNodeCopyAttributes(b, a));
    memset(&v, 0, sizeof(v));
    SAY(cuGraphKernelNodeGetAttribute(b, 8, &v));
    printf("priority %d\n", v.priority);
    memset(&v, 0, sizeof(v));
    v.deviceUpdatableKernelNode.deviceUpdatable = 1;
    SAY(cuGraphKernelNodeSetAttribute(put_add(new_graph(), NULL, d, 1, N), 13, &v));
    printf("a name for device code %d\n", v.deviceUpdatableKernelNode.devNode != NULL);
    run(made(g, 8), s);                  /* USE_NODE_PRIORITY */
    CUgraphExec x = made(g, 4);          /* DEVICE_LAUNCH */
    cuuint64_t flags = 0;
    MUST(cuGraphUpload(x, s));
    run(x, s);
    MUST(cuGraphExecGetFlags(x, &flags));
    printf("flags %llu\n", (unsigned long long)flags);
    MUST(cuGraphExecDestroy(x));
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = {
        { "memory", memory }, { "many", many }, { "update", update }, { "objects", objects },
        { "conditions", conditions }, { "steered", steered }, { "ended_early", ended_early }, { "edges", edges }, { "attributes", attributes },
    };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
