// SPDX-License-Identifier: Apache-2.0
// Bodies on what the common CUDA samples use: `samples NAME` checks itself and prints what does not depend on the executor.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static int failed;

#define CHECK(call)                                                                            \
    do {                                                                                       \
        cudaError_t e_ = (call);                                                               \
        if (e_ != cudaSuccess) {                                                               \
            printf("%s:%d %s: %s\n", __func__, __LINE__, #call, cudaGetErrorName(e_));         \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* A function of the driver API as the runtime finds it: no program links the driver. */
template <typename... P> static void driver(const char *name, P... args)
{
    void *entry = nullptr;
    cudaDriverEntryPointQueryResult found;
    CHECK(cudaGetDriverEntryPointByVersion(name, &entry, 12000, cudaEnableDefault, &found));
    CUresult r = entry ? ((CUresult(*)(P...))entry)(args...) : CUDA_ERROR_NOT_FOUND;
    if (r != CUDA_SUCCESS) {
        printf("%s: %d\n", name, (int)r);
        exit(1);
    }
}

static void is(const char *what, bool right)
{
    printf("%s: %s\n", what, right ? "right" : "WRONG");
    failed |= !right;
}
static void gives(const char *what, cudaError_t got, cudaError_t wanted)
{
    printf("%s: %s\n", what, cudaGetErrorName(got));
    failed |= got != wanted;
}

__global__ void add_number(int *p, int n, int number)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] += number;
}
__global__ void twice(int *p, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] *= 2;
}
__constant__ int table[64];
__device__ int counters[64];
__global__ void from_table(int *p) { p[threadIdx.x] = table[threadIdx.x] + counters[threadIdx.x]; }
__global__ void count_up() { atomicAdd(&counters[threadIdx.x], (int)threadIdx.x); }

__global__ void reduce(const int *in, int *out, int n)
{
    extern __shared__ int part[];
    int sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += in[i];
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int k = blockDim.x / 2; k; k /= 2) {
        if ((int)threadIdx.x < k)
            part[threadIdx.x] += part[threadIdx.x + k];
        __syncthreads();
    }
    if (!threadIdx.x)
        atomicAdd(out, part[0]);
}

__global__ void votes(const int *in, unsigned *out)
{
    int i = threadIdx.x, v = in[i];
    unsigned any = __any_sync(~0u, v > 5), all = __all_sync(~0u, v >= 0), ballot = __ballot_sync(~0u, v & 1);
    int sum = v;
    for (int k = 16; k; k /= 2)
        sum += __shfl_xor_sync(~0u, sum, k);
    int up = __shfl_up_sync(~0u, v, 1), first = __shfl_sync(~0u, v, 3);
    out[i * 5 + 0] = any | all << 1;
    out[i * 5 + 1] = ballot;
    out[i * 5 + 2] = (unsigned)sum;
    out[i * 5 + 3] = (unsigned)up;
    out[i * 5 + 4] = (unsigned)first;
}

/* ---- deviceQuery ---- */
static void query()
{
    int n = 0, runtime = 0, low = 0, high = 0, value = 0;
    size_t free_bytes = 0, total = 0;
    CHECK(cudaGetDeviceCount(&n));
    CHECK(cudaRuntimeGetVersion(&runtime));
    for (int d = 0; d < n; d++) {
        cudaDeviceProp p;
        char bus[32] = "";
        int back = -1;
        CHECK(cudaSetDevice(d));
        CHECK(cudaGetDeviceProperties(&p, d));
        CHECK(cudaDeviceGetPCIBusId(bus, sizeof bus, d));
        CHECK(cudaDeviceGetByPCIBusId(&back, bus));
        CHECK(cudaMemGetInfo(&free_bytes, &total));
        is("bus id names its device", back == d);
        is("one total", total == p.totalGlobalMem && free_bytes <= total);
        printf("%d.%d warp %d block %d grid %d constant %zu texture %d\n", p.major, p.minor, p.warpSize,
               p.maxThreadsPerBlock, p.maxGridSize[1], p.totalConstMem, p.maxTexture1D > 0);
        printf("unified %d mapped %d\n", p.unifiedAddressing, p.canMapHostMemory);
    }
    CHECK(cudaDeviceGetStreamPriorityRange(&low, &high));
    is("priorities", low >= high);
    CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxThreadsPerMultiProcessor, 0));
    is("threads of a multiprocessor", value >= 1024 && value % 32 == 0);
    gives("no such device", cudaSetDevice(n), cudaErrorInvalidDevice);
    gives("the last error", cudaGetLastError(), cudaErrorInvalidDevice);
    gives("no error left", cudaGetLastError(), cudaSuccess);
}

