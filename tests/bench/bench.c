/* SPDX-License-Identifier: Apache-2.0 */
/* Costs of single calls and copies through whatever libcuda.so.1 the loader finds: one JSON line a figure.
 * bench LABEL [figure,...]; compare.py runs it natively and through a vGPU in turn and prints ratios. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int CUresult, CUdevice;
typedef unsigned long long CUdeviceptr;
typedef void *CUcontext, *CUmodule, *CUfunction, *CUstream, *CUevent;

static struct {
    CUresult (*Init)(unsigned);
    CUresult (*DeviceGet)(CUdevice *, int);
    CUresult (*DevicePrimaryCtxRetain)(CUcontext *, CUdevice);
    CUresult (*CtxSetCurrent)(CUcontext);
    CUresult (*CtxSynchronize)(void);
    CUresult (*ModuleLoadData)(CUmodule *, const void *);
    CUresult (*ModuleGetFunction)(CUfunction *, CUmodule, const char *);
    CUresult (*MemAlloc_v2)(CUdeviceptr *, size_t);
    CUresult (*MemFree_v2)(CUdeviceptr);
    CUresult (*MemHostAlloc)(void **, size_t, unsigned);
    CUresult (*MemcpyHtoD_v2)(CUdeviceptr, const void *, size_t);
    CUresult (*MemcpyDtoH_v2)(void *, CUdeviceptr, size_t);
    CUresult (*MemcpyHtoDAsync_v2)(CUdeviceptr, const void *, size_t, CUstream);
    CUresult (*MemcpyDtoHAsync_v2)(void *, CUdeviceptr, size_t, CUstream);
    CUresult (*StreamCreate)(CUstream *, unsigned);
    CUresult (*StreamSynchronize)(CUstream);
    CUresult (*EventCreate)(CUevent *, unsigned);
    CUresult (*EventRecord)(CUevent, CUstream);
    CUresult (*EventQuery)(CUevent);
    CUresult (*StreamQuery)(CUstream);
    CUresult (*StreamWaitValue32_v2)(CUstream, CUdeviceptr, uint32_t, unsigned);
    CUresult (*StreamWriteValue32_v2)(CUstream, CUdeviceptr, uint32_t, unsigned);
    CUresult (*MemsetD8_v2)(CUdeviceptr, unsigned char, size_t);
    CUresult (*LaunchKernel)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                             CUstream, void **, void **);
} cu;

static const char *label, *only;
static CUstream stream;
static CUfunction six;
static CUdeviceptr buffer;
static CUcontext context;

#define CU(call) do { CUresult r_ = cu.call; if (r_) { fprintf(stderr, "bench: cu%s: %d\n", #call, r_); exit(1); } } while (0)

static const char *const PTX =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry six(.param .u64 p, .param .u64 q, .param .u32 a, .param .u32 b, .param .u32 c, .param .f32 d) {\n"
    " .reg .b64 %a; .reg .b32 %v;\n"
    " ld.param.u64 %a,[p]; ld.param.u32 %v,[a]; st.global.u32 [%a],%v; ret; }\n";

static void load(void)
{
    void *dl = dlopen("libcuda.so.1", RTLD_NOW);

    if (!dl) {
        fprintf(stderr, "bench: %s\n", dlerror());
        exit(1);
    }
#define SYM(name) do { *(void **)&cu.name = dlsym(dl, "cu" #name); \
    if (!cu.name) { fprintf(stderr, "bench: no symbol cu" #name "\n"); exit(1); } } while (0)
    SYM(Init); SYM(DeviceGet); SYM(DevicePrimaryCtxRetain); SYM(CtxSetCurrent); SYM(CtxSynchronize);
    SYM(ModuleLoadData); SYM(ModuleGetFunction); SYM(MemAlloc_v2); SYM(MemFree_v2); SYM(MemHostAlloc);
    SYM(MemcpyHtoD_v2); SYM(MemcpyDtoH_v2); SYM(MemcpyHtoDAsync_v2); SYM(MemcpyDtoHAsync_v2); SYM(StreamCreate);
    SYM(StreamSynchronize); SYM(EventCreate); SYM(EventRecord); SYM(EventQuery); SYM(StreamQuery);
    SYM(StreamWaitValue32_v2); SYM(StreamWriteValue32_v2); SYM(MemsetD8_v2);
    SYM(LaunchKernel);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int wanted(const char *name)
{
    return !only || strstr(only, name);
}

static void report(const char *name, double value, const char *unit)
{
    printf("{\"label\": \"%s\", \"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"}\n", label, name, value, unit);
    fflush(stdout);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

static void launch_on(CUstream s)
{
    static uint32_t a = 1, b = 2, c = 3;
    static float d = 4;
    void *params[] = { &buffer, &buffer, &a, &b, &c, &d };

    CU(LaunchKernel(six, 1, 1, 1, 32, 1, 1, 0, s, params, NULL));
}

static void launch(void)
{
    launch_on(stream);
}

/* What the application's thread pays for one launch while nothing is full: bursts of 200 between synchronizes. */
static void launch_call(void)
{
    double v[51];

    for (int i = 0; i < 51; i++) {
        CU(StreamSynchronize(stream));
        double t = now();
        for (int k = 0; k < 200; k++)
            launch();
        v[i] = (now() - t) / 200;
    }
    CU(StreamSynchronize(stream));
    report("launch_call", median(v, 51) * 1e9, "ns");
}

