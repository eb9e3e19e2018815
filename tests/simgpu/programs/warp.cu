// SPDX-License-Identifier: Apache-2.0
// Exchanges between the lanes of a warp.
// run shuffles 2 64
// run votes 2 64
// run matches 1 64
// run parts 1 64
// run reductions 1 64 arch=80
// run scan 2 96
// run diverged 1 64
#define ALL 0xffffffffu
#define T (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void shuffles(const unsigned *in, unsigned *out)
{
    unsigned v = in[T], r = 0;
    for (int width = 2; width <= 32; width *= 2) {
        r = r * 7 + __shfl_sync(ALL, v, (int)(v % 40), width);
        r = r * 7 + __shfl_up_sync(ALL, v, 1 + width / 4, width);
        r = r * 7 + __shfl_down_sync(ALL, v, 3, width);
        r = r * 7 + __shfl_xor_sync(ALL, v, 5, width);
    }
    double d = __shfl_xor_sync(ALL, (double)v, 16);
    long long w = __shfl_up_sync(ALL, (long long)v << 20, 2);
    float f = __shfl_down_sync(ALL, (float)(v % 1000), 9);
    out[T] = r + (unsigned)d + (unsigned)(w >> 18) + (unsigned)f;
}

extern "C" __global__ void votes(const unsigned *in, unsigned *out)
{
    unsigned v = in[T];
    unsigned r = __ballot_sync(ALL, v & 1) ^ __any_sync(ALL, v % 64 == 3) << 3 ^ __all_sync(ALL, v > 5) << 7;
    int uniform;
    asm("{ .reg .pred p, q; setp.gt.u32 p, %1, 100; vote.sync.uni.pred q, p, 0xffffffff; selp.s32 %0, 1, 0, q; }" : "=r"(uniform) : "r"(v));
    if (v & 2) r += __popc(__activemask()) * 1000;
    out[T] = r + uniform * 77;
}

extern "C" __global__ void matches(const unsigned *in, unsigned *out)
{
    int all;
    unsigned v = in[T] % 4, r = __match_any_sync(ALL, v);
    r += __match_any_sync(ALL, (unsigned long long)(v & 1) << 40) * 3;
    unsigned same = __match_all_sync(ALL, v < 4, &all);
    out[T] = r + same * 5 + all;
    out[64 + T] = __match_all_sync(ALL, v, &all) + all * 11;
}

extern "C" __global__ void parts(const unsigned *in, unsigned *out)
{
    unsigned lane = threadIdx.x % 32, v = in[T], r;
    if (lane < 12) {
        r = __shfl_sync(0xfff, v, (lane + 1) % 12) + __ballot_sync(0xfff, v & 1);
        __syncwarp(0xfff);
    } else if (lane % 2) {
        r = __shfl_xor_sync(0xaaaaa000, v, 2) + __any_sync(0xaaaaa000, v % 3 == 0);
    } else {
        r = __match_any_sync(0x55555000, v % 3);
        r += __shfl_down_sync(0x55555000, v, 2);
    }
    if (lane == 30) r = 0; // its source takes no part: undefined
    __syncwarp();
    out[T] = r + __shfl_xor_sync(ALL, r, 1);
}

extern "C" __global__ void reductions(const unsigned *in, unsigned *out)
{
#if __CUDA_ARCH__ >= 800
    unsigned v = in[T];
    out[T] = __reduce_add_sync(ALL, v) + __reduce_min_sync(ALL, v) * 3 + __reduce_max_sync(ALL, v) * 5;
    out[64 + T] = (unsigned)__reduce_min_sync(ALL, (int)v) + (unsigned)__reduce_max_sync(ALL, (int)v) * 3;
    out[128 + T] = __reduce_and_sync(ALL, v | 0xff) ^ __reduce_or_sync(ALL, v & 0xf0f0) ^ __reduce_xor_sync(ALL, v);
    if (threadIdx.x % 32 < 9) out[192 + T] = __reduce_add_sync(0x1ff, v);
#endif
}

extern "C" __global__ void scan(const unsigned *in, unsigned *out)
{
    __shared__ unsigned totals[3];
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, v = in[T];
    for (int k = 1; k < 32; k *= 2) { unsigned o = __shfl_up_sync(ALL, v, k); if (lane >= k) v += o; }
    if (lane == 31) totals[warp] = v;
    __syncthreads();
    for (unsigned k = 0; k < warp; k++) v += totals[k];
    out[T] = v;
}

// Lanes that wait for each other's stores, in one warp.
extern "C" __global__ void diverged(const unsigned *in, unsigned *out)
{
    __shared__ volatile unsigned turn[2];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) turn[warp] = 0;
    __syncwarp();
    for (unsigned done = 0; !done;) {
        if (turn[warp] == lane) { out[T] = in[T] + turn[warp]; turn[warp] = lane + 1; done = 1; }
        __threadfence_block();
    }
}
