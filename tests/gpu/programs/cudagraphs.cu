// SPDX-License-Identifier: Apache-2.0
// Graphs by the runtime API, as the common samples build them: they check themselves and print what must be the same.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include <cuda_runtime.h>

static int failed;
#define CHECK(call)                                                                   \
    do {                                                                              \
        cudaError_t e_ = (call);                                                      \
        if (e_ != cudaSuccess) {                                                      \
            printf("WRONG %s:%d %s: %s\n", __func__, __LINE__, #call, cudaGetErrorName(e_)); \
            failed = 1;                                                               \
            return;                                                                   \
        }                                                                             \
    } while (0)
#define SAY(call) printf("%s: %s\n", #call, cudaGetErrorName(call))

static void is(const char *what, bool right)
{
    printf("%s: %s\n", what, right ? "right" : "WRONG");
    failed |= !right;
}

__global__ void reduce(const float *in, double *out, int n)
{
    __shared__ double part[256];
    double sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += in[i];
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int s = blockDim.x / 2; s; s /= 2) {
        if (threadIdx.x < s)
            part[threadIdx.x] += part[threadIdx.x + s];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        out[blockIdx.x] = part[0];
}

__global__ void gather(const double *in, double *out, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += in[i];
    *out = sum;
}

__global__ void fill(int *p, int v, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = v + i;
}

__global__ void twice(int *p, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] *= 2;
}

__global__ void step(const float *a, const float *from, float *to, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        to[i] = 0.5f * from[i] + a[i];
}

struct Result {
    double value;
    double seen;
    int calls;
};

static void CUDART_CB take(void *p)
{
    Result *r = static_cast<Result *>(p);
    r->seen = r->value;
    r->calls++;
}

/* ---- simpleCudaGraphs: copies of ordinary memory, sets, kernels, a host function; by hand and captured ---- */

struct Sum {
    std::vector<float> in = std::vector<float>(1 << 16);
    float *d = nullptr;
    double *parts = nullptr, *sum = nullptr;
    Result result = {};
    double wanted = 0;
    Sum()
    {
        for (size_t i = 0; i < in.size(); i++)
            wanted += in[i] = float(i % 17);
        cudaMalloc(&d, in.size() * sizeof(float));
        cudaMalloc(&parts, 64 * sizeof(double));
        cudaMalloc(&sum, sizeof(double));
    }
    ~Sum() { cudaFree(d), cudaFree(parts), cudaFree(sum); }
};

static void simple_run(cudaGraph_t g, Sum &s, const char *what)
{
    cudaGraphExec_t x, y;
    cudaGraph_t copy;
    cudaStream_t stream;
    size_t nodes = 0;
    CHECK(cudaGraphGetNodes(g, nullptr, &nodes));
    printf("%s has %zu nodes\n", what, nodes);
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaGraphInstantiate(&x, g, 0));
    CHECK(cudaGraphClone(&copy, g));
    CHECK(cudaGraphInstantiate(&y, copy, 0));
    for (int i = 0; i < 3; i++)
        CHECK(cudaGraphLaunch(x, stream));
    CHECK(cudaStreamSynchronize(stream));
    is(what, s.result.seen == s.wanted && s.result.calls == 3);
    for (int i = 0; i < 3; i++)
        CHECK(cudaGraphLaunch(y, stream));
    CHECK(cudaStreamSynchronize(stream));
    is("its clone", s.result.seen == s.wanted && s.result.calls == 6);
    s.result.calls = 0;
    CHECK(cudaGraphExecDestroy(x));
    CHECK(cudaGraphExecDestroy(y));
    CHECK(cudaGraphDestroy(g));
    CHECK(cudaGraphDestroy(copy));
    CHECK(cudaStreamDestroy(stream));
}

