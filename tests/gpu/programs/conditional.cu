// SPDX-License-Identifier: Apache-2.0
// Graphs that device code steers: conditions set by kernels, graphs launched and nodes changed from the device.
// Needs relocatable device code and NVIDIA's device runtime.
#include <cstdio>
#include <cstring>

#include <cuda_runtime.h>

#define CHECK(call)                                                                          \
    do {                                                                                     \
        cudaError_t e_ = (call);                                                             \
        if (e_ != cudaSuccess) {                                                             \
            printf("WRONG %s:%d %s: %s\n", __func__, __LINE__, #call, cudaGetErrorName(e_)); \
            return;                                                                          \
        }                                                                                    \
    } while (0)

__global__ void count_down(int *p, cudaGraphConditionalHandle handle)
{
    int left = --*p;
    cudaGraphSetConditional(handle, left > 0);
}

__global__ void choose(int *p, cudaGraphConditionalHandle handle) { cudaGraphSetConditional(handle, *p); }
__global__ void add(int *p, int v) { *p += v; }

__global__ void launch_graph(cudaGraphExec_t graph) { cudaGraphLaunch(graph, cudaStreamGraphFireAndForget); }

__global__ void change(cudaGraphDeviceNode_t node, int *to)
{
    cudaGraphKernelNodeSetParam(node, 0, to);
}

static cudaGraphNode_t kernel(cudaGraph_t g, cudaGraphNode_t after, void *f, void **args)
{
    cudaGraphNode_t node = nullptr;
    cudaKernelNodeParams k = {};
    k.func = f, k.gridDim = 1, k.blockDim = 1, k.kernelParams = args;
    cudaError_t e = cudaGraphAddKernelNode(&node, g, after ? &after : nullptr, after ? 1 : 0, &k);
    if (e != cudaSuccess)
        printf("WRONG kernel node: %s\n", cudaGetErrorName(e));
    return node;
}

static void loop()
{
    int *p, *q, one = 1, host[2];
    cudaGraph_t g;
    cudaGraphExec_t x;
    cudaGraphNode_t node;
    cudaGraphConditionalHandle handle;
    CHECK(cudaMalloc(&p, 8));
    q = p + 1;
    CHECK(cudaGraphCreate(&g, 0));
    CHECK(cudaGraphConditionalHandleCreate(&handle, g, 1, cudaGraphCondAssignDefault));
    cudaGraphNodeParams c = { cudaGraphNodeTypeConditional };
    c.conditional.handle = handle, c.conditional.type = cudaGraphCondTypeWhile, c.conditional.size = 1;
    CHECK(cudaGraphAddNode(&node, g, nullptr, nullptr, 0, &c));
    cudaGraph_t body = c.conditional.phGraph_out[0];
    void *down[] = { &p, &handle }, *up[] = { &q, &one };
    kernel(body, kernel(body, nullptr, (void *)add, up), (void *)count_down, down);
    CHECK(cudaGraphInstantiate(&x, g, 0));
    for (int turns = 1; turns < 12; turns += 5) {
        int start[2] = { turns, 0 };
        CHECK(cudaMemcpy(p, start, 8, cudaMemcpyHostToDevice));
        CHECK(cudaGraphLaunch(x, 0));
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaMemcpy(host, p, 8, cudaMemcpyDeviceToHost));
        printf("turns %d of %d, left %d\n", host[1], turns, host[0]);
    }
}

