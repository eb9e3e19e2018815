// SPDX-License-Identifier: Apache-2.0
// Test bodies on the runtime API: `bodies NAME` prints results that must not depend on who executes them.
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace cg = cooperative_groups;

#define CHECK(call)                                                                            \
    do {                                                                                       \
        cudaError_t e_ = (call);                                                               \
        if (e_ != cudaSuccess) {                                                               \
            printf("%s:%d %s: %s\n", __func__, __LINE__, #call, cudaGetErrorName(e_));         \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

static void say(const char *what, cudaError_t e) { printf("%s: %s\n", what, cudaGetErrorName(e)); }

__global__ void add(const float *a, const float *b, float *c, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        c[i] = a[i] + b[i];
}
__global__ void scale(unsigned *p, unsigned k, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = p[i] * k + 1;
}
__global__ void spin(unsigned long long ticks)
{
    unsigned long long t = clock64();
    while (clock64() - t < ticks)
        ;
}
__global__ void poke(int *p) { *p = 1; }

static unsigned long long hash(const void *p, size_t n)
{
    unsigned long long h = 1469598103934665603ull;
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const unsigned char *)p)[i]) * 1099511628211ull;
    return h;
}

static void vectoradd()
{
    int n = 1 << 20;
    std::vector<float> a(n), b(n), c(n);
    float *da, *db, *dc;
    for (int i = 0; i < n; i++)
        a[i] = i * 0.5f, b[i] = n - i;
    CHECK(cudaMalloc(&da, n * 4));
    CHECK(cudaMalloc(&db, n * 4));
    CHECK(cudaMalloc(&dc, n * 4));
    CHECK(cudaMemcpy(da, a.data(), n * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(db, b.data(), n * 4, cudaMemcpyHostToDevice));
    add<<<(n + 255) / 256, 256>>>(da, db, dc, n);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy(c.data(), dc, n * 4, cudaMemcpyDeviceToHost));
    printf("vectoradd %016llx\n", hash(c.data(), n * 4));
    CHECK(cudaFree(da));
    CHECK(cudaFree(db));
    CHECK(cudaFree(dc));
}

static void streams()
{
    const int n = 1 << 22, parts = 4;
    unsigned *h, *d;
    cudaStream_t s[parts];
    cudaEvent_t begin, end;
    float ms;
    CHECK(cudaMallocHost(&h, n * 4));
    CHECK(cudaMalloc(&d, n * 4));
    for (int i = 0; i < n; i++)
        h[i] = i;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    CHECK(cudaEventRecord(begin));
    for (int i = 0; i < parts; i++) {
        int at = i * (n / parts);
        CHECK(cudaStreamCreate(&s[i]));
        CHECK(cudaMemcpyAsync(d + at, h + at, n / parts * 4, cudaMemcpyHostToDevice, s[i]));
        scale<<<n / parts / 256, 256, 0, s[i]>>>(d + at, 3 + i, n / parts);
        CHECK(cudaMemcpyAsync(h + at, d + at, n / parts * 4, cudaMemcpyDeviceToHost, s[i]));
    }
    CHECK(cudaEventRecord(end));
    cudaError_t query = cudaEventQuery(end);
    printf("query says done or not ready %d\n", query == cudaSuccess || query == cudaErrorNotReady);
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    printf("streams %016llx elapsed positive %d\n", hash(h, n * 4), ms > 0);
    /* order across streams by an event */
    cudaEvent_t e;
    CHECK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    CHECK(cudaMemset(d, 0, n * 4));
    spin<<<1, 1, 0, s[0]>>>(20000000);
    scale<<<n / 256, 256, 0, s[0]>>>(d, 5, n);
    CHECK(cudaEventRecord(e, s[0]));
    CHECK(cudaStreamWaitEvent(s[1], e, 0));
    scale<<<n / 256, 256, 0, s[1]>>>(d, 7, n);
    CHECK(cudaStreamSynchronize(s[1]));
    CHECK(cudaMemcpy(h, d, 4, cudaMemcpyDeviceToHost));
    printf("ordered %u\n", h[0]);
    for (int i = 0; i < parts; i++)
        CHECK(cudaStreamDestroy(s[i]));
    CHECK(cudaFreeHost(h));
    CHECK(cudaFree(d));
}

