// SPDX-License-Identifier: Apache-2.0
// Barriers: of all threads, of some, with numbers, with results.
// run results 2 96
// run named 1 128
// run arrivals 1 128
// run exits 1 96
// run awaited 1 64 arch=80
// run clock_goes_on 1 64
#define T (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void results(const unsigned *in, unsigned *out)
{
    int v = in[T] % 8;
    out[T] = __syncthreads_count(v & 1) + __syncthreads_and(v < 8) * 1000 + __syncthreads_or(v == 9) * 2000;
}

extern "C" __global__ void named(const unsigned *in, unsigned *out)
{
    __shared__ unsigned s[128];
    unsigned half = threadIdx.x / 64, r = 0;
    for (int k = 0; k < 4; k++) {
        s[threadIdx.x] = in[T] + k;
        asm volatile("bar.sync %0, 64;" :: "r"(half + 1) : "memory");
        r = r * 3 + s[half * 64 + (threadIdx.x + 33) % 64];
        asm volatile("barrier.sync %0, %1;" :: "r"(half + 3), "r"(64) : "memory");
    }
    out[T] = r;
}

extern "C" __global__ void arrivals(const unsigned *in, unsigned *out)
{
    __shared__ unsigned s[64];
    if (threadIdx.x < 64) {
        s[threadIdx.x] = in[T] * 3;
        __threadfence_block();
        asm volatile("bar.arrive 1, 128;" ::: "memory");
        out[T] = 1;
    } else {
        asm volatile("bar.sync 1, 128;" ::: "memory");
        out[T] = s[(threadIdx.x * 5) % 64];
    }
}

extern "C" __global__ void exits(const unsigned *in, unsigned *out)
{
    __shared__ unsigned s[96];
    if (threadIdx.x >= 64) { out[T] = 3; return; }
    s[threadIdx.x] = in[T];
    __syncthreads();
    out[T] = s[63 - threadIdx.x];
}

extern "C" __global__ void awaited(const unsigned *in, unsigned *out)
{
#if __CUDA_ARCH__ >= 800
    __shared__ unsigned long long barrier;
    __shared__ unsigned s[64];
    unsigned at = (unsigned)__cvta_generic_to_shared(&barrier), done;
    if (threadIdx.x == 0) asm volatile("mbarrier.init.shared.b64 [%0], 64;" :: "r"(at) : "memory");
    __syncthreads();
    unsigned r = 0;
    for (int k = 0; k < 3; k++) {
        unsigned long long state;
        s[threadIdx.x] = in[T] + k;
        asm volatile("mbarrier.arrive.shared.b64 %0, [%1];" : "=l"(state) : "r"(at) : "memory");
        do asm volatile("{ .reg .pred p; mbarrier.test_wait.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                        : "=r"(done) : "r"(at), "l"(state) : "memory"); while (!done);
        r = r * 5 + s[(threadIdx.x + 7) % 64];
        __syncthreads();
    }
    if (threadIdx.x == 0) asm volatile("mbarrier.inval.shared.b64 [%0];" :: "r"(at) : "memory");
    out[T] = r;
#endif
}

extern "C" __global__ void clock_goes_on(const unsigned *in, unsigned *out)
{
    long long a = clock64();
    unsigned x = in[T];
    for (int k = 0; k < 100; k++) x = x * 3 + 1;
    long long b = clock64();
    unsigned long long g, h;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(g));
    __nanosleep(2000000);
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(h));
    out[T] = (b > a) + (h > g) * 2;
    out[64 + T] = x;
}