/* ---- asyncAPI ---- */
static void async()
{
    const int n = 1 << 20;
    int *h, *d;
    cudaEvent_t start, stop;
    float ms = -1;
    CHECK(cudaMallocHost(&h, n * 4));
    CHECK(cudaMalloc(&d, n * 4));
    memset(h, 0, n * 4);
    CHECK(cudaMemset(d, 255, n * 4));
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    CHECK(cudaEventRecord(start, 0));
    CHECK(cudaMemcpyAsync(d, h, n * 4, cudaMemcpyHostToDevice, 0));
    add_number<<<n / 512, 512, 0, 0>>>(d, n, 26);
    CHECK(cudaMemcpyAsync(h, d, n * 4, cudaMemcpyDeviceToHost, 0));
    CHECK(cudaEventRecord(stop, 0));
    cudaError_t e;
    while ((e = cudaEventQuery(stop)) == cudaErrorNotReady)
        ;
    CHECK(e);
    CHECK(cudaEventElapsedTime(&ms, start, stop));
    is("time passed", ms > 0);
    int wrong = 0;
    for (int i = 0; i < n; i++)
        wrong += h[i] != 26;
    is("values", !wrong);
    CHECK(cudaEventDestroy(stop));
    CHECK(cudaEventCreateWithFlags(&stop, cudaEventDisableTiming));
    CHECK(cudaEventRecord(stop, 0));
    gives("time of an event without timing", cudaEventElapsedTime(&ms, start, stop), cudaErrorInvalidResourceHandle);
    cudaGetLastError();
    CHECK(cudaEventDestroy(start));
    CHECK(cudaEventDestroy(stop));
    CHECK(cudaFreeHost(h));
    CHECK(cudaFree(d));
}

/* ---- simpleStreams, stream priorities ---- */
static void streams()
{
    const int n = 1 << 18, parts = 4;
    int *h, *d, low, high, priority;
    unsigned flags;
    cudaStream_t s[parts];
    CHECK(cudaDeviceGetStreamPriorityRange(&low, &high));
    CHECK(cudaHostAlloc(&h, n * 4, cudaHostAllocDefault));
    CHECK(cudaMalloc(&d, n * 4));
    for (int i = 0; i < parts; i++)
        CHECK(cudaStreamCreateWithPriority(&s[i], cudaStreamNonBlocking, i % 2 ? high : low));
    CHECK(cudaStreamGetPriority(s[1], &priority));
    CHECK(cudaStreamGetFlags(s[1], &flags));
    is("priority and flags", priority == high && flags == cudaStreamNonBlocking);
    CHECK(cudaMemset(d, 0, n * 4));
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < parts; i++) {
            int at = i * (n / parts);
            add_number<<<n / parts / 256, 256, 0, s[i]>>>(d + at, n / parts, i + 1);
            CHECK(cudaMemcpyAsync(h + at, d + at, n / parts * 4, cudaMemcpyDeviceToHost, s[i]));
        }
    for (int i = 0; i < parts; i++)
        CHECK(cudaStreamSynchronize(s[i]));
    int wrong = 0;
    for (int i = 0; i < n; i++)
        wrong += h[i] != 3 * (i / (n / parts) + 1);
    is("each stream's part", !wrong);
    for (int i = 0; i < parts; i++) {
        gives("query", cudaStreamQuery(s[i]), cudaSuccess);
        CHECK(cudaStreamDestroy(s[i]));
    }
    cudaGetLastError();
    CHECK(cudaFreeHost(h));
    CHECK(cudaFree(d));
}