static void simple()
{
    Sum s;
    cudaGraph_t g;
    cudaGraphNode_t copy, set, first, second, back, host;
    int n = int(s.in.size()), blocks = 64;
    CHECK(cudaGraphCreate(&g, 0));
    cudaMemcpy3DParms c = {};
    c.srcPtr = make_cudaPitchedPtr(s.in.data(), sizeof(float) * n, n, 1);
    c.dstPtr = make_cudaPitchedPtr(s.d, sizeof(float) * n, n, 1);
    c.extent = make_cudaExtent(sizeof(float) * n, 1, 1);
    c.kind = cudaMemcpyHostToDevice;
    CHECK(cudaGraphAddMemcpyNode(&copy, g, nullptr, 0, &c));
    cudaMemsetParams m = {};
    m.dst = s.parts, m.value = 0, m.elementSize = 4, m.width = 128, m.height = 1;
    CHECK(cudaGraphAddMemsetNode(&set, g, nullptr, 0, &m));
    cudaGraphNode_t before[] = { copy, set };
    cudaKernelNodeParams k = {};
    void *args[] = { &s.d, &s.parts, &n };
    k.func = (void *)reduce, k.gridDim = blocks, k.blockDim = 256, k.kernelParams = args;
    CHECK(cudaGraphAddKernelNode(&first, g, before, 2, &k));
    void *more[] = { &s.parts, &s.sum, &blocks };
    k.func = (void *)gather, k.gridDim = 1, k.blockDim = 1, k.kernelParams = more;
    CHECK(cudaGraphAddKernelNode(&second, g, &first, 1, &k));
    CHECK(cudaGraphAddMemcpyNode1D(&back, g, &second, 1, &s.result.value, s.sum, sizeof(double), cudaMemcpyDeviceToHost));
    cudaHostNodeParams h = { take, &s.result };
    CHECK(cudaGraphAddHostNode(&host, g, &back, 1, &h));
    cudaKernelNodeParams got = {};
    CHECK(cudaGraphKernelNodeGetParams(second, &got));
    is("parameters of a kernel", got.func == (void *)gather && *(int *)got.kernelParams[2] == blocks);
    simple_run(g, s, "by hand");
}

static void captured()
{
    Sum s;
    cudaGraph_t g;
    cudaStream_t a, b;
    cudaEvent_t fork, join;
    CHECK(cudaStreamCreate(&a));
    CHECK(cudaStreamCreate(&b));
    CHECK(cudaEventCreate(&fork));
    CHECK(cudaEventCreate(&join));
    CHECK(cudaStreamBeginCapture(a, cudaStreamCaptureModeGlobal));
    CHECK(cudaEventRecord(fork, a));
    CHECK(cudaStreamWaitEvent(b, fork, 0));
    CHECK(cudaMemcpyAsync(s.d, s.in.data(), s.in.size() * 4, cudaMemcpyDefault, a));
    CHECK(cudaMemsetAsync(s.parts, 0, 64 * 8, b));
    CHECK(cudaEventRecord(join, b));
    CHECK(cudaStreamWaitEvent(a, join, 0));
    reduce<<<64, 256, 0, a>>>(s.d, s.parts, int(s.in.size()));
    gather<<<1, 1, 0, a>>>(s.parts, s.sum, 64);
    CHECK(cudaMemcpyAsync(&s.result.value, s.sum, 8, cudaMemcpyDefault, a));
    CHECK(cudaLaunchHostFunc(a, take, &s.result));
    CHECK(cudaStreamEndCapture(a, &g));
    simple_run(g, s, "captured");
}

/* ---- graphMemoryNodes and graphMemoryFootprint ---- */

