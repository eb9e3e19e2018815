/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs, explicit and captured, by the driver API: nodes of every kind, copies, what a capture records and forbids. */
#include "graphs.h"

static int ran;
static void note(void *number)
{
    ran += *(int *)number;
}

/* ---- one node of each kind, and what it answers ---- */

static void kernel_answers(CUgraphNode node, CUdeviceptr to)
{
    CUDA_KERNEL_NODE_PARAMS k;
    int v = 7, n = 3;
    void *args[] = { &to, &v, &n };

    memset(&k, 0, sizeof(k));
    MUST(cuGraphKernelNodeGetParams_v2(node, &k));
    printf("kernel: function %d grid %u block %u shared %u v %d n %d\n", k.func == function("add"), k.gridDimX, k.blockDimX,
           k.sharedMemBytes, *(int *)k.kernelParams[1], *(int *)k.kernelParams[2]);
    k.kernelParams = args;
    k.gridDimX = 1;
    MUST(cuGraphKernelNodeSetParams_v2(node, &k));
    MUST(cuGraphKernelNodeGetParams_v2(node, &k));
    printf("kernel then: grid %u v %d n %d\n", k.gridDimX, *(int *)k.kernelParams[1], *(int *)k.kernelParams[2]);
}

static void batch_node(CUgraph g, CUgraphNode dep, CUdeviceptr word)
{
    CUstreamBatchMemOpParams ops[2];
    CUDA_BATCH_MEM_OP_NODE_PARAMS b = { context, 2, ops, 0 }, got;
    CUgraphNode node = NULL;

    memset(ops, 0, sizeof(ops));
    ops[0].writeValue.operation = 2;
    ops[0].writeValue.address = word;
    ops[0].writeValue.value = 77;
    ops[1].waitValue.operation = 1;
    ops[1].waitValue.address = word;
    ops[1].waitValue.value = 77;
    ops[1].waitValue.flags = 1; /* equal */
    MUST(cuGraphAddBatchMemOpNode(&node, g, &dep, 1, &b));
    MUST(cuGraphBatchMemOpNodeGetParams(node, &got));
    printf("batch: %u operations, first %u value %u, second %u\n", got.count, got.paramArray[0].operation,
           got.paramArray[0].writeValue.value, got.paramArray[1].operation);
}

static void kinds(void)
{
    CUdeviceptr d, word;
    CUgraph g, inner, got = NULL;
    CUevent event, answer = NULL;
    CUstream s;
    int one = 1;
    CUDA_HOST_NODE_PARAMS host = { note, &one }, back;
    CUDA_MEMSET_NODE_PARAMS set;
    CUgraphNode k, node, last;

    start();
    d = device_memory(N * 4);
    word = device_memory(256);
    s = new_stream();
    MUST(cuEventCreate(&event, 0));
    g = new_graph();
    inner = new_graph();
    put_add(inner, NULL, d, 5, N);
    last = put_set(g, NULL, d, 100, N);
    MUST(cuGraphMemsetNodeGetParams(last, &set));
    printf("memset: value %u element %u width %zu height %zu mine %d\n", set.value, set.elementSize, set.width, set.height,
           set.dst == d);
    k = last = put_add(g, last, d, 1, N);
    kernel_answers(k, d);
    MUST(cuGraphAddChildGraphNode(&node, g, &last, 1, inner));
    MUST(cuGraphChildGraphNodeGetGraph(node, &got));
    printf("child: %zu nodes, a copy %d\n", nodes_of(got), got != inner);
    MUST(cuGraphAddHostNode(&last, g, &node, 1, &host));
    MUST(cuGraphHostNodeGetParams(last, &back));
    printf("host: mine %d %d\n", back.fn == note, back.userData == &one);
    MUST(cuGraphAddEventRecordNode(&node, g, &last, 1, event));
    MUST(cuGraphEventRecordNodeGetEvent(node, &answer));
    printf("record: mine %d\n", answer == event);
    MUST(cuGraphAddEventWaitNode(&last, g, &node, 1, event));
    MUST(cuGraphEventWaitNodeGetEvent(last, &answer));
    printf("wait: mine %d\n", answer == event);
    MUST(cuGraphAddEmptyNode(&node, g, &last, 1));
    batch_node(g, node, word);
    show("all", g);
    MUST(cuGraphDestroy(inner));
    CUgraphExec x = made(g, 0);
    run(x, s);
    run(x, s);
    MUST(cuEventSynchronize(event));
    printf("first %d word %d ran %d\n", first_of(d), first_of(word), ran);
    SAY(cuGraphMemsetNodeGetParams(k, &set));
    SAY(cuGraphEventWaitNodeGetEvent(k, &answer));
    SAY(cuGraphExecDestroy(x));
    SAY(cuGraphDestroy(g));
}