/* ---- simpleCudaGraphs ---- */
static void CUDART_CB note(void *p) { ++*(int *)p; }

static cudaGraphNode_t memset_node(cudaGraph_t g, void *d)
{
    cudaGraphNode_t node;
    cudaMemsetParams m = {};
    m.dst = d, m.value = 0, m.elementSize = 4, m.width = 1, m.height = 1;
    CHECK(cudaGraphAddMemsetNode(&node, g, nullptr, 0, &m));
    return node;
}

static cudaGraphNode_t kernel_node(cudaGraph_t g, cudaGraphNode_t *after, size_t nr, int *in, int *out, int n)
{
    cudaGraphNode_t node;
    cudaKernelNodeParams k = {};
    void *args[] = { &in, &out, &n };
    k.func = (void *)reduce, k.gridDim = dim3(8), k.blockDim = dim3(128), k.sharedMemBytes = 512;
    k.kernelParams = args;
    CHECK(cudaGraphAddKernelNode(&node, g, after, nr, &k));
    return node;
}

static void graph()
{
    const int n = 1 << 16;
    std::vector<int> h(n);
    int *in, *out, result = -1, notes = 0;
    for (int i = 0; i < n; i++)
        h[i] = i % 7;
    CHECK(cudaMalloc(&in, n * 4));
    CHECK(cudaMalloc(&out, 4));
    cudaGraph_t g, copy;
    cudaGraphExec_t x;
    cudaStream_t s;
    cudaGraphNode_t first[2], kernel, back, host;
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaGraphCreate(&g, 0));
    CHECK(cudaGraphAddMemcpyNode1D(&first[0], g, nullptr, 0, in, h.data(), n * 4, cudaMemcpyHostToDevice));
    first[1] = memset_node(g, out);
    kernel = kernel_node(g, first, 2, in, out, n);
    CHECK(cudaGraphAddMemcpyNode1D(&back, g, &kernel, 1, &result, out, 4, cudaMemcpyDeviceToHost));
    cudaHostNodeParams hp = { note, &notes };
    CHECK(cudaGraphAddHostNode(&host, g, &back, 1, &hp));
    size_t nodes = 0, roots = 0;
    CHECK(cudaGraphGetNodes(g, nullptr, &nodes));
    CHECK(cudaGraphGetRootNodes(g, nullptr, &roots));
    cudaGraphNodeType type;
    CHECK(cudaGraphNodeGetType(kernel, &type));
    printf("nodes %zu roots %zu kernel %d\n", nodes, roots, type == cudaGraphNodeTypeKernel);
    int wanted = 0;
    for (int v : h)
        wanted += v;
    CHECK(cudaGraphClone(&copy, g));
    CHECK(cudaGraphInstantiate(&x, g, 0));
    for (int i = 0; i < 2; i++) {
        result = -1;
        CHECK(cudaGraphLaunch(x, s));
        CHECK(cudaStreamSynchronize(s));
        is("result", result == wanted);
    }
    for (int &v : h)
        v *= 3; /* a memcpy node reads its source when the graph runs */
    CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaStreamSynchronize(s));
    is("source changed since", result == 3 * wanted);
    CHECK(cudaGraphExecDestroy(x));
    CHECK(cudaGraphDestroy(g));
    CHECK(cudaGraphInstantiate(&x, copy, 0));
    result = -1;
    CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaStreamSynchronize(s));
    is("clone", result == 3 * wanted);
    printf("host nodes ran %d\n", notes);
    CHECK(cudaGraphExecDestroy(x));
    CHECK(cudaGraphDestroy(copy));
    CHECK(cudaStreamDestroy(s));
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