static void launch_rate(void)
{
    int n = 50000;
    double t = now();

    for (int k = 0; k < n; k++)
        launch();
    CU(StreamSynchronize(stream));
    report("launch_rate", n / (now() - t), "1/s");
}

static void round_trip(void)
{
    double v[1001];

    for (int i = 0; i < 1001; i++) {
        double t = now();
        CU(StreamSynchronize(stream));
        v[i] = now() - t;
    }
    report("sync_round_trip", median(v, 1001) * 1e6, "us");
    for (int i = 0; i < 501; i++) {
        launch();
        double t = now();
        CU(StreamSynchronize(stream));
        v[i] = now() - t;
    }
    report("launch_and_sync", median(v, 501) * 1e6, "us");
}

/* Round trip after the application did nothing for a while: finds waiters asleep. */
static void after_idle(void)
{
    static const unsigned gaps[] = { 10, 100, 1000, 10000, 100000 };

    for (unsigned g = 0; g < 5; g++) {
        double v[31];
        int n = gaps[g] > 10000 ? 11 : 31;
        char name[48];
        for (int i = 0; i < n; i++) {
            double t = now();
            if (gaps[g] < 1000)
                while (now() - t < gaps[g] * 1e-6)
                    ;
            else
                usleep(gaps[g]);
            t = now();
            CU(StreamSynchronize(stream));
            v[i] = now() - t;
        }
        snprintf(name, sizeof name, "sync_after_%uus", gaps[g]);
        report(name, median(v, n) * 1e6, "us");
    }
}

static void events(void)
{
    CUevent e[100];
    double t;

    for (int i = 0; i < 100; i++)
        CU(EventCreate(&e[i], 0));
    t = now();
    for (int k = 0; k < 20; k++) {
        for (int i = 0; i < 100; i++)
            CU(EventRecord(e[i], stream));
        for (int i = 0; i < 100; i++)
            cu.EventQuery(e[i]);
    }
    report("event_record_query", (now() - t) / 2000 * 1e6, "us");
    CU(StreamSynchronize(stream));
}

/* A complete event, asked about at once and behind launches that nobody has executed. */
static void done_event(void)
{
    double v[31], w[31], t;
    CUevent e;

    CU(EventCreate(&e, 2));
    for (int i = 0; i < 31; i++) {
        CU(EventRecord(e, stream));
        CU(StreamSynchronize(stream));
        t = now();
        CU(EventQuery(e));
        v[i] = now() - t;
        for (int k = 0; k < 500; k++)
            launch();
        t = now();
        CU(EventQuery(e));
        w[i] = now() - t;
    }
    report("query_done_event", median(v, 31) * 1e6, "us");
    report("query_behind_launches", median(w, 31) * 1e6, "us");
    CU(StreamSynchronize(stream));
}

static void *flood(void *held)
{
    CU(CtxSetCurrent(context));
    for (int i = 0; i < 1500; i++)
        launch_on(held);
    return NULL;
}

