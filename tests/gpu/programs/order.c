/* SPDX-License-Identifier: Apache-2.0 */
/* What waits for what: streams, events, copies of ordinary memory, host functions, and objects destroyed early. */
#include <pthread.h>
#include <unistd.h>

#include "program.h"

#define CU_STREAM_PER_THREAD ((CUstream)2)

static volatile int *flag; /* kernels of `hold` spin until it is set */
static CUdeviceptr value, copy;

static void hold(CUstream s)
{
    volatile int *p = flag;
    void *parameters[] = { &p };

    MUST(launch("await", 1, 1, s, parameters));
}

static void store(CUstream s, int v)
{
    void *parameters[] = { &value, &v };

    MUST(launch("store", 1, 1, s, parameters));
}

/* Kernels are loaded now: the driver may have to wait for all work when it loads one. */
static void ready(void)
{
    start();
    flag = pinned(4096);
    value = device_memory(1 << 20);
    copy = device_memory(1 << 20);
    *flag = 1;
    hold(NULL);
    store(NULL, 0);
    MUST(cuCtxSynchronize());
    *flag = 0;
    MUST(cuMemsetD32_v2(value, 0, 1024));
    MUST(cuMemsetD32_v2(copy, 0, 1024));
    MUST(cuCtxSynchronize());
}

static int read_back(CUdeviceptr p)
{
    int v = -1;

    MUST(cuMemcpyDtoH_v2(&v, p, 4));
    return v;
}

static void *set_later(void *unused)
{
    usleep(100000);
    *flag = 1;
    return unused;
}

static pthread_t release_later(void)
{
    pthread_t t;

    if (pthread_create(&t, NULL, set_later, NULL))
        exit(1);
    return t;
}

static void legacy(void)
{
    CUstream s, aside = NULL;

    ready();
    MUST(cuStreamCreate(&s, 0));
    aside = new_stream();
    hold(s);
    store(s, 5);
    MUST(cuMemcpyDtoDAsync_v2(copy, value, 4, NULL)); /* after all of s */
    SAY(cuStreamQuery(NULL));
    SAY(cuStreamQuery(s));
    MUST(cuMemsetD32Async(copy + 64, 9, 1, aside)); /* waits for nobody */
    SAY(cuStreamSynchronize(aside));
    *flag = 1;
    SAY(cuStreamSynchronize(NULL));
    printf("%d %d\n", read_back(copy), read_back(copy + 64));
}

/* Work on a blocking stream waits for the legacy stream's, on another it does not. */
static void after_legacy(void)
{
    CUstream s, aside;

    ready();
    MUST(cuStreamCreate(&s, 0));
    aside = new_stream();
    hold(NULL);
    store(NULL, 6);
    MUST(cuMemcpyDtoDAsync_v2(copy, value, 4, s));
    MUST(cuMemcpyDtoDAsync_v2(copy + 64, value, 4, aside));
    SAY(cuStreamSynchronize(aside));
    SAY(cuStreamQuery(s));
    *flag = 1;
    SAY(cuStreamSynchronize(s));
    printf("%d %d\n", read_back(copy), read_back(copy + 64));
}