static void capture()
{
    const int n = 4096;
    int *d, *h;
    cudaStream_t s, t;
    cudaEvent_t fork, join;
    cudaGraph_t g;
    cudaGraphExec_t x;
    cudaStreamCaptureStatus status;
    CHECK(cudaMalloc(&d, n * 4));
    CHECK(cudaMallocHost(&h, n * 4));
    CHECK(cudaMemset(d, 0, n * 4));
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaStreamCreate(&t));
    CHECK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    CHECK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    add_number<<<n / 256, 256, 0, s>>>(d, n, 1);
    CHECK(cudaEventRecord(fork, s));
    CHECK(cudaStreamWaitEvent(t, fork, 0));
    add_number<<<n / 512, 256, 0, t>>>(d, n / 2, 2);
    twice<<<n / 512, 256, 0, s>>>(d + n / 2, n / 2);
    CHECK(cudaEventRecord(join, t));
    CHECK(cudaStreamWaitEvent(s, join, 0));
    CHECK(cudaMemcpyAsync(h, d, n * 4, cudaMemcpyDeviceToHost, s));
    CHECK(cudaStreamIsCapturing(t, &status));
    printf("capturing %d\n", status == cudaStreamCaptureStatusActive);
    CHECK(cudaStreamEndCapture(s, &g));
    CHECK(cudaGraphInstantiate(&x, g, 0));
    for (int i = 0; i < 3; i++)
        CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaStreamSynchronize(s));
    is("fork and join", h[0] == 9 && h[n / 2 - 1] == 9 && h[n / 2] == 14 && h[n - 1] == 14);
    CHECK(cudaGraphExecDestroy(x));
    CHECK(cudaGraphDestroy(g));
    CHECK(cudaFreeHost(h));
    CHECK(cudaFree(d));
}

/* ---- simpleMultiCopy ---- */
static void multicopy()
{
    const int n = 1 << 18, parts = 4, rounds = 12;
    int *in[parts], *out[parts], *din[parts];
    cudaStream_t s[parts];
    cudaEvent_t done[parts];
    for (int i = 0; i < parts; i++) {
        CHECK(cudaHostAlloc(&in[i], n * 4, cudaHostAllocDefault));
        CHECK(cudaHostAlloc(&out[i], n * 4, cudaHostAllocDefault));
        CHECK(cudaMalloc(&din[i], n * 4));
        CHECK(cudaStreamCreate(&s[i]));
        CHECK(cudaEventCreate(&done[i]));
        CHECK(cudaEventRecord(done[i], s[i]));
    }
    int wrong = 0;
    for (int r = 0; r < rounds; r++) {
        int i = r % parts;
        CHECK(cudaEventSynchronize(done[i]));
        for (int k = 0; r >= parts && k < n; k += 97)
            wrong += out[i][k] != 2 * (r - parts + k);
        for (int k = 0; k < n; k++)
            in[i][k] = r + k;
        CHECK(cudaMemcpyAsync(din[i], in[i], n * 4, cudaMemcpyHostToDevice, s[i]));
        twice<<<n / 256, 256, 0, s[i]>>>(din[i], n);
        CHECK(cudaMemcpyAsync(out[i], din[i], n * 4, cudaMemcpyDeviceToHost, s[i]));
        CHECK(cudaEventRecord(done[i], s[i]));
    }
    CHECK(cudaDeviceSynchronize());
    is("overlapped copies", !wrong);
    for (int i = 0; i < parts; i++) {
        CHECK(cudaFreeHost(in[i]));
        CHECK(cudaFreeHost(out[i]));
        CHECK(cudaFree(din[i]));
        CHECK(cudaStreamDestroy(s[i]));
        CHECK(cudaEventDestroy(done[i]));
    }
}

