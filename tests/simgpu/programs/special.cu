// SPDX-License-Identifier: Apache-2.0
// Special registers, half precision by its header, mathematical functions.
// run registers 3 96
// run half_arithmetic 1 64
// run brain_float 1 64 arch=80
// run single_functions 2 64 relative=4e-6
// run double_functions 2 64 relative=1e-13
// run fast_functions 2 64 relative=2e-5
// run integer_intrinsics 2 64
// run rounded_intrinsics 2 64
// run eighths 1 64 arch=89
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#define T (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void registers(const unsigned *in, unsigned *out)
{
    unsigned lane, masks, warps, warp, eq, lt, le, gt, ge, size;
    asm volatile("mov.u32 %0, %laneid;" : "=r"(lane));
    asm volatile("mov.u32 %0, %warpid;" : "=r"(warp));
    asm volatile("mov.u32 %0, %nwarpid;" : "=r"(warps));
    asm volatile("mov.u32 %0, %lanemask_eq;" : "=r"(eq));
    asm volatile("mov.u32 %0, %lanemask_lt;" : "=r"(lt));
    asm volatile("mov.u32 %0, %lanemask_le;" : "=r"(le));
    asm volatile("mov.u32 %0, %lanemask_gt;" : "=r"(gt));
    asm volatile("mov.u32 %0, %lanemask_ge;" : "=r"(ge));
    asm volatile("mov.u32 %0, %dynamic_smem_size;" : "=r"(size));
    masks = eq + lt * 3 + le * 5 + gt * 7 + ge * 11;
    out[T] = masks + lane * 13 + (warps >= 3) + (warp < warps) + size + gridDim.x * 100 + blockDim.x * 1000 + warpSize;
    out[T] += blockIdx.x * 17 + threadIdx.x * 19 + blockIdx.y + threadIdx.z + gridDim.y + blockDim.z;
}

extern "C" __global__ void half_arithmetic(const unsigned *in, unsigned *out)
{
    __half a = __ushort_as_half((unsigned short)in[T]), b = __float2half((float)(in[T] % 100) * 0.125f - 3);
    __half2 p = __floats2half2_rn((float)(in[T] % 7), -0.5f), q = __half2half2(b);
    float f = __half2float(__hadd(b, __float2half(1.5f))) + __half2float(__hmul(b, b)) + __half2float(__hfma(b, b, b));
    f += __half2float(__hdiv(b, __float2half(3))) + __half2float(hsqrt(__habs(b))) + __low2float(__hfma2(p, q, p));
    f += __high2float(h2exp2(__floats2half2_rn(0.5f, 1.5f))) + (__hlt(b, a) ? 1 : 0) + (__hisnan(a) ? 2 : 0) + (__heq2(p, q).x != __half(0));
    f += __half2int_rz(b) + __half2uint_ru(__habs(b)) + __half2ll_rn(b) + __half2float(__int2half_rd((int)in[T] % 5000));
    f += __half2float(__hmin(a, b)) == __half2float(b) ? 10 : 20;
    out[T] = __float_as_uint(f);
    out[64 + T] = __half_as_ushort(__hadd(b, __float2half_rz(f))) | __half_as_ushort(__float2half_ru(f)) << 16;
}

extern "C" __global__ void brain_float(const unsigned *in, unsigned *out)
{
#if __CUDA_ARCH__ >= 800
    __nv_bfloat16 b = __float2bfloat16((float)(in[T] % 1000) * 0.37f - 50), c = __float2bfloat16_rz((float)(in[T] % 77));
    __nv_bfloat162 p = __floats2bfloat162_rn((float)(in[T] % 9), 2.5f), q = __halves2bfloat162(b, c);
    float f = __bfloat162float(__hadd(b, c)) + __bfloat162float(__hmul(b, c)) + __bfloat162float(__hfma(b, c, b));
    f += __low2float(__hfma2(p, q, q)) + __high2float(__hmax2(p, q)) + __bfloat162float(__hneg(b)) + (__hgt(b, c) ? 1 : 0);
    f += __bfloat162int_rn(b) + __bfloat162float(__int2bfloat16_rn((int)in[T]));
    out[T] = __float_as_uint(f);
    out[64 + T] = __bfloat16_as_ushort(__double2bfloat16(f * 1.1)) + (__bfloat16_as_ushort(hexp2(__float2bfloat16(1.5f))) > 0);
#endif
}

extern "C" __global__ void single_functions(const unsigned *in, unsigned *out)
{
    float x = (float)(int)in[T] * 1e-8f, y = (float)(in[T + 1] % 1000) * 0.01f + 0.1f, *o = (float *)out + T * 16;
    o[0] = sinf(x); o[1] = cosf(x); o[2] = expf(x * 0.5f); o[3] = logf(y); o[4] = powf(y, x * 0.3f); o[5] = atan2f(x, y);
    o[6] = tanhf(x); o[7] = erff(x); o[8] = cbrtf(x); o[9] = log1pf(y); o[10] = expm1f(y * 0.1f); o[11] = fmodf(x, y);
    o[12] = sqrtf(y) / x; o[13] = lgammaf(y + 1); o[14] = asinhf(x); o[15] = rsqrtf(y);
}