static void copies()
{
    size_t sizes[] = { 1, 3, 4096, 65535, 1 << 20, (5 << 20) + 7, (20 << 20) + 1 };
    for (size_t n : sizes) {
        unsigned char *pinned, *d, *d2;
        std::vector<unsigned char> a(n), b(n);
        for (size_t i = 0; i < n; i++)
            a[i] = (unsigned char)(i * 31 + n);
        CHECK(cudaMallocHost(&pinned, n));
        CHECK(cudaMalloc(&d, n + 3));
        CHECK(cudaMalloc(&d2, n + 3));
        CHECK(cudaMemcpy(d + 3, a.data(), n, cudaMemcpyHostToDevice));
        CHECK(cudaMemcpy(d2, d + 3, n, cudaMemcpyDeviceToDevice));
        CHECK(cudaMemcpy(pinned, d2, n, cudaMemcpyDefault));
        CHECK(cudaMemcpyAsync(d2 + 3, pinned, n, cudaMemcpyHostToDevice));
        CHECK(cudaMemcpyAsync(b.data(), d2 + 3, n, cudaMemcpyDeviceToHost));
        CHECK(cudaDeviceSynchronize());
        printf("copy %zu %d\n", n, a == b);
        CHECK(cudaFreeHost(pinned));
        CHECK(cudaFree(d));
        CHECK(cudaFree(d2));
    }
    unsigned char two[64 * 48], back[64 * 48];
    unsigned char *d;
    size_t pitch;
    for (int i = 0; i < 64 * 48; i++)
        two[i] = (unsigned char)(i * 7);
    CHECK(cudaMallocPitch(&d, &pitch, 40, 48));
    CHECK(cudaMemcpy2D(d, pitch, two + 3, 64, 40, 48, cudaMemcpyHostToDevice));
    memset(back, 0, sizeof back);
    CHECK(cudaMemcpy2D(back + 3, 64, d, pitch, 40, 48, cudaMemcpyDeviceToHost));
    int bad = 0;
    for (int r = 0; r < 48; r++)
        bad += memcmp(back + 3 + r * 64, two + 3 + r * 64, 40) != 0;
    printf("copy 2D wrong rows %d\n", bad);
    CHECK(cudaFree(d));
    say("copy from a null pointer", cudaMemcpy(d, nullptr, 4, cudaMemcpyHostToDevice));
}

static void graph()
{
    const int n = 1 << 16;
    unsigned *d, out[4] = { 0 };
    cudaStream_t s;
    cudaGraph_t g;
    cudaGraphExec_t x;
    size_t nodes = 0;
    CHECK(cudaMalloc(&d, n * 4));
    CHECK(cudaMemset(d, 0, n * 4));
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < 10; i++)
        scale<<<n / 256, 256, 0, s>>>(d, 3, n);
    CHECK(cudaStreamEndCapture(s, &g));
    CHECK(cudaGraphGetNodes(g, nullptr, &nodes));
    CHECK(cudaGraphInstantiate(&x, g, 0));
    for (int i = 0; i < 20; i++)
        CHECK(cudaGraphLaunch(x, s));
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaMemcpy(out, d, 16, cudaMemcpyDeviceToHost));
    printf("graph nodes %zu value %u\n", nodes, out[3]);
    CHECK(cudaGraphExecDestroy(x));
    CHECK(cudaGraphDestroy(g));
    CHECK(cudaStreamDestroy(s));
    CHECK(cudaFree(d));
}

__global__ void grid_sum(const unsigned *p, unsigned *partial, unsigned *total, int n)
{
    cg::grid_group grid = cg::this_grid();
    unsigned sum = 0;
    for (int i = grid.thread_rank(); i < n; i += grid.size())
        sum += p[i];
    atomicAdd(&partial[blockIdx.x], sum);
    grid.sync();
    if (grid.thread_rank() == 0)
        for (unsigned b = 0; b < gridDim.x; b++)
            *total += partial[b];
}

static void cooperative()
{
    int n = 1 << 20;
    unsigned *p, *partial, *total, out = 0;
    std::vector<unsigned> h(n);
    for (int i = 0; i < n; i++)
        h[i] = i % 1000;
    CHECK(cudaMalloc(&p, n * 4));
    CHECK(cudaMalloc(&partial, 16 * 4));
    CHECK(cudaMalloc(&total, 4));
    CHECK(cudaMemcpy(p, h.data(), n * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemset(partial, 0, 16 * 4));
    CHECK(cudaMemset(total, 0, 4));
    void *args[] = { &p, &partial, &total, &n };
    CHECK(cudaLaunchCooperativeKernel((void *)grid_sum, dim3(16), dim3(256), args, 0, 0));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(&out, total, 4, cudaMemcpyDeviceToHost));
    printf("cooperative %u\n", out);
    say("cooperative too large", cudaLaunchCooperativeKernel((void *)grid_sum, dim3(1 << 20), dim3(256), args, 0, 0));
}

static void fault()
{
    int *p;
    CHECK(cudaMalloc(&p, 4));
    poke<<<1, 1>>>((int *)0x10);
    say("launch of a faulting kernel", cudaGetLastError());
    say("synchronize", cudaDeviceSynchronize());
    say("malloc afterwards", cudaMalloc(&p, 4));
    say("launch afterwards", (poke<<<1, 1>>>(p), cudaGetLastError()));
}

static void errors()
{
    int *p;
    scale<<<1, 2000>>>(nullptr, 1, 1);
    say("block too large", cudaGetLastError());
    scale<<<0, 1>>>(nullptr, 1, 1);
    say("empty grid", cudaGetLastError());
    say("free of nonsense", cudaFree((void *)0x1234));
    say("huge malloc", cudaMalloc(&p, (size_t)1 << 50));
    say("peek after", cudaGetLastError());
    CHECK(cudaMalloc(&p, 4));
    poke<<<1, 1>>>(p);
    CHECK(cudaDeviceSynchronize());
    printf("still works\n");
}