/* ---- simpleVoteIntrinsics, shuffles ---- */
static void vote()
{
    int h[32], *in;
    unsigned out[32 * 5], *d, ballot = 0, wrong = 0;
    int sum = 0;
    for (int i = 0; i < 32; i++)
        h[i] = i * i % 11, ballot |= (unsigned)(h[i] & 1) << i, sum += h[i];
    CHECK(cudaMalloc(&in, sizeof h));
    CHECK(cudaMalloc(&d, sizeof out));
    CHECK(cudaMemcpy(in, h, sizeof h, cudaMemcpyHostToDevice));
    votes<<<1, 32>>>(in, d);
    CHECK(cudaMemcpy(out, d, sizeof out, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; i++)
        wrong += out[i * 5] != 3 || out[i * 5 + 1] != ballot || out[i * 5 + 2] != (unsigned)sum ||
                 out[i * 5 + 3] != (unsigned)h[i ? i - 1 : 0] || out[i * 5 + 4] != (unsigned)h[3];
    is("votes and shuffles", !wrong);
    CHECK(cudaFree(in));
    CHECK(cudaFree(d));
}

/* ---- symbols ---- */
static void symbols()
{
    int h[64], zero[64] = {}, *d, back[64], *address;
    size_t bytes = 0;
    for (int i = 0; i < 64; i++)
        h[i] = 1000 + i;
    CHECK(cudaMemcpyToSymbol(table, h, sizeof h));
    CHECK(cudaMemcpyToSymbol(counters, zero, sizeof zero));
    for (int i = 0; i < 3; i++)
        count_up<<<1, 64>>>();
    CHECK(cudaMalloc(&d, sizeof h));
    from_table<<<1, 64>>>(d);
    CHECK(cudaMemcpy(back, d, sizeof back, cudaMemcpyDeviceToHost));
    is("constant and device variables", back[0] == 1000 && back[63] == 1063 + 3 * 63);
    CHECK(cudaMemcpyFromSymbol(back, counters, 8, 40));
    is("a part of a symbol", back[0] == 30 && back[1] == 33);
    CHECK(cudaGetSymbolSize(&bytes, table));
    CHECK(cudaGetSymbolAddress((void **)&address, counters));
    CHECK(cudaMemcpy(back, address + 63, 4, cudaMemcpyDeviceToHost));
    printf("size %zu last %d\n", bytes, back[0]);
    gives("beyond a symbol", cudaMemcpyToSymbol(table, h, sizeof h, 4), cudaErrorInvalidValue);
    cudaGetLastError();
    CHECK(cudaFree(d));
}

/* ---- function attributes, occupancy, extended launch ---- */
static void attributes()
{
    cudaFuncAttributes a;
    int blocks = 0, grid = 0, block = 0, *d, *sum, out = 0, n = 4096;
    CHECK(cudaFuncGetAttributes(&a, reduce));
    is("function attributes", a.maxThreadsPerBlock >= 128 && a.sharedSizeBytes == 0 && a.numRegs > 0);
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, twice, 256, 0));
    CHECK(cudaOccupancyMaxPotentialBlockSize(&grid, &block, twice, 0, 0));
    is("occupancy", blocks >= 1 && grid >= 1 && block >= 32);
    CHECK(cudaFuncSetAttribute(reduce, cudaFuncAttributeMaxDynamicSharedMemorySize, 48 * 1024));
    CHECK(cudaFuncSetCacheConfig(reduce, cudaFuncCachePreferShared));
    CHECK(cudaMalloc(&d, n * 4));
    CHECK(cudaMalloc(&sum, 4));
    CHECK(cudaMemset(d, 0, n * 4));
    CHECK(cudaMemset(sum, 0, 4));
    add_number<<<16, 256>>>(d, n, 3);
    cudaLaunchAttribute at[1] = {};
    at[0].id = cudaLaunchAttributePriority;
    at[0].val.priority = 0;
    cudaLaunchConfig_t c = {};
    c.gridDim = dim3(4), c.blockDim = dim3(64), c.dynamicSmemBytes = 256, c.attrs = at, c.numAttrs = 1;
    CHECK(cudaLaunchKernelEx(&c, reduce, (const int *)d, sum, n));
    CHECK(cudaMemcpy(&out, sum, 4, cudaMemcpyDeviceToHost));
    is("extended launch", out == 3 * n);
    c.dynamicSmemBytes = 64 << 20;
    gives("too much shared memory", cudaLaunchKernelEx(&c, reduce, (const int *)d, sum, n), cudaErrorInvalidValue);
    cudaGetLastError();
    CHECK(cudaFree(d));
    CHECK(cudaFree(sum));
}

