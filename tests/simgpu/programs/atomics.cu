// SPDX-License-Identifier: Apache-2.0
// Atomics of every width, type and scope; results that do not depend on the order of threads.
// run words 2 64
// run wide 2 64
// run scopes 2 64
// run floats 2 64
// run halves 2 64
// run in_shared 2 64
// run compare 2 64
// run ordered 1 1
// run vectors 2 64 arch=90
#include <cuda_fp16.h>
#include <cuda_bf16.h>
typedef unsigned long long u64;
#define T (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void words(const unsigned *in, unsigned *out)
{
    unsigned v = in[T];
    atomicAdd(out, v); atomicSub(out + 1, v); atomicMin(out + 2, v); atomicMax(out + 3, v);
    atomicMin((int *)out + 4, (int)v); atomicMax((int *)out + 5, (int)v);
    atomicAnd(out + 6, v | 0xff00); atomicOr(out + 7, v & 0xff00ff); atomicXor(out + 8, v);
    atomicInc(out + 9, 16); atomicDec(out + 10, 9); atomicAdd((int *)out + 11, -(int)v);
}

extern "C" __global__ void wide(const unsigned *in, unsigned *out)
{
    u64 v = (u64)in[T] << 17 | in[T] >> 3, *o = (u64 *)out;
    atomicAdd(o, v); atomicMin(o + 1, v); atomicMax(o + 2, v); atomicMin((long long *)o + 3, -(long long)v);
    atomicMax((long long *)o + 4, (long long)v); atomicAnd(o + 5, v | 15); atomicOr(o + 6, v & 0x77700777); atomicXor(o + 7, v);
}

extern "C" __global__ void scopes(const unsigned *in, unsigned *out)
{
    unsigned v = in[T];
    atomicAdd_block(out + 64 * blockIdx.x + 1, v); atomicAdd_system(out + 2, v); atomicMax_system(out + 3, v);
    atomicXor_block(out + 64 * blockIdx.x + 4, v);
    asm volatile("red.relaxed.gpu.global.add.u32 [%0], %1;" :: "l"(out + 5), "r"(v) : "memory");
    asm volatile("{ .reg .u32 r; atom.acq_rel.sys.global.add.u32 r, [%0], %1; }" :: "l"(out + 6), "r"(v) : "memory");
    asm volatile("{ .reg .u32 r; atom.acquire.cta.or.b32 r, [%0], %1; }" :: "l"(out + 7), "r"(v) : "memory");
}

extern "C" __global__ void floats(const unsigned *in, unsigned *out)
{
    atomicAdd((float *)out, (float)(in[T] % 1000)); atomicAdd((double *)out + 1, (double)(in[T] % 100000) * 0.5);
    atomicExch(out + 6 + T, in[T]); atomicExch((float *)out + 200, 2.5f);
}

extern "C" __global__ void halves(const unsigned *in, unsigned *out)
{
    atomicAdd((__half2 *)out, __floats2half2_rn(1, (float)(in[T] % 8)));
    atomicAdd((__half *)(out + 1), __float2half(0.5f));
    atomicAdd((__nv_bfloat162 *)(out + 2), __floats2bfloat162_rn(1, 1));
    atomicAdd((__nv_bfloat16 *)(out + 3), __float2bfloat16(1));
}

extern "C" __global__ void in_shared(const unsigned *in, unsigned *out)
{
    __shared__ unsigned s[16];
    __shared__ u64 w[2];
    __shared__ float f;
    if (threadIdx.x < 16) s[threadIdx.x] = 0;
    if (threadIdx.x < 2) w[threadIdx.x] = 1;
    f = 0;
    __syncthreads();
    atomicAdd(s + in[T] % 16, 1); atomicMax(w, (u64)in[T] * 5); atomicAdd(w + 1, in[T]); atomicAdd(&f, (float)(in[T] % 50));
    __syncthreads();
    if (threadIdx.x < 16) out[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x];
    if (threadIdx.x == 20) out[blockIdx.x * 32 + 20] = (unsigned)(w[0] ^ w[1] >> 3) + __float_as_uint(f);
}

// Products by compare-and-swap loops of 16, 32 and 64 bits.
extern "C" __global__ void compare(const unsigned *in, unsigned *out)
{
    unsigned v = in[T] | 1, old = out[0] | 1, seen;
    do { seen = old; old = atomicCAS(out, seen == 1 ? 0 : seen, (seen == 1 && out[0] == 0 ? 1 : seen) * v); if (old == 0) old = 1; } while (old != seen);
    u64 *o = (u64 *)out + 1, was = *o, is;
    do { is = was; was = atomicCAS(o, is, is + v); } while (was != is);
    unsigned short *h = (unsigned short *)(out + 4), a = *h, b;
    do { b = a; a = atomicCAS(h, b, (unsigned short)(b + 3)); } while (a != b);
}

extern "C" __global__ void ordered(const unsigned *in, unsigned *out)
{
    out[20] = 10;
    out[0] = atomicAdd(out + 20, 5); out[1] = atomicInc(out + 20, 15); out[2] = atomicInc(out + 20, 15); out[3] = atomicDec(out + 20, 7);
    out[4] = atomicCAS(out + 20, 3, 9); out[5] = atomicExch(out + 20, in[0]); out[6] = atomicCAS(out + 20, in[0], 4);
    out[7] = atomicMin((int *)out + 20, -3); out[8] = (unsigned)atomicMax((int *)out + 20, 100); out[9] = atomicSub(out + 20, 1);
    out[10] = __float_as_uint(atomicAdd((float *)out + 21, 1.5f)); out[11] = __float_as_uint(atomicAdd((float *)out + 21, 0.25f));
}

extern "C" __global__ void vectors(const unsigned *in, unsigned *out)
{
#if __CUDA_ARCH__ >= 900
    atomicAdd((float4 *)out, make_float4(1, 2, 3, in[T] % 4));
    atomicAdd((float2 *)(out + 4), make_float2(5, in[T] % 16));
#endif
}