static void memory_nodes()
{
    const int n = 1 << 16;
    cudaGraph_t g, h;
    cudaGraphExec_t x, y;
    cudaGraphNode_t alloc, kernel;
    cudaStream_t s;
    std::vector<int> out(n);
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaGraphCreate(&g, 0));
    cudaMemAllocNodeParams a = {};
    a.poolProps.allocType = cudaMemAllocationTypePinned;
    a.poolProps.location.type = cudaMemLocationTypeDevice;
    a.bytesize = n * 4;
    CHECK(cudaGraphAddMemAllocNode(&alloc, g, nullptr, 0, &a));
    int *p = (int *)a.dptr, v = 3, nr = n;
    cudaKernelNodeParams k = {};
    void *args[] = { &p, &v, &nr };
    k.func = (void *)fill, k.gridDim = n / 256, k.blockDim = 256, k.kernelParams = args;
    CHECK(cudaGraphAddKernelNode(&kernel, g, &alloc, 1, &k));
    CHECK(cudaGraphInstantiate(&x, g, 0));
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal)); /* a second graph that reads and frees it */
    twice<<<n / 256, 256, 0, s>>>(p, n);
    CHECK(cudaMemcpyAsync(out.data(), p, n * 4, cudaMemcpyDeviceToHost, s));
    CHECK(cudaFreeAsync(p, s));
    CHECK(cudaStreamEndCapture(s, &h));
    CHECK(cudaGraphInstantiate(&y, h, 0));
    for (int i = 0; i < 3; i++) {
        memset(out.data(), 0, n * 4);
        CHECK(cudaGraphLaunch(x, s));
        CHECK(cudaGraphLaunch(y, s));
        CHECK(cudaStreamSynchronize(s));
        is("allocated in one, freed in another", out[0] == 6 && out[n - 1] == 2 * (n + 2));
    }
    CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaMemcpyAsync(out.data(), p, n * 4, cudaMemcpyDeviceToHost, s));
    CHECK(cudaFreeAsync(p, s));
    CHECK(cudaStreamSynchronize(s));
    is("freed outside", out[1] == 4);
    CHECK(cudaGraphExecDestroy(x));
    CHECK(cudaGraphExecDestroy(y));
    CHECK(cudaGraphDestroy(g));
    CHECK(cudaGraphDestroy(h));
}

static void footprint()
{
    const size_t bytes = 16u << 20;
    unsigned long long used = 1, reserved = 1, zero = 0;
    cudaGraph_t g[3];
    cudaGraphExec_t x[3];
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    for (int i = 0; i < 3; i++) {
        int *p = nullptr;
        CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
        CHECK(cudaMallocAsync((void **)&p, bytes, s));
        fill<<<16, 256, 0, s>>>(p, i, 4096);
        CHECK(cudaFreeAsync(p, s));
        CHECK(cudaStreamEndCapture(s, &g[i]));
        CHECK(cudaGraphInstantiate(&x[i], g[i], 0));
        CHECK(cudaGraphUpload(x[i], s));
        CHECK(cudaGraphLaunch(x[i], s));
    }
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrUsedMemCurrent, &used));
    CHECK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrReservedMemCurrent, &reserved));
    printf("used %llu reserved %d\n", used, reserved >= bytes);
    for (int i = 0; i < 3; i++) {
        CHECK(cudaGraphExecDestroy(x[i]));
        CHECK(cudaGraphDestroy(g[i]));
    }
    CHECK(cudaDeviceGraphMemTrim(0));
    CHECK(cudaDeviceSetGraphMemAttribute(0, cudaGraphMemAttrReservedMemHigh, &zero));
    CHECK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrReservedMemCurrent, &reserved));
    is("trimmed", reserved == 0);
}

/* ---- jacobiCudaGraphs: one iteration, launched again and again, three ways ---- */

struct Jacobi {
    enum { N = 4096 };
    std::vector<float> a = std::vector<float>(N), end = std::vector<float>(N);
    float *d_a = nullptr, *x = nullptr, *y = nullptr;
    cudaStream_t s = nullptr;
    Jacobi()
    {
        for (int i = 0; i < N; i++)
            a[i] = float(i % 5);
        cudaMalloc(&d_a, N * 4), cudaMalloc(&x, N * 4), cudaMalloc(&y, N * 4);
        cudaStreamCreate(&s);
        cudaMemcpy(d_a, a.data(), N * 4, cudaMemcpyHostToDevice);
        cudaMemset(x, 0, N * 4);
    }
    bool right(const float *last)
    {
        cudaMemcpy(end.data(), last, N * 4, cudaMemcpyDeviceToHost);
        for (int i = 0; i < N; i++)
            if (fabsf(end[i] - 2 * a[i]) > 1e-3f)
                return false;
        return true;
    }
};

