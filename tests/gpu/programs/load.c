/* SPDX-License-Identifier: Apache-2.0 */
/* A load on a card: load SECONDS ITERATIONS [launch|graph|light]. Says READY, waits for a line, then prints a JSON object: kernels
 * completed, seconds, whether their results are right; light: one kernel every 20 ms, and the time that each took. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "program.h"

#define AHEAD 4 /* batches in the queue, so that the card never waits for this program */
#define LONG_ITERATIONS 100000 /* kernels of about a millisecond: a batch is one */
#define SETTLED 0.5 /* seconds after which counting begins: all are there by then */
#define MAX_LIGHT 10000

static const char PTX[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry work(.param .u64 count, .param .u32 n) {\n"
    " .reg .b64 %rd<3>; .reg .b32 %r<4>; .reg .pred %p;\n"
    " ld.param.u64 %rd1,[count]; ld.param.u32 %r1,[n]; mov.u32 %r2,0;\n"
    "again: mad.lo.u32 %r2,%r2,1664525,1013904223; sub.u32 %r1,%r1,1; setp.ne.u32 %p,%r1,0; @%p bra again;\n"
    " mov.u32 %r3,1; setp.eq.u32 %p,%r2,7; @%p mov.u32 %r3,2;\n"
    " atom.global.add.u32 %r2,[%rd1],%r3; ret; }\n";

static CUfunction work;
static CUstream stream;
static CUdeviceptr count;
static CUgraphExec graph;
static unsigned iterations, per_batch;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void batch(void)
{
    void *params[] = { &count, &iterations };

    if (graph) {
        MUST(cuGraphLaunch(graph, stream));
        return;
    }
    for (unsigned i = 0; i < per_batch; i++)
        MUST(cuLaunchKernel(work, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL));
}

static void capture(void)
{
    CUgraph made;
    CUgraphExec exec;

    MUST(cuStreamBeginCapture_v2(stream, 2));
    batch();
    MUST(cuStreamEndCapture(stream, &made));
    MUST(cuGraphInstantiateWithFlags(&exec, made, 0));
    graph = exec;
}

static unsigned counted(void)
{
    unsigned n = 0;

    MUST(cuMemcpyDtoH_v2(&n, count, sizeof(n)));
    return n;
}

static void heavy(double seconds)
{
    CUevent ends[AHEAD];
    unsigned batches = 0, complete = 0, first = 0, before = counted();
    double begin = now(), from = 0, last = 0;

    for (int i = 0; i < AHEAD; i++)
        MUST(cuEventCreate(&ends[i], 2));
    while (last < begin + seconds) {
        if (batches - complete == AHEAD) {
            MUST(cuEventSynchronize(ends[complete++ % AHEAD]));
            last = now();
            if (!from && last > begin + SETTLED) { /* between two completions, what others have of the card is counted in */
                from = last;
                first = complete;
            }
        }
        batch();
        MUST(cuEventRecord(ends[batches++ % AHEAD], stream));
    }
    MUST(cuStreamSynchronize(stream));
    printf("{\"kernels\": %u, \"seconds\": %.4f, \"right\": %s}\n", (complete - first) * per_batch, last - from,
           counted() - before == batches * per_batch ? "true" : "false");
}

static int order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void light(double seconds)
{
    static double took[MAX_LIGHT];
    void *params[] = { &count, &iterations };
    unsigned n = 0, before = counted();
    double end = now() + seconds;

    while (now() < end && n < MAX_LIGHT) {
        double begin = now();

        MUST(cuLaunchKernel(work, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL));
        MUST(cuStreamSynchronize(stream));
        took[n++] = now() - begin;
        usleep(20000);
    }
    qsort(took, n, sizeof(*took), order);
    printf("{\"kernels\": %u, \"median_ms\": %.3f, \"p99_ms\": %.3f, \"right\": %s}\n", n, took[n / 2] * 1e3, took[n * 99 / 100] * 1e3,
           counted() - before == n ? "true" : "false");
}

int main(int argc, char **argv)
{
    const char *mode = argc > 3 ? argv[3] : "launch";
    char line[16];
    CUcontext context;
    CUmodule module;

    if (argc < 3)
        return 2;
    iterations = (unsigned)atoi(argv[2]);
    per_batch = iterations >= LONG_ITERATIONS ? 1 : 8;
    MUST(cuInit(0));
    MUST(cuDevicePrimaryCtxRetain(&context, 0));
    MUST(cuCtxSetCurrent(context));
    MUST(cuModuleLoadData(&module, PTX));
    MUST(cuModuleGetFunction(&work, module, "work"));
    MUST(cuStreamCreate(&stream, 1));
    MUST(cuMemAlloc_v2(&count, 4));
    MUST(cuMemsetD32_v2(count, 0, 1));
    batch();
    MUST(cuStreamSynchronize(stream));
    if (!strcmp(mode, "graph"))
        capture();
    printf("READY\n");
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin))
        return 1;
    if (!strcmp(mode, "light"))
        light(atof(argv[1]));
    else
        heavy(atof(argv[1]));
    return 0;
}