/* ---- copies of ordinary memory ---- */

static void copies(void)
{
    static int from[N], other[N], to[N], table[8][10];
    CUdeviceptr d;
    CUgraph g, clone;
    CUgraphNode up, down, in_clone = NULL;
    CUDA_MEMCPY3D c, got;
    CUstream s;

    start();
    d = device_memory(N * 4);
    s = new_stream();
    for (int i = 0; i < N; i++)
        from[i] = i, other[i] = 2 * i;
    g = new_graph();
    up = put_copy(g, NULL, flat(from, d, sizeof(from), true));
    down = put_copy(g, put_add(g, up, d, 3, N), flat(to, d, sizeof(to), false));
    show("there and back", g);
    MUST(cuGraphMemcpyNodeGetParams(up, &got));
    printf("up: types %u %u width %zu mine %d\n", got.srcMemoryType, got.dstMemoryType, got.WidthInBytes, got.srcHost == from);
    CUgraphExec x = made(g, 0);
    run(x, s);
    printf("%d %d\n", to[0], to[N - 1]);
    from[N - 1] = 5; /* read when the graph runs */
    run(x, s);
    printf("%d %d\n", to[0], to[N - 1]);
    c = flat(other, d, sizeof(other), true);
    SAY(cuGraphExecMemcpyNodeSetParams(x, up, &c, context));
    run(x, s);
    printf("executable changed: %d\n", to[N - 1]);
    SAY(cuGraphMemcpyNodeSetParams(up, &c));
    MUST(cuGraphClone(&clone, g));
    MUST(cuGraphNodeFindInClone(&in_clone, down, clone));
    MUST(cuGraphMemcpyNodeGetParams(in_clone, &got));
    printf("clone: width %zu mine %d\n", got.WidthInBytes, got.dstHost == to);
    MUST(cuGraphDestroy(g));
    MUST(cuGraphExecDestroy(x));
    x = made(clone, 0);
    to[5] = 0;
    run(x, s);
    printf("clone: %d %d\n", to[5], to[N - 1]);
    MUST(cuGraphDestroy(clone));
    MUST(cuGraphExecDestroy(x));
    g = new_graph(); /* four rows of three numbers into a wider table */
    c = flat(&table[2][4], d, 12, false);
    c.srcPitch = 12;
    c.srcHeight = c.dstHeight = c.Height = 4;
    c.dstPitch = sizeof(table[0]);
    put_copy(g, NULL, c);
    x = made(g, 0);
    run(x, s);
    for (int y = 1; y < 7; y++)
        printf("%d %d %d %d %d\n", table[y][3], table[y][4], table[y][5], table[y][6], table[y][7]);
}

/* ---- capture ---- */

static void forked(CUstream s, CUdeviceptr d, int *host)
{
    int v = 10, w = 4, n = N / 2;
    CUdeviceptr upper = d + 4 * (N / 2);
    void *low[] = { &d, &v, &n }, *high[] = { &upper, &w, &n };
    CUstream t = new_stream();
    CUevent fork, join;

    MUST(cuEventCreate(&fork, 2));
    MUST(cuEventCreate(&join, 2));
    MUST(cuMemcpyHtoDAsync_v2(d, host, N * 4, s));
    MUST(cuEventRecord(fork, s));
    MUST(cuStreamWaitEvent(t, fork, 0));
    MUST(launch("add", 4, 128, s, low));
    MUST(launch("add", 4, 128, t, high));
    MUST(cuEventRecord(join, t));
    MUST(cuStreamWaitEvent(s, join, 0));
    MUST(cuMemcpyDtoHAsync_v2(host, d, N * 4, s));
}

