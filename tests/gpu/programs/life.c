/* SPDX-License-Identifier: Apache-2.0 */
/* How processes, threads and contexts end while there is work, and what is left to those that go on. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

static CUdeviceptr memory;

static void scale(CUstream s, unsigned k, int n)
{
    void *parameters[] = { &memory, &k, &n };

    MUST(launch("scale", (unsigned)n / 256 + 1, 256, s, parameters));
}

static void work(void)
{
    start();
    memory = device_memory(1 << 20);
    MUST(cuMemsetD32_v2(memory, 1, 1 << 18));
    for (int i = 0; i < 50; i++)
        scale(NULL, 3, 1 << 12);
}

static void exit_with_work(void)
{
    work();
    printf("end\n");
    exit(3);
}

static void *exit_from_here(void *unused)
{
    MUST(cuCtxSetCurrent(context));
    scale(NULL, 5, 1024);
    printf("thread ends the process\n");
    exit(4);
    return unused;
}

static void exit_from_a_thread(void)
{
    pthread_t t;

    work();
    if (pthread_create(&t, NULL, exit_from_here, NULL))
        exit(1);
    pthread_join(t, NULL);
}

static void at_the_end(void)
{
    unsigned v = 0;

    printf("handler: copy %s", name_of(cuMemcpyDtoH_v2(&v, memory, 4)));
    printf(" %u, free %s\n", v, name_of(cuMemFree_v2(memory)));
}

static void handler_at_exit(void)
{
    start();
    memory = device_memory(64);
    MUST(cuMemsetD32_v2(memory, 17, 16));
    atexit(at_the_end);
    printf("end\n");
}

/* Runs when the driver may be gone: it must come through, whatever the driver answers. */
static void late(void)
{
    cuMemFree_v2(memory);
    cuCtxSynchronize();
    printf("late handler came through\n");
}

static void late_handler_at_exit(void)
{
    atexit(late);
    work();
}

static int late_destructor;

__attribute__((destructor)) static void at_unload(void)
{
    if (!late_destructor)
        return;
    cuMemFree_v2(memory);
    printf("destructor came through\n");
    fflush(stdout);
}

static void destructor_at_exit(void)
{
    late_destructor = 1;
    work();
}

static void ended_by_abort(void)
{
    work();
    printf("before\n");
    fflush(stdout);
    printf("not written");
    abort();
}

static void forked(void)
{
    int status, n, v = 0;
    CUdeviceptr p;

    work();
    fflush(stdout);
    if (fork() == 0) {
        SAY(cuInit(0));
        SAY(cuMemAlloc_v2(&p, 16));
        SAY(cuCtxSynchronize());
        SAY(cuDeviceGetCount(&n));
        SAY(cuMemcpyDtoH_v2(&v, memory, 4));
        fflush(stdout);
        _exit(7);
    }
    wait(&status);
    printf("child ended with %d\n", WEXITSTATUS(status));
    SAY(cuMemcpyDtoH_v2(&v, memory, 4));
    SAY(cuCtxSynchronize());
}

/* A reset ends what its context had, and nothing of another's. */
static void reset(void)
{
    CUcontext other;
    CUdeviceptr theirs;
    int *pinned_there, v = 0;

    work();
    MUST(cuCtxCreate_v2(&other, 0, 0));
    theirs = device_memory(4096);
    pinned_there = pinned(4096);
    pinned_there[5] = 55;
    MUST(cuMemcpyHtoD_v2(theirs, pinned_there, 4096));
    MUST(cuDevicePrimaryCtxReset_v2(0));
    memset(pinned_there, 0, 4096);
    SAY(cuMemcpyDtoH_v2(pinned_there, theirs, 4096));
    printf("%d\n", pinned_there[5]);
    SAY(cuMemFreeHost(pinned_there));
    SAY(cuCtxDestroy_v2(other));
    work();
    SAY(cuCtxSynchronize());
    SAY(cuMemcpyDtoH_v2(&v, memory, 4));
    printf("%u\n", (unsigned)v);
}

/* Pinned memory ends with its context. */
static void reset_pinned(void)
{
    CUdeviceptr d;
    void *p;

    start();
    p = pinned(1 << 20);
    MUST(cuDevicePrimaryCtxReset_v2(0));
    start();
    SAY(cuMemHostGetDevicePointer_v2(&d, p, 0));
    p = pinned(1 << 20);
    SAY(cuMemHostGetDevicePointer_v2(&d, p, 0));
    SAY(cuMemFreeHost(p));
}

enum { THREADS = 8, ROUNDS = 40 };

/* Everything at once: memory of both kinds, kernels, events, waits. */
static void *busy(void *number)
{
    unsigned k = (unsigned)(uintptr_t)number, v, expected, n = 1000, *h;
    long bad = 0;
    CUevent e;
    CUstream s;

    MUST(cuCtxSetCurrent(context));
    s = new_stream();
    MUST(cuEventCreate(&e, k & 1 ? 2 : 0));
    for (int i = 0; i < ROUNDS; i++) {
        CUdeviceptr d = device_memory(n * 4);
        void *parameters[] = { &d, &k, &n };

        h = pinned(n * 4);
        for (v = 0; v < n; v++)
            h[v] = v;
        MUST(cuMemcpyHtoDAsync_v2(d, h, n * 4, s));
        for (int j = 0; j < 5; j++)
            MUST(launch("scale", 4, 256, s, parameters));
        MUST(cuMemcpyDtoHAsync_v2(h, d, n * 4, s));
        MUST(cuEventRecord(e, s));
        MUST(i & 1 ? cuEventSynchronize(e) : cuStreamSynchronize(s));
        for (v = 0; v < n; v++) {
            expected = v;
            for (int j = 0; j < 5; j++)
                expected = expected * k + 1;
            bad += h[v] != expected;
        }
        MUST(cuMemFree_v2(d));
        MUST(cuMemFreeHost(h));
    }
    MUST(cuEventDestroy_v2(e));
    MUST(cuStreamDestroy_v2(s));
    return (void *)bad;
}

static void threads(void)
{
    pthread_t t[THREADS];
    void *bad;

    start();
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&t[i], NULL, busy, (void *)(i + 2)))
            exit(1);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(t[i], &bad);
        printf("thread %d: wrong %ld\n", i, (long)bad);
    }
    SAY(cuCtxSynchronize());
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = {
        { "exit_with_work", exit_with_work }, { "exit_from_a_thread", exit_from_a_thread },
        { "handler_at_exit", handler_at_exit }, { "late_handler_at_exit", late_handler_at_exit },
        { "destructor_at_exit", destructor_at_exit }, { "ended_by_abort", ended_by_abort }, { "forked", forked },
        { "reset", reset }, { "reset_pinned", reset_pinned }, { "threads", threads },
    };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