/* ---- cudaMallocAsync and pools ---- */
static void pools()
{
    const int n = 1 << 16;
    cudaStream_t s;
    cudaMemPool_t pool, own;
    uint64_t threshold = 1 << 20, got = 0, used = 0;
    int *p, *q, out = 0;
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
    CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
    CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &got));
    is("threshold", got == threshold);
    for (int i = 0; i < 20; i++) {
        CHECK(cudaMallocAsync(&p, n * 4, s));
        CHECK(cudaMemsetAsync(p, 0, n * 4, s));
        add_number<<<n / 256, 256, 0, s>>>(p, n, i);
        CHECK(cudaMemcpyAsync(&out, p + n - 1, 4, cudaMemcpyDeviceToHost, s));
        CHECK(cudaFreeAsync(p, s));
        CHECK(cudaStreamSynchronize(s));
        failed |= out != i;
    }
    printf("last %d\n", out);
    cudaMemPoolProps props = {};
    props.allocType = cudaMemAllocationTypePinned;
    props.location.type = cudaMemLocationTypeDevice;
    CHECK(cudaMemPoolCreate(&own, &props));
    CHECK(cudaMallocFromPoolAsync(&q, 1 << 20, own, s));
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaMemPoolGetAttribute(own, cudaMemPoolAttrUsedMemCurrent, &used));
    is("used", used >= 1 << 20);
    CHECK(cudaFreeAsync(q, s));
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaMemPoolGetAttribute(own, cudaMemPoolAttrUsedMemCurrent, &used));
    is("given back", used == 0);
    CHECK(cudaMemPoolTrimTo(own, 0));
    CHECK(cudaMemPoolDestroy(own));
    CHECK(cudaStreamDestroy(s));
}

/* ---- copies in three dimensions ---- */
static void volume()
{
    const size_t w = 40, h = 9, depth = 5;
    std::vector<unsigned char> a(w * h * depth), b(a.size());
    for (size_t i = 0; i < a.size(); i++)
        a[i] = (unsigned char)(i * 13 + 1);
    cudaPitchedPtr d;
    CHECK(cudaMalloc3D(&d, make_cudaExtent(w, h, depth)));
    CHECK(cudaMemset3D(d, 7, make_cudaExtent(w, h, depth)));
    cudaMemcpy3DParms in = {}, out = {};
    in.srcPtr = make_cudaPitchedPtr(a.data(), w, w, h);
    in.dstPtr = d;
    in.extent = make_cudaExtent(w - 8, h - 2, depth - 1);
    in.srcPos = make_cudaPos(8, 2, 1);
    in.dstPos = make_cudaPos(4, 1, 1);
    in.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&in));
    out.srcPtr = d;
    out.dstPtr = make_cudaPitchedPtr(b.data(), w, w, h);
    out.extent = make_cudaExtent(w, h, depth);
    out.kind = cudaMemcpyDeviceToHost;
    CHECK(cudaMemcpy3DAsync(&out, 0));
    CHECK(cudaDeviceSynchronize());
    int wrong = 0;
    for (size_t z = 0; z < depth; z++)
        for (size_t y = 0; y < h; y++)
            for (size_t x = 0; x < w; x++) {
                bool in_box = x >= 4 && x < w - 4 && y >= 1 && y < h - 1 && z >= 1;
                unsigned char want = in_box ? a[z * w * h + (y + 1) * w + x + 4] : 7;
                wrong += b[(z * h + y) * w + x] != want;
            }
    is("box in a volume", !wrong);
    CHECK(cudaFree(d.ptr));
}

