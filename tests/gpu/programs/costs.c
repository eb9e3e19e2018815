/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver takes of the card for what a program does, and what it costs to ask: prints facts, one a line. Natively, alone on the card. */
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

#include "program.h"

struct process { /* nvmlProcessInfo_t */
    unsigned pid;
    unsigned long long used;
    unsigned instance, compute_instance;
};
static int (*nvml_processes)(void *device, unsigned *nr, struct process *infos);
static void *nvml_device;

static void open_nvml(void)
{
    void *dl = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    int (*init)(void) = dl ? (int (*)(void))dlsym(dl, "nvmlInit_v2") : NULL;
    int (*by_index)(unsigned, void **) = dl ? (int (*)(unsigned, void **))dlsym(dl, "nvmlDeviceGetHandleByIndex_v2") : NULL;

    nvml_processes = dl ? (int (*)(void *, unsigned *, struct process *))dlsym(dl, "nvmlDeviceGetComputeRunningProcesses_v3") : NULL;
    if (!init || !by_index || init() || by_index(0, &nvml_device))
        nvml_processes = NULL;
}

/* By NVML; -1: it does not list this process. */
static long long listed(void)
{
    struct process all[64];
    unsigned nr = 64;

    if (!nvml_processes || nvml_processes(nvml_device, &nr, all))
        return -1;
    for (unsigned i = 0; i < nr; i++)
        if (all[i].pid == (unsigned)getpid())
            return (long long)all[i].used;
    return -1;
}

static size_t left_before;
static long long listed_before;

static size_t left(void)
{
    size_t free, total;

    MUST(cuMemGetInfo_v2(&free, &total));
    return free;
}

static void fact(const char *what)
{
    size_t now = left();
    long long by_nvml = listed();

    printf("%-60s card %9.3f MiB, NVML %9.3f MiB\n", what, ((double)left_before - (double)now) / (1 << 20),
           (double)(by_nvml - listed_before) / (1 << 20));
    left_before = now;
    listed_before = by_nvml;
}

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void latencies(void)
{
    double at = now_us(), then;

    for (int i = 0; i < 200; i++)
        left();
    then = now_us();
    printf("cuMemGetInfo: %.1f us\n", (then - at) / 200);
    at = now_us();
    for (int i = 0; i < 200; i++)
        listed();
    printf("nvmlDeviceGetComputeRunningProcesses_v3: %.1f us\n", (now_us() - at) / 200);
}

static CUmodule load(const char *declared, const char *body)
{
    static char text[1 << 20];
    CUmodule made;

    snprintf(text, sizeof(text), ".version 7.0\n.target sm_70\n.address_size 64\n%s\n.visible .entry k(.param .u64 p) {\n%s\n ret; }\n",
             declared, body);
    MUST(cuModuleLoadData(&made, text));
    return made;
}

