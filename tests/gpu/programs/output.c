/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels print: where and when it appears among what the program itself prints. */
#include <unistd.h>

#include "program.h"

static void hello(int n, unsigned threads, CUstream stream)
{
    void *parameters[] = { &n };

    MUST(launch("hello", 1, threads, stream, parameters));
}

static void lines(int from, int nr, CUstream stream)
{
    void *parameters[] = { &from, &nr };

    MUST(launch("lines", 1, 1, stream, parameters));
}

/* Each of the calls that show text. */
static void order(void)
{
    CUevent event;
    CUdeviceptr p;
    char bytes[1 << 18];

    start();
    p = device_memory(sizeof(bytes));
    MUST(cuEventCreate(&event, 0));
    printf("before\n");
    hello(1, 4, NULL);
    MUST(cuCtxSynchronize());
    printf("context\n");
    hello(2, 2, NULL);
    MUST(cuStreamSynchronize(NULL));
    printf("stream\n");
    hello(3, 1, NULL);
    MUST(cuEventRecord(event, NULL));
    MUST(cuEventSynchronize(event));
    printf("event\n");
    hello(4, 1, NULL);
    MUST(cuMemcpyDtoH_v2(bytes, p, 16));
    printf("copy\n");
    hello(5, 1, NULL);
    MUST(cuMemcpyDtoH_v2(bytes, p, sizeof(bytes)));
    printf("large copy\n");
    hello(6, 1, NULL);
    MUST(cuModuleUnload(module));
    printf("unload\n");
}

static void context_end(void)
{
    start();
    hello(7, 1, NULL);
    MUST(cuDevicePrimaryCtxReset_v2(0));
    printf("reset\n");
}

/* Only a call that shows text shows it: the end of a process is none. */
static void not_shown(void)
{
    start();
    hello(8, 1, NULL);
    MUST(cuCtxSynchronize());
    lines(0, 3, NULL);
    printf("end\n");
}

static void many(void)
{
    start();
    for (int i = 0; i < 20; i++) {
        lines(i * 2000, 2000, NULL);
        MUST(cuCtxSynchronize());
        printf("round %d\n", i);
    }
}

/* The process has its own text in C's buffer, beside C's buffer, and on stderr. */
static void redirected(void)
{
    start();
    printf("in the buffer\n");
    hello(9, 1, NULL);
    MUST(cuCtxSynchronize());
    if (write(STDOUT_FILENO, "past the buffer\n", 16) != 16)
        exit(1);
    hello(10, 1, NULL);
    MUST(cuCtxSynchronize());
    fflush(stdout);
    if (write(STDOUT_FILENO, "after a flush\n", 14) != 14)
        exit(1);
    hello(11, 1, NULL);
    MUST(cuCtxSynchronize());
}

static void told(CUstream stream, CUresult status, void *what)
{
    (void)stream;
    printf("callback %s: %s\n", (const char *)what, name_of(status));
}

static void callbacks(void)
{
    CUstream s;

    start();
    s = new_stream();
    for (int i = 0; i < 3; i++) {
        hello(20 + i, 1, s);
        MUST(cuStreamAddCallback(s, told, "after the kernel", 0));
    }
    MUST(cuStreamSynchronize(s));
    printf("end\n");
}

static void limits(void)
{
    size_t bytes = 0;

    start();
    SAY(cuCtxGetLimit(&bytes, CU_LIMIT_PRINTF_FIFO_SIZE));
    printf("%zu\n", bytes);
    SAY(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 2 << 20));
    SAY(cuCtxGetLimit(&bytes, CU_LIMIT_PRINTF_FIFO_SIZE));
    printf("%zu\n", bytes);
    lines(0, 100, NULL);
    SAY(cuCtxSynchronize());
}

/* Far more at once than the buffers between host and guest hold. */
static void flood(void)
{
    start();
    MUST(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 256 << 20));
    lines(0, 1 << 20, NULL);
    SAY(cuCtxSynchronize());
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = {
        { "order", order }, { "context_end", context_end }, { "not_shown", not_shown }, { "many", many },
        { "redirected", redirected }, { "callbacks", callbacks }, { "limits", limits }, { "flood", flood },
    };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
