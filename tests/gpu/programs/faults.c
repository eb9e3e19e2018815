/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong on the device and at launches, and what every later call answers. */
#include "program.h"

static CUfunction store_function, assert_function, trap_function;
static CUstream stream;
static CUevent event;
static CUdeviceptr memory;
static void *host;

static void ready(void)
{
    start();
    stream = new_stream();
    MUST(cuEventCreate(&event, 0));
    MUST(cuEventRecord(event, stream));
    memory = device_memory(4096);
    host = pinned(4096);
    MUST(cuCtxSynchronize());
}

static void later_calls(void)
{
    CUdeviceptr p = memory, q;
    int one = 1, n = 0;
    char bytes[16];
    CUstream s;
    CUevent e;
    size_t free_bytes, total;
    void *parameters[] = { &p, &one }, *h;

    SAY(cuCtxSynchronize());
    SAY(cuStreamSynchronize(stream));
    SAY(cuStreamSynchronize(NULL));
    SAY(cuStreamQuery(stream));
    SAY(cuEventQuery(event));
    SAY(cuEventSynchronize(event));
    SAY(cuEventRecord(event, stream));
    SAY(cuStreamWaitEvent(stream, event, 0));
    SAY(cuMemAlloc_v2(&q, 16));
    SAY(cuMemHostAlloc(&h, 16, 0));
    SAY(cuMemcpyHtoD_v2(p, bytes, 16));
    SAY(cuMemcpyDtoH_v2(bytes, p, 16));
    SAY(cuMemcpyHtoDAsync_v2(p, host, 16, stream));
    SAY(cuMemsetD8_v2(p, 0, 16));
    SAY(cuMemsetD8Async(p, 0, 16, stream));
    SAY(cuMemGetInfo_v2(&free_bytes, &total));
    SAY(cuStreamCreate(&s, 0));
    SAY(cuEventCreate(&e, 0));
    SAY(cuModuleLoadData(&module, read_image()));
    SAY(cuDeviceGetCount(&n));
    SAY(cuCtxGetDevice(&n));
    SAY(cuCtxGetCurrent(&context));
    SAY(cuCtxSetCurrent(context));
    say("launch", cuLaunchKernel(store_function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
}

static void look_up(void)
{
    ready();
    store_function = function("store");
    assert_function = function("must_be");
    trap_function = function("trap");
}

static void launch_now(CUfunction f, void **parameters)
{
    say("launch", cuLaunchKernel(f, 1, 1, 1, 2, 1, 1, 0, stream, parameters, NULL));
}

static void illegal_address(void)
{
    CUdeviceptr bad = 0x10000;
    int v = 1;
    void *parameters[] = { &bad, &v };

    look_up();
    launch_now(store_function, parameters);
    later_calls();
}

static void misaligned(void)
{
    CUdeviceptr bad;
    int v = 1;
    void *parameters[] = { &bad, &v };

    look_up();
    bad = memory + 1;
    launch_now(store_function, parameters);
    SAY(cuStreamSynchronize(stream));
    SAY(cuCtxSynchronize());
}

static void assertion(void)
{
    int n = 3, wanted = 4;
    void *parameters[] = { &n, &wanted };

    look_up();
    launch_now(assert_function, parameters);
    later_calls();
}

static void trapped(void)
{
    look_up();
    launch_now(trap_function, NULL);
    SAY(cuStreamSynchronize(stream));
    SAY(cuCtxSynchronize());
    SAY(cuMemFree_v2(memory));
}

/* The way back, of which processes make use: a reset, and everything anew. */
static void recovered(void)
{
    int n = 3, wanted = 4;
    void *parameters[] = { &n, &wanted };

    look_up();
    launch_now(assert_function, parameters);
    SAY(cuStreamSynchronize(stream));
    SAY(cuDevicePrimaryCtxReset_v2(0));
    ready();
    wanted = 3;
    SAY(launch("must_be", 1, 1, stream, parameters));
    SAY(cuCtxSynchronize());
}

static int ran;

static void host_function(void *unused)
{
    (void)unused;
    ran = 1;
}

static void callbacks(void)
{
    int *flag, v = 1;
    CUdeviceptr bad = 0x10000;
    void *wait_for[] = { &flag }, *parameters[] = { &bad, &v };

    ready();
    flag = host;
    bad = memory;
    *(volatile int *)flag = 1; /* both kernels are loaded: that may have to wait for all work */
    MUST(launch("await", 1, 1, stream, wait_for));
    MUST(launch("store", 1, 1, stream, parameters));
    MUST(cuCtxSynchronize());
    *(volatile int *)flag = 0;
    bad = 0x10000;
    MUST(launch("await", 1, 1, stream, wait_for));
    MUST(launch("store", 1, 1, stream, parameters));
    MUST(cuLaunchHostFunc(stream, host_function, NULL));
    *(volatile int *)flag = 1;
    SAY(cuStreamSynchronize(stream));
    printf("host function ran %d\n", ran);
}

static void launches(void)
{
    CUdeviceptr p;
    int v = 1, n = 0;
    void *parameters[] = { &p, &v, &n };
    CUfunction add, sum;

    ready();
    p = memory;
    add = function("add");
    sum = function("sum_shared");
    SAY(cuLaunchKernel(add, 0, 1, 1, 32, 1, 1, 0, stream, parameters, NULL));
    SAY(cuLaunchKernel(add, 1, 1, 1, 0, 1, 1, 0, stream, parameters, NULL));
    SAY(cuLaunchKernel(add, 1, 1, 1, 1025, 1, 1, 0, stream, parameters, NULL));
    SAY(cuLaunchKernel(add, 1, 1, 1, 32, 33, 1, 0, stream, parameters, NULL));
    SAY(cuLaunchKernel(add, 1, 1, 1, 1, 1, 65, 0, stream, parameters, NULL));
    SAY(cuLaunchKernel(add, 1, 65536, 1, 1, 1, 1, 0, stream, parameters, NULL));
    SAY(cuLaunchKernel(add, 1, 1, 65536, 1, 1, 1, 0, stream, parameters, NULL));
    SAY(cuLaunchKernel(sum, 1, 1, 1, 32, 1, 1, 49153, stream, parameters, NULL));
    SAY(cuLaunchKernel(sum, 1, 1, 1, 32, 1, 1, 49152, stream, parameters, NULL));
    SAY(cuFuncSetAttribute(sum, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 20));
    SAY(cuFuncSetAttribute(sum, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 100000));
    SAY(cuLaunchKernel(sum, 1, 1, 1, 32, 1, 1, 100000, stream, parameters, NULL));
    SAY(cuLaunchKernel(sum, 1, 1, 1, 32, 1, 1, 100001, stream, parameters, NULL));
    SAY(cuLaunchKernel(NULL, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL));
    SAY(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL));
    SAY(cuStreamSynchronize(stream));
    SAY(cuCtxSynchronize());
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = {
        { "illegal_address", illegal_address }, { "misaligned", misaligned }, { "assertion", assertion },
        { "trapped", trapped }, { "recovered", recovered }, { "callbacks", callbacks }, { "launches", launches },
    };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