static void run(CUmodule m)
{
    CUdeviceptr p = 0;
    CUfunction f;
    void *params[] = { &p };

    MUST(cuModuleGetFunction(&f, m, "k"));
    MUST(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    MUST(cuCtxSynchronize());
}

static const char *local_body(unsigned bytes)
{
    static char text[1024];

    snprintf(text, sizeof(text), ".local .align 4 .b8 a[%u]; .reg .b32 %%r<4>; .reg .b64 %%d<5>; .reg .pred %%q;\n"
             "mov.u32 %%r1,%%tid.x; mov.u64 %%d1,a; mul.wide.u32 %%d2,%%r1,4; add.u64 %%d1,%%d1,%%d2; st.local.u32 [%%d1],%%r1;\n"
             "ld.param.u64 %%d3,[p]; setp.eq.u64 %%q,%%d3,0; ld.local.u32 %%r2,[%%d1]; @%%q ret; st.global.u32 [%%d3],%%r2;", bytes);
    return text;
}

static void modules(void)
{
    CUmodule m;

    m = load("", "");
    fact("a module with an empty kernel");
    run(m);
    fact("its first launch");
    m = load(".visible .global .align 4 .b8 v[25165824];", "");
    fact("a module with a variable of 24 MiB");
    run(m);
    fact("its first launch");
    MUST(cuModuleUnload(m));
    fact("its end");
    for (int i = 0; i < 64; i++)
        run(load("", ""));
    fact("64 modules with a launch each");
    m = load("", local_body(1024));
    fact("a module with a kernel of 1 KiB of local memory");
    run(m);
    fact("its first launch");
    run(load("", local_body(4096)));
    fact("a kernel of 4 KiB of local memory, loaded and launched");
    run(load("", ""));
    fact("a kernel without, loaded and launched");
}

static void limits(void)
{
    MUST(cuCtxSetLimit(0, 8192));
    fact("a stack of 8192 bytes");
    run(load("", ""));
    fact("a launch after it");
    MUST(cuCtxSetLimit(0, 1024));
    fact("a stack of 1024 bytes");
    run(load("", ""));
    fact("a launch after it");
    MUST(cuCtxSetLimit(1, 32 << 20));
    fact("a printf buffer of 32 MiB");
    run(load("", ""));
    fact("a launch after it");
    MUST(cuCtxSetLimit(2, 64 << 20));
    fact("a malloc heap of 64 MiB");
    run(load("", ""));
    fact("a launch after it");
    run(load(".extern .func (.param .b64 r) malloc(.param .b64 n);",
             ".reg .b64 %a; .param .b64 n; .param .b64 r; mov.u64 %a,16; st.param.b64 [n],%a; call (r), malloc, (n);"));
    fact("a kernel that calls malloc, loaded and launched");
    run(load(".extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a); .global .align 1 .b8 t[3]={65,10,0};",
             ".reg .b64 %a; .param .b64 f; .param .b64 g; .param .b32 r; mov.u64 %a,t; cvta.global.u64 %a,%a; st.param.b64 [f],%a; "
             "mov.u64 %a,0; st.param.b64 [g],%a; call (r), vprintf, (f, g);"));
    fact("a kernel that calls printf, loaded and launched");
}

static void small(void)
{
    CUdeviceptr p[1000];
    CUDA_ARRAY3D_DESCRIPTOR d = { .Width = 100, .Height = 100, .Format = 0x20, .NumChannels = 1 };
    CUarray arrays[100];

    for (int i = 0; i < 1000; i++)
        MUST(cuMemAlloc_v2(&p[i], 1));
    fact("1000 allocations of 1 byte");
    for (int i = 0; i < 1000; i++)
        MUST(cuMemFree_v2(p[i]));
    fact("their end");
    for (int i = 0; i < 100; i++)
        MUST(cuMemAlloc_v2(&p[i], (1 << 20) + 1));
    fact("100 allocations of 1 MiB and 1 byte");
    for (int i = 0; i < 100; i++)
        MUST(cuMemFree_v2(p[i]));
    fact("their end");
    for (int i = 0; i < 100; i++)
        MUST(cuArray3DCreate_v2(&arrays[i], &d));
    fact("100 arrays of 100 x 100 floats");
    for (int i = 0; i < 100; i++)
        MUST(cuArrayDestroy(arrays[i]));
    fact("their end");
}

static void pools(void)
{
    CUmemPoolProps props = { .allocType = 1, .location = { 1, 0 } };
    CUmemoryPool pool[8];
    CUdeviceptr p;

    MUST(cuMemAllocAsync(&p, 1, NULL));
    fact("an allocation of 1 byte from the default pool");
    MUST(cuMemFreeAsync(p, NULL));
    MUST(cuStreamSynchronize(NULL));
    fact("its end");
    MUST(cuMemAllocAsync(&p, 100 << 20, NULL));
    fact("an allocation of 100 MiB from the default pool");
    MUST(cuMemFreeAsync(p, NULL));
    MUST(cuStreamSynchronize(NULL));
    fact("its end");
    for (int i = 0; i < 8; i++) {
        MUST(cuMemPoolCreate(&pool[i], &props));
        MUST(cuMemAllocFromPoolAsync(&p, 1, pool[i], NULL));
    }
    fact("8 pools with an allocation of 1 byte each");
}

static void others(void)
{
    CUstream s[64];
    CUcontext c, unused;
    CUevent e;
    CUdeviceptr p;

    MUST(cuMemAlloc_v2(&p, 1));
    for (int i = 0; i < 64; i++)
        MUST(cuStreamCreate(&s[i], 1));
    fact("64 streams");
    for (int i = 0; i < 64; i++)
        MUST(cuMemsetD8Async(p, 0, 1, s[i]));
    fact("used");
    for (int i = 0; i < 10000; i++)
        MUST(cuEventCreate(&e, 0));
    fact("10000 events");
    MUST(cuCtxCreate_v2(&c, 0, 0));
    MUST(cuCtxPopCurrent_v2(&unused));
    fact("another context");
    MUST(cuCtxCreate_v2(&c, 0, 0));
    MUST(cuCtxPopCurrent_v2(&unused));
    fact("a third context");
    MUST(cuCtxDestroy_v2(c));
    fact("its end");
}

int main(void)
{
    open_nvml();
    MUST(cuInit(0));
    printf("after cuInit NVML says %lld\n", listed());
    MUST(cuDevicePrimaryCtxRetain(&context, 0));
    MUST(cuCtxSetCurrent(context));
    left_before = left();
    listed_before = listed();
    printf("a bare context: NVML says %.3f MiB\n", (double)listed_before / (1 << 20));
    latencies();
    modules();
    limits();
    small();
    pools();
    others();
    return 0;
}