static void host_callback(void *arg) { static int at; ((int *)arg)[at] = at + 1, at++; }

static void callbacks()
{
    static int seen[200];
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    for (int i = 0; i < 200; i++) {
        spin<<<1, 1, 0, s>>>(1000);
        CHECK(cudaLaunchHostFunc(s, host_callback, seen));
    }
    CHECK(cudaStreamSynchronize(s));
    printf("callbacks %016llx\n", hash(seen, sizeof seen));
}

static void threads()
{
    std::vector<std::thread> t;
    std::vector<unsigned> out(8);
    for (int k = 0; k < 8; k++)
        t.emplace_back([k, &out] {
            unsigned *d, v = k;
            cudaStream_t s;
            CHECK(cudaStreamCreate(&s));
            CHECK(cudaMalloc(&d, 4));
            CHECK(cudaMemcpyAsync(d, &v, 4, cudaMemcpyHostToDevice, s));
            for (int i = 0; i < 500; i++)
                scale<<<1, 32, 0, s>>>(d, 3, 1);
            CHECK(cudaMemcpyAsync(&out[k], d, 4, cudaMemcpyDeviceToHost, s));
            CHECK(cudaStreamSynchronize(s));
            CHECK(cudaFree(d));
        });
    for (auto &x : t)
        x.join();
    printf("threads %016llx\n", hash(out.data(), 32));
}

static void query()
{
    cudaDeviceProp p;
    int n, version;
    CHECK(cudaGetDeviceCount(&n));
    CHECK(cudaGetDeviceProperties(&p, 0));
    CHECK(cudaDriverGetVersion(&version));
    printf("devices %d driver %d name %s cc %d.%d sm %d warp %d threads %d shared %zu regs %d l2 %d\n", n, version, p.name,
           p.major, p.minor, p.multiProcessorCount, p.warpSize, p.maxThreadsPerBlock, p.sharedMemPerBlock,
           p.regsPerBlock, p.l2CacheSize);
}

static void mapped()
{
    unsigned *h, *d;
    CHECK(cudaHostAlloc(&h, 4096 * 4, cudaHostAllocMapped));
    for (int i = 0; i < 4096; i++)
        h[i] = i;
    CHECK(cudaHostGetDevicePointer(&d, h, 0));
    scale<<<16, 256>>>(d, 9, 4096);
    CHECK(cudaDeviceSynchronize());
    printf("mapped %016llx\n", hash(h, 4096 * 4));
    cudaPointerAttributes a;
    CHECK(cudaPointerGetAttributes(&a, h));
    printf("attributes %d\n", a.type);
}

__managed__ int managed_number = 5;
__managed__ int managed_table[5000];
__managed__ int *managed_link;
__global__ void use_managed()
{
    for (int i = threadIdx.x; i < 5000; i += blockDim.x)
        managed_table[i] = managed_table[i] * 2 + i;
    if (threadIdx.x == 0 && managed_link)
        *managed_link += 2;
}

static void managed()
{
    cudaPointerAttributes a;
    printf("at the start %d\n", managed_number);
    for (int i = 0; i < 5000; i++)
        managed_table[i] = 1;
    managed_link = &managed_number;
    use_managed<<<1, 256>>>();
    CHECK(cudaDeviceSynchronize());
    int bad = 0;
    for (int i = 0; i < 5000; i++)
        bad += managed_table[i] != 2 + i;
    printf("after a kernel %d, wrong %d\n", managed_number, bad);
    managed_number = 40;
    use_managed<<<1, 256>>>();
    CHECK(cudaStreamSynchronize(0));
    printf("after another %d %d\n", managed_number, managed_table[7]);
    CHECK(cudaPointerGetAttributes(&a, &managed_number));
    printf("type %d\n", a.type);
}

/* Destroyed after main: whatever the runtime answers then, the process must come through. */
static struct late {
    unsigned *p = nullptr;
    ~late()
    {
        if (!p)
            return;
        cudaDeviceSynchronize();
        cudaFree(p);
        printf("destructor came through\n");
    }
} late;

static void statics()
{
    CHECK(cudaMalloc(&late.p, 4096 * 4));
    CHECK(cudaMemset(late.p, 0, 4096 * 4));
    for (int i = 0; i < 20; i++)
        scale<<<16, 256>>>(late.p, 3, 4096);
    printf("end of main\n");
}

/* An exception that nobody catches, in a destructor's scope, with work in flight. */
static void thrown()
{
    statics();
    fflush(stdout);
    throw 1;
}

int main(int argc, char **argv)
{
    struct { const char *name; void (*run)(); } all[] = {
        { "query", query }, { "vectoradd", vectoradd }, { "streams", streams }, { "copies", copies }, { "graph", graph },
        { "cooperative", cooperative }, { "errors", errors }, { "callbacks", callbacks }, { "threads", threads },
        { "mapped", mapped }, { "managed", managed }, { "fault", fault },
        { "statics", statics }, { "thrown", thrown },
    };
    for (auto &b : all)
        if (argc > 1 && !strcmp(argv[1], b.name)) {
            b.run();
            return 0;
        }
    for (auto &b : all)
        puts(b.name);
    return 2;
}