extern "C" __global__ void double_functions(const unsigned *in, unsigned *out)
{
    double x = (double)(int)in[T] * 1e-8, y = (double)(in[T + 1] % 1000) * 0.01 + 0.1, *o = (double *)out + T * 8;
    o[0] = sin(x * 1000); o[1] = exp(x) * cos(x); o[2] = log(y); o[3] = pow(y, x * 0.3); o[4] = atan2(x, y);
    o[5] = tgamma(y * 0.5 + 1); o[6] = erf(x * 0.1); o[7] = sqrt(y) / x + fma(x, y, 1.0 / y) + cbrt(y) + rsqrt(y);
}

extern "C" __global__ void fast_functions(const unsigned *in, unsigned *out)
{
    float y = (float)(in[T] % 3000) * 0.001f + 0.05f, *o = (float *)out + T * 8;
    o[0] = __sinf(y) + 1; o[1] = __cosf(y) + 2; o[2] = __expf(y); o[3] = __logf(y + 2); o[4] = __powf(y, 1.5f);
    o[5] = __fdividef(y, 3.0f); o[6] = __frsqrt_rn(y); o[7] = __saturatef(y) + __tanf(y * 0.1f);
}

extern "C" __global__ void integer_intrinsics(const unsigned *in, unsigned *out)
{
    unsigned a = in[T], b = in[T + 1], c = in[T + 2], r = 0;
    r = r * 3 + __popc(a); r = r * 3 + __clz((int)a); r = r * 3 + __ffs((int)b); r = r * 3 + __brev(a); r = r * 3 + __byte_perm(a, b, c);
    r = r * 3 + __umulhi(a, b); r = r * 3 + (unsigned)__mulhi((int)a, (int)b); r = r * 3 + __sad((int)a, (int)b, c); r = r * 3 + __umul24(a, b);
    r = r * 3 + __funnelshift_l(a, b, c); r = r * 3 + __funnelshift_rc(a, b, c % 40); r = r * 3 + (unsigned)__dp4a((int)a, (int)b, (int)c);
    r = r * 3 + __vadd4(a, b); r = r * 3 + __vabsdiffu4(a, b); r = r * 3 + __vcmpgtu4(a, b); r = r * 3 + __vmins2(a, b); r = r * 3 + __vavgu4(a, b);
    r = r * 3 + __vsubss2(a, b); r = r * 3 + (unsigned)__hadd((int)a, (int)b); r = r * 3 + __urhadd(a, b); r = r * 3 + __clzll((long long)a << 9);
    unsigned long long w = (unsigned long long)a << 32 | b, x = (unsigned long long)c << 31 | a;
    r = r * 3 + (unsigned)__umul64hi(w, x); r = r * 3 + (unsigned)(w / (x | 1)); r = r * 3 + (unsigned)(w % (c | 1)); r = r * 3 + __popcll(w);
    r = r * 3 + (unsigned)__brevll(w) + (unsigned)__ffsll((long long)x) + (unsigned)((long long)w / (int)(c | 1)) + (unsigned)((__int128)w * x >> 50);
    out[T] = r;
}

extern "C" __global__ void rounded_intrinsics(const unsigned *in, unsigned *out)
{
    float a = __uint_as_float(in[T] & 0xbfffffff), b = (float)(in[T + 1] % 100) + 0.3f;
    double d = a, e = b;
    unsigned r = 0;
#define MIX(v) r = r * 31 + __float_as_uint(v)
#define MIXD(v) r = r * 31 + (unsigned)(__double_as_longlong(v) >> 3)
    MIX(__fadd_rn(a, b)); MIX(__fadd_rz(a, b)); MIX(__fadd_ru(a, b)); MIX(__fadd_rd(a, b)); MIX(__fmul_ru(a, b)); MIX(__fmaf_rd(a, b, a));
    MIX(__fdiv_rz(a, b)); MIX(__fsqrt_ru(b)); MIX(__frcp_rd(b)); MIXD(__dadd_ru(d, e)); MIXD(__dmul_rd(d, e)); MIXD(__fma_rz(d, e, e));
    MIXD(__ddiv_ru(d, e)); MIXD(__dsqrt_rz(e)); MIX(__double2float_ru(e)); MIX(__int2float_rz((int)in[T])); MIX(__ll2float_ru((long long)in[T] << 20));
    r = r * 31 + __float2uint_ru(b) + (unsigned)__float2int_rd(-b) + (unsigned)__float2ll_rn(b * 1e6f) + (unsigned)__double2int_rz(e);
    MIX(rintf(b)); MIX(truncf(b * 1.7f)); MIX(ceilf(b)); MIX(floorf(-b)); MIX(roundf(b)); MIX(fmaxf(a, b)); MIX(fminf(a, -b)); MIX(copysignf(b, a));
    out[T] = r;
}

extern "C" __global__ void eighths(const unsigned *in, unsigned *out)
{
#if __CUDA_ARCH__ >= 890
    float x = (float)(in[T] % 2000) * 0.31f - 300;
    __nv_fp8_e4m3 a(x); __nv_fp8_e5m2 b(x);
    out[T] = a.__x | b.__x << 8;
    out[64 + T] = __float_as_uint((float)a + (float)b);
#endif
}