/* ---- managed memory ---- */
static void managed()
{
    int *p = nullptr, value = 0;
    CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrManagedMemory, 0));
    cudaError_t e = cudaMallocManaged(&p, 4096 * 4);
    if (e == cudaErrorNotSupported) {
        is("refused where the attribute says so", !value);
        return;
    }
    CHECK(e);
    for (int i = 0; i < 4096; i++)
        p[i] = i;
    twice<<<16, 256>>>(p, 4096);
    CHECK(cudaDeviceSynchronize());
    is("managed", p[0] == 0 && p[4095] == 2 * 4095);
    CHECK(cudaFree(p));
}

/* ---- copies between devices, which may be one ---- */
static void peer()
{
    int n = 0, h = 77, out = 0, *a, *b;
    CHECK(cudaGetDeviceCount(&n));
    CHECK(cudaSetDevice(0));
    CHECK(cudaMalloc(&a, 4));
    CHECK(cudaMemcpy(a, &h, 4, cudaMemcpyHostToDevice));
    CHECK(cudaSetDevice(n - 1));
    CHECK(cudaMalloc(&b, 4));
    CHECK(cudaMemcpyPeer(b, n - 1, a, 0, 4));
    CHECK(cudaMemcpy(&out, b, 4, cudaMemcpyDeviceToHost));
    is("cudaMemcpyPeer", out == 77);
    CHECK(cudaMemsetAsync(a, 1, 4));
    CHECK(cudaMemcpyPeerAsync(a, 0, b, n - 1, 4, 0));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(&out, a, 4, cudaMemcpyDefault));
    is("cudaMemcpyPeerAsync", out == 77);
    int can = -1;
    CHECK(cudaDeviceCanAccessPeer(&can, 0, 0));
    printf("a device is no peer of itself: %d\n", can);
    printf("peer access to itself: %s\n", cudaGetErrorName(cudaDeviceEnablePeerAccess(n - 1, 0)));
    cudaGetLastError();
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
}

/* ---- the driver API in the runtime's context ---- */
static void mixed()
{
    CUcontext context = nullptr, primary = nullptr;
    CUdevice device;
    CUdeviceptr base = 0;
    size_t bytes = 0;
    int *p, active = 0, out[4] = {};
    unsigned flags = 0;
    CHECK(cudaMalloc(&p, 4096));
    driver("cuCtxGetCurrent", &context);
    driver("cuCtxGetDevice", &device);
    driver("cuDevicePrimaryCtxGetState", device, &flags, &active);
    driver("cuDevicePrimaryCtxRetain", &primary, device);
    is("one primary context", context && context == primary && active);
    driver("cuMemsetD32", (CUdeviceptr)p, 41u, (size_t)1024);
    add_number<<<4, 256>>>(p, 1024, 1);
    driver("cuMemcpyDtoH", (void *)out, (CUdeviceptr)(p + 1020), (size_t)16);
    is("memory of both", out[0] == 42 && out[3] == 42);
    driver("cuMemGetAddressRange", &base, &bytes, (CUdeviceptr)(p + 100));
    is("address range", base == (CUdeviceptr)p && bytes == 4096);
    driver("cuDevicePrimaryCtxRelease", device);
    CHECK(cudaFree(p));
    CHECK(cudaDeviceReset());
    driver("cuDevicePrimaryCtxGetState", device, &flags, &active);
    printf("active after the reset %d\n", active);
    CHECK(cudaMalloc(&p, 4096));
    CHECK(cudaFree(p));
}

int main(int argc, char **argv)
{
    const struct { const char *name; void (*run)(); } all[] = {
        { "query", query }, { "async", async }, { "streams", streams }, { "graph", graph }, { "capture", capture },
        { "multicopy", multicopy }, { "vote", vote }, { "symbols", symbols }, { "attributes", attributes },
        { "pools", pools }, { "volume", volume }, { "managed", managed }, { "peer", peer }, { "mixed", mixed },
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
