/* SPDX-License-Identifier: Apache-2.0 */
/* What driver calls answer on a thread that has no current context: `nocontext cold|warm`, warm with one on another thread. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cuda.h>

#define SAY(call) printf("%s = %d\n", #call, (int)(call))

static struct {
    CUdeviceptr device;
    void *pinned;
    CUstream stream;
    CUevent event, fresh;
    CUgraph graph;
    CUcontext context;
} t;

static void make(void)
{
    cuDevicePrimaryCtxRetain(&t.context, 0);
    cuCtxSetCurrent(t.context);
    cuMemAlloc(&t.device, 4096);
    cuMemHostAlloc(&t.pinned, 4096, 0);
    cuStreamCreate(&t.stream, CU_STREAM_NON_BLOCKING);
    cuEventCreate(&t.event, 0);
    cuEventCreate(&t.fresh, 0);
    cuEventRecord(t.event, t.stream);
    cuStreamSynchronize(t.stream);
    cuGraphCreate(&t.graph, 0);
}

static void pointers(const char *name, CUdeviceptr p)
{
    unsigned type = 77, managed = 77;
    int ordinal = 77;
    CUdeviceptr start = 77;
    size_t bytes = 77;
    CUpointer_attribute asked[] = { CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                    CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL };
    void *into[] = { &type, &managed, &ordinal };

    printf("-- %s\n", name);
    SAY(cuPointerGetAttributes(3, asked, into, p));
    printf("type %u managed %u ordinal %d\n", type, managed & 0xff, ordinal);
    type = 77;
    SAY(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p));
    printf("type %u\n", type);
    SAY(cuMemGetAddressRange(&start, &bytes, p));
    printf("start %d bytes %zu\n", start == p, bytes);
}

static void nothing(void *data)
{
    (void)data;
}

static void streams_and_events(void)
{
    CUcontext context = NULL;
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
    CUevent event = NULL;
    CUgraph graph = NULL;
    CUstream stream = NULL;
    float ms = 0;
    unsigned flags = 0;
    int priority = 0;

    SAY(cuStreamQuery(0));
    SAY(cuStreamSynchronize(0));
    SAY(cuStreamIsCapturing(0, &status));
    SAY(cuStreamCreate(&stream, 0));
    SAY(cuEventCreate(&event, 0));
    SAY(cuStreamGetCtx(0, &context));
    SAY(cuStreamGetPriority(0, &priority));
    if (!t.stream)
        return;
    SAY(cuStreamQuery(t.stream));
    SAY(cuStreamSynchronize(t.stream));
    SAY(cuStreamIsCapturing(t.stream, &status));
    SAY(cuStreamGetFlags(t.stream, &flags));
    SAY(cuStreamGetPriority(t.stream, &priority));
    SAY(cuStreamGetCtx(t.stream, &context));
    printf("its context %d\n", context == t.context);
    SAY(cuEventQuery(t.event));
    SAY(cuEventQuery(t.fresh));
    SAY(cuEventSynchronize(t.event));
    SAY(cuEventElapsedTime(&ms, t.event, t.event));
    SAY(cuEventRecord(t.fresh, t.stream));
    SAY(cuEventRecord(t.fresh, 0));
    SAY(cuStreamWaitEvent(t.stream, t.event, 0));
    SAY(cuStreamWaitEvent(0, t.event, 0));
    SAY(cuLaunchHostFunc(t.stream, nothing, NULL));
    SAY(cuMemcpyHtoDAsync(t.device, t.pinned, 64, t.stream));
    SAY(cuMemcpyHtoDAsync(t.device, t.pinned, 64, 0));
    SAY(cuMemsetD8Async(t.device, 1, 64, t.stream));
    SAY(cuMemsetD8(t.device, 1, 64));
    SAY(cuMemcpyDtoH(t.pinned, t.device, 64));
    SAY(cuMemcpy(t.device, (CUdeviceptr)(uintptr_t)t.pinned, 64));
    SAY(cuStreamSynchronize(t.stream));
    SAY(cuStreamBeginCapture(t.stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    SAY(cuStreamEndCapture(t.stream, &graph));
    SAY(cuStreamDestroy(t.stream));
    SAY(cuEventDestroy(t.event));
}

static void contexts_and_memory(void)
{
    CUcontext context = NULL;
    CUdevice device = 77;
    CUdeviceptr p = 0;
    CUmemoryPool pool = NULL;
    size_t free_bytes = 0, total = 0, limit = 0;
    void *h = NULL;
    unsigned flags = 0, version = 0;
    int low = 0, high = 0, value = 0;
    CUgraph graph = NULL;

    SAY(cuCtxGetCurrent(&context));
    SAY(cuCtxGetDevice(&device));
    SAY(cuCtxSynchronize());
    SAY(cuCtxGetFlags(&flags));
    SAY(cuCtxGetLimit(&limit, CU_LIMIT_STACK_SIZE));
    SAY(cuCtxGetStreamPriorityRange(&low, &high));
    SAY(cuCtxGetApiVersion(NULL, &version));
    SAY(cuCtxPopCurrent(&context));
    SAY(cuCtxSetCurrent(NULL));
    SAY(cuMemGetInfo(&free_bytes, &total));
    SAY(cuMemAlloc(&p, 64));
    SAY(cuMemAllocHost(&h, 64));
    SAY(cuMemHostAlloc(&h, 64, 0));
    SAY(cuMemAllocAsync(&p, 64, 0));
    SAY(cuDeviceGetDefaultMemPool(&pool, 0));
    SAY(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0));
    SAY(cuMemFree(0));
    SAY(cuMemFreeHost(NULL));
    SAY(cuGraphCreate(&graph, 0));
    SAY(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, NULL, 32, 0));
    SAY(cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, 0, NULL, NULL));
    SAY(cuModuleLoadData(NULL, ""));
    if (!t.device)
        return;
    SAY(cuMemHostGetDevicePointer(&p, t.pinned, 0));
    SAY(cuMemHostGetFlags(&flags, t.pinned));
    SAY(cuGraphDestroy(t.graph));
    SAY(cuMemFreeHost(t.pinned));
    SAY(cuMemFree(t.device));
}

static void *ask(void *unused)
{
    int local = 0;

    (void)unused;
    pointers("ordinary memory", (CUdeviceptr)(uintptr_t)&local);
    pointers("NULL", 0);
    if (t.device) {
        pointers("device memory", t.device);
        pointers("pinned memory", (CUdeviceptr)(uintptr_t)t.pinned);
    }
    streams_and_events();
    contexts_and_memory();
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    SAY(cuInit(0));
    if (argc > 1 && !strcmp(argv[1], "warm"))
        make();
    pthread_create(&thread, NULL, ask, NULL);
    return pthread_join(thread, NULL);
}