static void jacobi_update()
{
    Jacobi j;
    cudaGraphExec_t exec = nullptr;
    int updated = 0;
    for (int i = 0; i < 20; i++) {
        cudaGraph_t g;
        CHECK(cudaStreamBeginCapture(j.s, cudaStreamCaptureModeGlobal));
        step<<<Jacobi::N / 256, 256, 0, j.s>>>(j.d_a, i % 2 ? j.y : j.x, i % 2 ? j.x : j.y, Jacobi::N);
        CHECK(cudaStreamEndCapture(j.s, &g));
        cudaGraphExecUpdateResultInfo info = {};
        if (!exec) {
            CHECK(cudaGraphInstantiate(&exec, g, 0));
        } else {
            CHECK(cudaGraphExecUpdate(exec, g, &info));
            updated += info.result == cudaGraphExecUpdateSuccess;
        }
        CHECK(cudaGraphDestroy(g));
        CHECK(cudaGraphLaunch(exec, j.s));
    }
    CHECK(cudaStreamSynchronize(j.s));
    printf("updated %d times\n", updated);
    is("by updates", j.right(j.x));
}

static void jacobi_params()
{
    Jacobi j;
    cudaGraph_t g;
    cudaGraphExec_t exec;
    cudaGraphNode_t node;
    int n = Jacobi::N;
    void *there[] = { &j.d_a, &j.x, &j.y, &n }, *back[] = { &j.d_a, &j.y, &j.x, &n };
    cudaKernelNodeParams k = {};
    k.func = (void *)step, k.gridDim = n / 256, k.blockDim = 256, k.kernelParams = there;
    CHECK(cudaGraphCreate(&g, 0));
    CHECK(cudaGraphAddKernelNode(&node, g, nullptr, 0, &k));
    CHECK(cudaGraphInstantiate(&exec, g, 0));
    for (int i = 0; i < 20; i++) {
        k.kernelParams = i % 2 ? back : there;
        CHECK(cudaGraphExecKernelNodeSetParams(exec, node, &k));
        CHECK(cudaGraphLaunch(exec, j.s));
    }
    CHECK(cudaStreamSynchronize(j.s));
    is("by parameters", j.right(j.x));
}

/* ---- cudaGraphAddNode, kind by kind; objects that a graph keeps ---- */

static int destroyed;
static void CUDART_CB destroy(void *p) { destroyed += *(int *)p; }

static cudaGraphNode_t any(cudaGraph_t g, cudaGraphNode_t after, cudaGraphNodeParams &p)
{
    cudaGraphNode_t node = nullptr;
#if CUDART_VERSION >= 13000
    cudaError_t e = cudaGraphAddNode(&node, g, after ? &after : nullptr, nullptr, after ? 1 : 0, &p);
#else
    cudaError_t e = cudaGraphAddNode(&node, g, after ? &after : nullptr, after ? 1 : 0, &p);
#endif
    printf("node of type %d: %s\n", p.type, cudaGetErrorName(e));
    return node;
}

