/* SPDX-License-Identifier: Apache-2.0 */
/* Do capture ownership, capture modes and the legacy default stream depend on the calling thread as twin threads need? */
#include "probe.h"

#include <pthread.h>

static CUcontext context;
static CUfunction f;
static CUdeviceptr p;

struct job { void (*run)(void *); void *arg; };

static void *thread_main(void *v)
{
    struct job *j = v;

    NEED(cuCtxSetCurrent(context));
    j->run(j->arg);
    return NULL;
}

static void on_thread(void (*run)(void *), void *arg)
{
    pthread_t t;
    struct job j = { run, arg };

    pthread_create(&t, NULL, thread_main, &j);
    pthread_join(t, NULL);
}

static CUstream stream;
static CUgraph graph;
static CUresult seen;
static void do_malloc(void *u) { CUdeviceptr q; (void)u; seen = cuMemAlloc(&q, 4096); }
static void do_launch(void *u) { (void)u; seen = spin(f, p, 10, stream); }
static void do_end(void *u) { (void)u; seen = cuStreamEndCapture(stream, &graph); }
static void do_legacy(void *u) { (void)u; seen = cuMemsetD32Async(p + 4, 1, 1, 0); }
static void do_relaxed_malloc(void *u)
{
    CUdeviceptr q;
    CUstreamCaptureMode m = CU_STREAM_CAPTURE_MODE_RELAXED;

    (void)u;
    NEED(cuThreadExchangeStreamCaptureMode(&m));
    seen = cuMemAlloc(&q, 4096);
}

static void capture(CUstreamCaptureMode mode, const char *name)
{
    CUresult r;

    NEED(cuStreamBeginCapture(stream, mode));
    on_thread(do_launch, NULL);
    fact("%s capture begun by A: launch into it from B: %d", name, seen);
    on_thread(do_malloc, NULL);
    fact("%s capture: cuMemAlloc in B: %d", name, seen);
    on_thread(do_relaxed_malloc, NULL);
    fact("%s capture: cuMemAlloc in B with relaxed mode: %d", name, seen);
    on_thread(do_legacy, NULL);
    fact("%s capture: legacy stream work in B: %d", name, seen);
    on_thread(do_end, NULL);
    fact("%s capture: ended by B: %d", name, seen);
    r = cuStreamEndCapture(stream, &graph);
    fact("%s capture: ended by A afterwards: %d", name, r);
}

int main(void)
{
    CUstream s1, s2;
    uint32_t v[2];

    context = start();
    f = spin_kernel();
    NEED(cuMemAlloc(&p, 4096));
    NEED(cuMemsetD32(p, 0, 1024));
    NEED(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    capture(CU_STREAM_CAPTURE_MODE_GLOBAL, "global");
    capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, "thread-local");
    capture(CU_STREAM_CAPTURE_MODE_RELAXED, "relaxed");
    /* legacy default stream: ordered by call order whatever the thread */
    NEED(cuStreamCreate(&s1, CU_STREAM_DEFAULT));
    NEED(cuStreamCreate(&s2, CU_STREAM_NON_BLOCKING));
    NEED(cuMemsetD32(p, 0, 2));
    NEED(spin(f, p, 200000000, s1));
    on_thread(do_legacy, NULL);
    NEED(cuMemcpyDtoHAsync(v, p, 8, s2));
    NEED(cuStreamSynchronize(s2));
    fact("non-blocking stream beside a running blocking one sees %u %u (0 0: legacy work of B waited for A's kernel)",
         v[0], v[1]);
    NEED(cuCtxSynchronize());
    NEED(cuMemcpyDtoH(v, p, 8));
    fact("after synchronize %u %u", v[0], v[1]);
    return 0;
}