static void branches()
{
    int *p, *q, host, hundred = 100, thousand = 1000;
    cudaGraph_t g;
    cudaGraphExec_t x;
    cudaGraphNode_t node;
    cudaGraphConditionalHandle handle;
    CHECK(cudaMalloc(&p, 8));
    q = p + 1;
    CHECK(cudaGraphCreate(&g, 0));
    CHECK(cudaGraphConditionalHandleCreate(&handle, g, 0, 0));
    void *args[] = { &p, &handle }, *a[] = { &q, &hundred }, *b[] = { &q, &thousand };
    cudaGraphNode_t first = kernel(g, nullptr, (void *)choose, args);
    cudaGraphNodeParams c = { cudaGraphNodeTypeConditional };
    c.conditional.handle = handle, c.conditional.type = cudaGraphCondTypeSwitch, c.conditional.size = 2;
    CHECK(cudaGraphAddNode(&node, g, &first, nullptr, 1, &c));
    kernel(c.conditional.phGraph_out[0], nullptr, (void *)add, a);
    kernel(c.conditional.phGraph_out[1], nullptr, (void *)add, b);
    CHECK(cudaGraphInstantiate(&x, g, 0));
    CHECK(cudaMemset(p, 0, 8));
    for (int which : { 0, 1, 1, 7 }) {
        CHECK(cudaMemcpy(p, &which, 4, cudaMemcpyHostToDevice));
        CHECK(cudaGraphLaunch(x, 0));
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaMemcpy(&host, q, 4, cudaMemcpyDeviceToHost));
        printf("branch %d: %d\n", which, host);
    }
}

static void device_launch()
{
    int *p, five = 5, host = 0;
    cudaGraph_t g, outer;
    cudaGraphExec_t x, y;
    cudaStream_t s;
    CHECK(cudaMalloc(&p, 4));
    CHECK(cudaMemset(p, 0, 4));
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaGraphCreate(&g, 0));
    void *args[] = { &p, &five };
    kernel(g, nullptr, (void *)add, args);
    CHECK(cudaGraphInstantiate(&x, g, cudaGraphInstantiateFlagDeviceLaunch));
    CHECK(cudaGraphUpload(x, s));
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaGraphCreate(&outer, 0));
    void *launch[] = { &x };
    kernel(outer, nullptr, (void *)launch_graph, launch);
    CHECK(cudaGraphInstantiate(&y, outer, 0));
    for (int i = 0; i < 3; i++) {
        CHECK(cudaGraphLaunch(y, s));
        CHECK(cudaStreamSynchronize(s));
    }
    CHECK(cudaMemcpy(&host, p, 4, cudaMemcpyDeviceToHost));
    printf("launched by the device: %d\n", host);
    CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaMemcpy(&host, p, 4, cudaMemcpyDeviceToHost));
    printf("and by the host: %d\n", host);
    CHECK(cudaGraphExecDestroy(x));
}

static void device_update()
{
    int *p, *q, v = 3, host[2] = {};
    cudaGraph_t g;
    cudaGraphExec_t x;
    cudaStream_t s;
    CHECK(cudaMalloc(&p, 8));
    CHECK(cudaMemset(p, 0, 8));
    q = p + 1;
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaGraphCreate(&g, 0));
    void *args[] = { &p, &v };
    cudaGraphNode_t changed = kernel(g, nullptr, (void *)add, args);
    cudaKernelNodeAttrValue attribute = {};
    attribute.deviceUpdatableKernelNode.deviceUpdatable = 1;
    CHECK(cudaGraphKernelNodeSetAttribute(changed, cudaLaunchAttributeDeviceUpdatableKernelNode, &attribute));
    printf("updatable %d\n", attribute.deviceUpdatableKernelNode.devNode != nullptr);
    CHECK(cudaGraphInstantiate(&x, g, 0));
    CHECK(cudaGraphUpload(x, s));
    CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaStreamSynchronize(s));
    change<<<1, 1, 0, s>>>(attribute.deviceUpdatableKernelNode.devNode, q);
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaMemcpy(host, p, 8, cudaMemcpyDeviceToHost));
    printf("before %d after %d\n", host[0], host[1]);
}

int main(int argc, char **argv)
{
    struct { const char *name; void (*run)(); } all[] = {
        { "loop", loop }, { "branches", branches }, { "device_launch", device_launch }, { "device_update", device_update },
    };
    for (auto &b : all)
        if (argc > 1 && !strcmp(argv[1], b.name))
            b.run();
    return 0;
}