static void generic()
{
    const int n = 4096;
    int *d, v = 1, nr = n, weight = 1;
    std::vector<int> out(n);
    cudaGraph_t g, inner;
    cudaGraphExec_t x;
    cudaStream_t s;
    cudaEvent_t event;
    cudaUserObject_t object;
    Result unused = {};
    CHECK(cudaMalloc(&d, n * 4));
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaEventCreate(&event));
    CHECK(cudaGraphCreate(&g, 0));
    CHECK(cudaGraphCreate(&inner, 0));
    cudaGraphNodeParams kernel = { cudaGraphNodeTypeKernel }, host = { cudaGraphNodeTypeHost },
                        child = { cudaGraphNodeTypeGraph }, empty = { cudaGraphNodeTypeEmpty },
                        record = { cudaGraphNodeTypeEventRecord }, wait = { cudaGraphNodeTypeWaitEvent },
                        copy = { cudaGraphNodeTypeMemcpy };
    void *fill_args[] = { &d, &v, &nr }, *twice_args[] = { &d, &nr };
    kernel.kernel.func = (void *)twice, kernel.kernel.gridDim = n / 256, kernel.kernel.blockDim = 256;
    kernel.kernel.kernelParams = twice_args;
    any(inner, nullptr, kernel);
    kernel.kernel.func = (void *)fill, kernel.kernel.kernelParams = fill_args;
    cudaGraphNode_t last = any(g, nullptr, kernel);
    child.graph.graph = inner;
    last = any(g, last, child);
    host.host.fn = take, host.host.userData = &unused;
    last = any(g, last, host);
    record.eventRecord.event = event, wait.eventWait.event = event;
    last = any(g, last, record);
    last = any(g, last, wait);
    last = any(g, last, empty);
    copy.memcpy.copyParams.srcPtr = make_cudaPitchedPtr(d, n * 4, n, 1);
    copy.memcpy.copyParams.dstPtr = make_cudaPitchedPtr(out.data(), n * 4, n, 1);
    copy.memcpy.copyParams.extent = make_cudaExtent(n * 4, 1, 1);
    copy.memcpy.copyParams.kind = cudaMemcpyDeviceToHost;
    any(g, last, copy);
    CHECK(cudaUserObjectCreate(&object, &weight, destroy, 1, cudaUserObjectNoDestructorSync));
    CHECK(cudaGraphRetainUserObject(g, object, 1, cudaGraphUserObjectMove));
    CHECK(cudaGraphInstantiate(&x, g, 0));
    CHECK(cudaGraphDestroy(g));
    CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaStreamSynchronize(s));
    is("all kinds", out[0] == 2 && out[n - 1] == 2 * n && unused.calls == 1);
    printf("destroyed %d\n", destroyed);
    CHECK(cudaGraphExecDestroy(x));
}

static void to_graph()
{
    const int n = 4096;
    int *d, sum = 0;
    std::vector<int> out(n);
    cudaGraph_t g, ended;
    cudaGraphExec_t x;
    cudaGraphNode_t first;
    cudaStream_t s;
    CHECK(cudaMalloc(&d, n * 4));
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaGraphCreate(&g, 0));
    cudaMemsetParams m = {};
    m.dst = d, m.value = 1, m.elementSize = 4, m.width = n, m.height = 1;
    CHECK(cudaGraphAddMemsetNode(&first, g, nullptr, 0, &m));
    CHECK(cudaStreamBeginCaptureToGraph(s, g, &first, nullptr, 1, cudaStreamCaptureModeGlobal));
    twice<<<n / 256, 256, 0, s>>>(d, n);
    CHECK(cudaMemcpyAsync(out.data(), d, n * 4, cudaMemcpyDeviceToHost, s));
    CHECK(cudaStreamEndCapture(s, &ended));
    is("the same graph", ended == g);
    CHECK(cudaGraphInstantiate(&x, g, 0));
    CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaStreamSynchronize(s));
    for (int w : out)
        sum += w;
    is("captured into it", sum == 2 * n);
}

int main(int argc, char **argv)
{
    struct { const char *name; void (*run)(); } all[] = {
        { "simple", simple }, { "captured", captured }, { "memory_nodes", memory_nodes }, { "footprint", footprint },
        { "jacobi_update", jacobi_update }, { "jacobi_params", jacobi_params }, { "generic", generic },
        { "to_graph", to_graph },
    };
    for (auto &b : all)
        if (argc > 1 && !strcmp(argv[1], b.name)) {
            b.run();
            return failed;
        }
    for (auto &b : all)
        puts(b.name);
    return 2;
}