/* A thread launches on a stream that stands still, until it blocks; this one asks about another stream meanwhile. */
static void full_queue(void)
{
    CUstream held, opener;
    pthread_t thread;
    double v[101];

    CU(StreamCreate(&held, 1));
    CU(StreamCreate(&opener, 1));
    CU(MemsetD8_v2(buffer, 0, 4096));
    CU(CtxSynchronize());
    CU(StreamWaitValue32_v2(held, buffer + 64, 1, 0));
    pthread_create(&thread, NULL, flood, held);
    usleep(50000);
    for (int i = 0; i < 101; i++) {
        double t = now();
        CU(StreamQuery(stream));
        v[i] = now() - t;
    }
    CU(StreamWriteValue32_v2(opener, buffer + 64, 1, 0));
    pthread_join(thread, NULL);
    CU(CtxSynchronize());
    report("query_beside_full_queue", median(v, 101) * 1e6, "us");
}

static void copy(const char *kind, void *host, size_t bytes)
{
    int n = bytes > (16u << 20) ? 4 : bytes > 65536 ? 20 : 200;
    int pinned = !strcmp(kind, "pinned");
    double in[5], out[5];
    char name[64];

    for (int r = 0; r < 5; r++) {
        double t = now();
        for (int i = 0; i < n; i++)
            if (pinned)
                CU(MemcpyHtoDAsync_v2(buffer, host, bytes, stream));
            else
                CU(MemcpyHtoD_v2(buffer, host, bytes));
        CU(StreamSynchronize(stream));
        in[r] = (double)bytes * n / (now() - t) / 1e9;
        t = now();
        for (int i = 0; i < n; i++)
            if (pinned)
                CU(MemcpyDtoHAsync_v2(host, buffer, bytes, stream));
            else
                CU(MemcpyDtoH_v2(host, buffer, bytes));
        CU(StreamSynchronize(stream));
        out[r] = (double)bytes * n / (now() - t) / 1e9;
    }
    snprintf(name, sizeof name, "h2d_%s_%zuk", kind, bytes >> 10);
    report(name, median(in, 5), "GB/s");
    snprintf(name, sizeof name, "d2h_%s_%zuk", kind, bytes >> 10);
    report(name, median(out, 5), "GB/s");
}

static void copies(size_t most)
{
    static const size_t sizes[] = { 4096, 65536, 1 << 20, 16 << 20, 64 << 20 };
    void *pinned, *pageable = malloc(most);

    CU(MemHostAlloc(&pinned, most, 0));
    memset(pinned, 1, most);
    memset(pageable, 1, most);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] <= most; i++) {
        copy("pinned", pinned, sizes[i]);
        copy("pageable", pageable, sizes[i]);
    }
    free(pageable);
}

static void allocations(void)
{
    double t = now();
    CUdeviceptr p;

    for (int i = 0; i < 200; i++) {
        CU(MemAlloc_v2(&p, 2 << 20));
        CU(MemFree_v2(p));
    }
    report("alloc_free_2MiB", (now() - t) / 200 * 1e6, "us");
}

int main(int argc, char **argv)
{
    size_t most = getenv("BENCH_MAX_MIB") ? strtoul(getenv("BENCH_MAX_MIB"), NULL, 10) << 20 : 64u << 20;
    CUdevice d;
    CUmodule m;
    double t = now();

    alarm(300); /* a hang is a failure */
    label = argc > 1 ? argv[1] : "?";
    only = argc > 2 ? argv[2] : NULL;
    load();
    CU(Init(0));
    CU(DeviceGet(&d, 0));
    CU(DevicePrimaryCtxRetain(&context, d));
    CU(CtxSetCurrent(context));
    CU(ModuleLoadData(&m, PTX));
    CU(ModuleGetFunction(&six, m, "six"));
    CU(StreamCreate(&stream, 1));
    CU(MemAlloc_v2(&buffer, most));
    launch();
    CU(CtxSynchronize());
    report("first_launch", (now() - t) * 1e3, "ms");
    if (wanted("launch_call"))
        launch_call();
    if (wanted("launch_rate"))
        launch_rate();
    if (wanted("round_trip"))
        round_trip();
    if (wanted("idle"))
        after_idle();
    if (wanted("events"))
        events();
    if (wanted("done_event"))
        done_event();
    if (wanted("full_queue"))
        full_queue();
    if (wanted("copies"))
        copies(most);
    if (wanted("alloc"))
        allocations();
    return 0;
}
