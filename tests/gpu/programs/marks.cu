// SPDX-License-Identifier: Apache-2.0
// What events and full queues must keep: `marks NAME` prints counts of what was wrong, 0 where all is well.
#include <cuda.h>
#include <cuda_runtime.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#define CK(call)                                                                    \
    do {                                                                            \
        int result = (int)(call);                                                   \
        if (result) {                                                               \
            printf("%s: %d at line %d\n", #call, result, __LINE__);                 \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

__global__ void nothing() {}
__global__ void store(volatile unsigned *to, unsigned value) { *to = value; }
__global__ void slow(volatile unsigned *to, unsigned value, long long cycles)
{
    long long begin = clock64();

    while (clock64() - begin < cycles)
        ;
    *to = value;
}

static cudaStream_t stream()
{
    cudaStream_t made;

    CK(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    return made;
}

static cudaEvent_t event()
{
    cudaEvent_t made;

    CK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
    return made;
}

/* An event that is complete has all before it in memory; one recorded anew behind slow work is not complete. Queries
 * behind hundreds of launches are slow ones. */
static void order()
{
    cudaStream_t s = stream(), other = stream();
    cudaEvent_t e = event();
    unsigned *word, stale = 0, early = 0, failed = 0;

    CK(cudaMallocHost(&word, 64));
    for (unsigned i = 1; i <= 300; i++) {
        store<<<1, 1, 0, s>>>(word, i);
        CK(cudaEventRecord(e, s));
        for (int k = 0; i % 3 == 0 && k < 300; k++)
            nothing<<<1, 1, 0, other>>>();
        cudaError_t r;
        while ((r = cudaEventQuery(e)) == cudaErrorNotReady)
            ;
        failed += r != cudaSuccess;
        stale += *(volatile unsigned *)word != i;
        slow<<<1, 1, 0, s>>>(word, 0, 5000000);
        CK(cudaEventRecord(e, s));
        early += cudaEventQuery(e) == cudaSuccess && *(volatile unsigned *)word != 0;
        CK(cudaEventSynchronize(e));
        failed += cudaEventQuery(e) != cudaSuccess;
        stale += *(volatile unsigned *)word != 0;
    }
    CK(cudaDeviceSynchronize());
    printf("order: %u stale, %u early, %u failed\n", stale, early, failed);
}

/* The thread that opens the gate is not held up by the one that fills the queue behind it. */
static void gate()
{
    cudaStream_t held = stream(), opener = stream();
    CUdeviceptr word;
    unsigned *count, *seen;

    CK(cuMemAlloc(&word, 64));
    CK(cudaMallocHost(&seen, 64));
    CK(cudaMalloc(&count, 64));
    store<<<1, 1, 0, held>>>(count, 0); /* loading it may have to wait for all work: before the gate is shut */
    for (int round = 1; round <= 3; round++) {
        CK(cudaMemset((void *)word, 0, 64));
        CK(cudaDeviceSynchronize());
        CK(cuStreamWaitValue32(held, word, 1, CU_STREAM_WAIT_VALUE_GEQ));
        std::thread flood([&] {
            CK(cudaSetDevice(0));
            for (unsigned i = 1; i <= 3000; i++)
                store<<<1, 1, 0, held>>>(count, i);
        });
        usleep(200000);
        CK(cudaStreamQuery(opener));
        printf("the held stream: %d\n", (int)cudaStreamQuery(held));
        CK(cuStreamWriteValue32(opener, word, 1, 0));
        flood.join();
        CK(cudaMemcpyAsync(seen, count, 4, cudaMemcpyDeviceToHost, held));
        CK(cudaStreamSynchronize(held));
        printf("round %d: %u\n", round, *seen);
    }
}

/* A recorded graph has the nodes that natively it has, also where its events are asked about often. */
static void captured()
{
    cudaStream_t s = stream();
    cudaEvent_t e = event();
    cudaGraph_t graph;
    size_t nodes = 0;

    for (int i = 0; i < 20; i++) {
        for (int k = 0; k < 400; k++)
            nothing<<<1, 1, 0, s>>>();
        CK(cudaEventRecord(e, s));
        while (cudaEventQuery(e) == cudaErrorNotReady)
            ;
    }
    CK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    for (int k = 0; k < 400; k++)
        nothing<<<1, 1, 0, s>>>();
    CK(cudaEventRecord(e, s));
    CK(cudaStreamEndCapture(s, &graph));
    CK(cudaGraphGetNodes(graph, nullptr, &nodes));
    printf("captured: %zu nodes, query %d\n", nodes, (int)cudaEventQuery(e));
    CK(cudaEventRecord(e, s));
    CK(cudaStreamSynchronize(s));
    printf("again: %d\n", (int)cudaEventQuery(e));
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    CK(cudaSetDevice(0));
    unsigned *scratch;
    CK(cudaMalloc(&scratch, 64)); /* loading a kernel may wait for all streams: all are loaded before one stands still */
    nothing<<<1, 1>>>();
    store<<<1, 1>>>(scratch, 1);
    slow<<<1, 1>>>(scratch, 1, 1);
    CK(cudaDeviceSynchronize());
    if (!strcmp(name, "order"))
        order();
    else if (!strcmp(name, "gate"))
        gate();
    else if (!strcmp(name, "captured"))
        captured();
    return 0;
}