static void *own_default(void *unused)
{
    MUST(cuCtxSetCurrent(context));
    MUST(cuMemsetD32Async(copy + 64, 3, 1, CU_STREAM_PER_THREAD));
    SAY(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    return unused;
}

static void per_thread(void)
{
    pthread_t t;

    ready();
    hold(CU_STREAM_PER_THREAD);
    store(CU_STREAM_PER_THREAD, 8);
    if (pthread_create(&t, NULL, own_default, NULL))
        exit(1);
    pthread_join(t, NULL); /* the other thread's stream is another */
    SAY(cuStreamQuery(CU_STREAM_PER_THREAD));
    *flag = 1;
    SAY(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    printf("%d %d\n", read_back(value), read_back(copy + 64));
}

static CUevent shared_event;

static void *waiter(void *unused)
{
    CUstream s;

    MUST(cuCtxSetCurrent(context));
    s = new_stream();
    MUST(cuStreamWaitEvent(s, shared_event, 0));
    MUST(cuMemcpyDtoDAsync_v2(copy, value, 4, s));
    SAY(cuStreamQuery(s));
    *flag = 1;
    SAY(cuStreamSynchronize(s));
    return unused;
}

static void events(void)
{
    CUstream s;
    pthread_t t;

    ready();
    s = new_stream();
    MUST(cuEventCreate(&shared_event, 2));
    hold(s);
    store(s, 11);
    MUST(cuEventRecord(shared_event, s));
    store(s, 12); /* no matter of the event */
    SAY(cuEventQuery(shared_event));
    if (pthread_create(&t, NULL, waiter, NULL))
        exit(1);
    pthread_join(t, NULL);
    SAY(cuEventQuery(shared_event));
    SAY(cuStreamSynchronize(s));
    printf("at least %d\n", read_back(copy) >= 11);
}

/* What an asynchronous copy of ordinary memory has taken may be overwritten when it returns. */
static void pageable(void)
{
    static int source[8000];
    CUstream s;
    int bad = 0;

    ready();
    s = new_stream();
    for (int n = 16; n <= 8000; n *= 5) {
        *flag = 0;
        for (int i = 0; i < n; i++)
            source[i] = i ^ n;
        hold(s);
        MUST(cuMemcpyHtoDAsync_v2(value, source, (size_t)n * 4, s));
        memset(source, 0xff, sizeof(source));
        *flag = 1;
        MUST(cuMemcpyDtoHAsync_v2(source, value, (size_t)n * 4, s)); /* returns when it is done */
        for (int i = 0; i < n; i++)
            bad += source[i] != (i ^ n);
    }
    printf("wrong %d\n", bad);
}

static void destroyed_early(void)
{
    CUstream s, t;
    CUevent e;

    ready();
    s = new_stream();
    t = new_stream();
    MUST(cuEventCreate(&e, 0));
    hold(s);
    store(s, 21);
    MUST(cuEventRecord(e, s));
    MUST(cuStreamWaitEvent(t, e, 0));
    MUST(cuMemcpyDtoDAsync_v2(copy, value, 4, t));
    SAY(cuEventDestroy_v2(e));
    SAY(cuStreamDestroy_v2(s));
    SAY(cuStreamDestroy_v2(t));
    *flag = 1;
    SAY(cuCtxSynchronize());
    printf("%d\n", read_back(copy));
}

/* Calls that wait for what still runs. */
static void waits(void)
{
    CUstream s;
    pthread_t t;
    CUdeviceptr p;

    ready();
    s = new_stream();
    p = device_memory(4096);
    hold(s);
    t = release_later();
    SAY(cuMemFree_v2(p));
    printf("released %d\n", *flag);
    pthread_join(t, NULL);
    *flag = 0;
    hold(s);
    t = release_later();
    SAY(cuModuleUnload(module));
    SAY(cuCtxSynchronize());
    printf("released %d\n", *flag);
    pthread_join(t, NULL);
}

static void not_permitted(void *unused)
{
    CUdeviceptr p;

    (void)unused;
    SAY(cuMemAlloc_v2(&p, 16));
    SAY(cuCtxSynchronize());
    SAY(cuMemsetD32Async(value, 1, 1, NULL));
}

static void callback(CUstream s, CUresult status, void *what)
{
    (void)s;
    printf("callback %d: %s\n", *(int *)what, name_of(status));
    not_permitted(NULL);
}

static void append(void *to)
{
    static int next;

    *(int *)to = next++;
}

static void callbacks(void)
{
    static int numbers[300], number = 1, bad;
    CUstream s;

    ready();
    s = new_stream();
    hold(s);
    for (int i = 0; i < 300; i++)
        MUST(cuLaunchHostFunc(s, append, &numbers[i]));
    MUST(cuStreamAddCallback(s, callback, &number, 0));
    MUST(cuLaunchHostFunc(s, not_permitted, NULL));
    SAY(cuStreamQuery(s));
    *flag = 1;
    SAY(cuStreamSynchronize(s));
    for (int i = 0; i < 300; i++)
        bad += numbers[i] != i;
    printf("out of order %d\n", bad);
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = {
        { "legacy", legacy }, { "after_legacy", after_legacy }, { "per_thread", per_thread }, { "events", events },
        { "pageable", pageable }, { "destroyed_early", destroyed_early }, { "waits", waits }, { "callbacks", callbacks },
    };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