static void capture(void)
{
    static int host[N];
    CUstreamCaptureStatus status;
    const CUgraphNode *deps = NULL;
    CUgraph during = NULL, g = NULL;
    cuuint64_t id = 0;
    size_t count = 0;
    CUdeviceptr d;
    CUstream s;

    start();
    d = device_memory(N * 4);
    s = new_stream();
    MUST(cuStreamBeginCapture_v2(s, 0));
    forked(s, d, host);
    MUST(cuStreamGetCaptureInfo_v2(s, &status, &id, &during, &deps, &count));
    printf("status %u id %d dependencies %zu nodes %zu\n", status, id != 0, count, nodes_of(during));
    MUST(cuStreamEndCapture(s, &g));
    printf("the same graph %d\n", g == during);
    show("captured", g);
    CUgraphExec x = made(g, 0);
    run(x, s);
    run(x, s);
    printf("%d %d\n", host[0], host[N - 1]);
    MUST(cuGraphExecDestroy(x));
    MUST(cuGraphDestroy(g));
    SAY(cuStreamGetCaptureInfo_v2(s, &status, &id, &during, &deps, &count));
    printf("status %u\n", status);
}

static void into_graph(void)
{
    CUgraphNode first, second, nodes[2];
    CUgraph g, ended = NULL;
    int v = 2, n = N;
    CUdeviceptr d;
    CUstream s;

    start();
    d = device_memory(N * 4);
    s = new_stream();
    g = new_graph();
    first = put_set(g, NULL, d, 1, N);
    void *args[] = { &d, &v, &n };
    MUST(cuStreamBeginCaptureToGraph(s, g, &first, NULL, 1, 2));
    MUST(launch("add", 8, 128, s, args));
    second = put_set(g, NULL, d + 4, 50, 1); /* by hand, beside what is recorded */
    nodes[0] = second;
    MUST(cuStreamUpdateCaptureDependencies_v2(s, nodes, NULL, 1, 0));
    MUST(launch("add", 8, 128, s, args));
    MUST(cuStreamEndCapture(s, &ended));
    printf("the same graph %d\n", ended == g);
    show("both", g);
    CUgraphNode dep[4];
    size_t nr = 4;
    CUgraphNode all[8];
    size_t count = 8;
    MUST(cuGraphGetNodes(g, all, &count));
    MUST(cuGraphNodeGetDependencies(all[count - 1], dep, &nr));
    printf("the last depends on %zu, the first has", nr);
    MUST(cuGraphNodeGetDependentNodes(first, NULL, &nr));
    printf(" %zu dependents\n", nr);
    run(made(g, 0), s);
    printf("%d\n", first_of(d));
}

static void forbidden(void)
{
    CUdeviceptr d = 0;
    CUgraph g = NULL;
    CUevent e;
    CUstream s, t;
    CUstreamCaptureMode mode = 2;

    start();
    s = new_stream();
    t = new_stream();
    MUST(cuEventCreate(&e, 2));
    MUST(cuStreamBeginCapture_v2(s, 0));
    SAY(cuStreamBeginCapture_v2(s, 0));
    SAY(cuMemAlloc_v2(&d, 256));
    SAY(cuStreamEndCapture(s, &g));
    printf("no graph %d\n", g == NULL);
    MUST(cuStreamBeginCapture_v2(s, 0));
    SAY(cuStreamSynchronize(s));
    SAY(cuStreamEndCapture(s, &g));
    MUST(cuStreamBeginCapture_v2(s, 2));
    SAY(cuMemAlloc_v2(&d, 256)); /* relaxed */
    MUST(cuEventRecord(e, s));
    SAY(cuEventQuery(e));
    SAY(cuStreamWaitEvent(t, e, 0)); /* the question has invalidated the capture */
    SAY(cuStreamEndCapture(t, &g));
    SAY(cuStreamEndCapture(s, &g));
    MUST(cuThreadExchangeStreamCaptureMode(&mode));
    MUST(cuStreamBeginCapture_v2(s, 0));
    SAY(cuMemAlloc_v2(&d, 256)); /* this thread is relaxed now */
    SAY(cuStreamEndCapture(s, &g));
    printf("empty %zu mode was %u\n", nodes_of(g), mode);
}

static void dot(void)
{
    const char *path = "graphs_dot.tmp";
    char line[64] = "";
    CUgraph g;
    FILE *f;

    start();
    g = two_adds(device_memory(N * 4), 1, 2, true);
    SAY(cuGraphDebugDotPrint(g, path, 0));
    f = fopen(path, "r");
    if (f && fgets(line, sizeof(line), f))
        printf("%s", line);
    if (f)
        fclose(f);
    printf("removed %d\n", remove(path));
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = {
        { "kinds", kinds }, { "copies", copies }, { "capture", capture }, { "into_graph", into_graph },
        { "forbidden", forbidden }, { "dot", dot },
    };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
