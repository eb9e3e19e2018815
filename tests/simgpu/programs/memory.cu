// SPDX-License-Identifier: Apache-2.0
// Loads and stores of every width and space.
// run vectors 2 64
// run shared_static 2 64
// run shared_dynamic 2 64 shared=4096
// run local_arrays 2 64
// run constants 1 64
// run globals 1 64
// run generic 2 64
// run hints 1 64
// run structures 1 64
// run heap 1 64
// run copies 1 64 arch=80
typedef unsigned long long u64;
#define T (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void vectors(const unsigned *in, unsigned *out)
{
    unsigned t = T;
    uchar2 a = ((const uchar2 *)in)[t];
    uchar4 b = ((const uchar4 *)in)[t];
    short2 c = ((const short2 *)in)[t];
    ushort4 d = ((const ushort4 *)in)[t];
    int2 e = ((const int2 *)in)[t];
    uint4 f = ((const uint4 *)in)[t];
    float2 g = ((const float2 *)in)[t];
    double2 h = ((const double2 *)in)[t];
    longlong2 i = ((const longlong2 *)in)[t];
    signed char j = ((const signed char *)in)[t];
    uint4 r;
    r.x = a.x + b.w * 3 + (unsigned)c.y + d.z + (unsigned)j;
    r.y = (unsigned)e.x ^ f.w ^ __float_as_uint(g.y);
    r.z = (unsigned)__double_as_longlong(h.y) + (unsigned)(i.x >> 32) + a.y * 5 + b.z;
    r.w = f.x + f.y * f.z;
    ((uint4 *)out)[t] = r;
    __syncthreads();
    ((uchar4 *)out)[t * 4] = make_uchar4(b.x, b.y, a.x, 7);
    ((ushort2 *)out)[t * 4 + 1] = make_ushort2(d.x, 9);
}

extern "C" __global__ void shared_static(const unsigned *in, unsigned *out)
{
    __shared__ unsigned a[64];
    __shared__ double b[8][9];
    __shared__ unsigned char c[64];
    unsigned t = threadIdx.x;
    a[63 - t] = in[T];
    b[t / 8][t % 8] = in[T] % 1000 * 0.5;
    c[(t * 7) % 64] = (unsigned char)in[T];
    __syncthreads();
    out[T] = a[t] + (unsigned)b[t % 8][t / 8] * 16 + c[t];
}

extern "C" __global__ void shared_dynamic(const unsigned *in, unsigned *out)
{
    extern __shared__ unsigned s[];
    u64 *wide = (u64 *)(s + 256);
    s[threadIdx.x] = in[T];
    wide[threadIdx.x ^ 1] = (u64)in[T] * in[T];
    __syncthreads();
    out[T] = s[(threadIdx.x + 1) % 64] ^ (unsigned)(wide[threadIdx.x] >> 20);
}

extern "C" __global__ void local_arrays(const unsigned *in, unsigned *out)
{
    unsigned a[32], r = 0;
    short s[16];
    for (int k = 0; k < 32; k++) a[k] = in[(T + k) % 128];
    for (int k = 0; k < 16; k++) s[k] = (short)(a[k] >> 3);
    for (int k = 0; k < 32; k++) r = r * 31 + a[(in[T] + k * 5) % 32] + s[(in[T] >> 7) % 16];
    out[T] = r;
}

__constant__ int table[64] = { 3, -1, 4, -1, 5, -9, 2, -6 };
__constant__ double factors[3] = { 0.25, -2.0, 1e10 };
extern "C" __global__ void constants(const unsigned *in, unsigned *out)
{
    out[T] = table[in[T] % 64] * 17 + (unsigned)(long long)(factors[in[T] % 3] * table[T % 8]);
}

struct node { int value; const node *next; const char *name; };
__device__ unsigned counter = 5, zeroed[16];
__device__ const node third = { 30, nullptr, "third" }, second = { 20, &third, "second" }, first = { 10, &second, "first" };
__device__ unsigned *pointer = zeroed + 4;
__device__ const char text[] = "characters\n\t\"\\ of a string";
extern "C" __global__ void globals(const unsigned *in, unsigned *out)
{
    if (T == 0) { counter += in[0] % 10; *pointer = 77; }
    __syncthreads();
    const node *n = &first;
    for (unsigned k = 0; k < in[T] % 3; k++) n = n->next;
    out[T] = n->value + n->name[T % 5] * 256 + text[T % sizeof(text)] * 65536;
    if (T < 16) out[T] += zeroed[T];
    if (T == 20) out[T] = counter;
}

__device__ __noinline__ unsigned sum(const unsigned *p, int n) { unsigned s = 0; for (int k = 0; k < n; k++) s = s * 3 + p[k]; return s; }
__constant__ unsigned few[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
extern "C" __global__ void generic(const unsigned *in, unsigned *out)
{
    __shared__ unsigned s[8];
    unsigned l[8];
    if (threadIdx.x < 8) s[threadIdx.x] = in[threadIdx.x];
    for (int k = 0; k < 8; k++) l[k] = in[T] + k;
    __syncthreads();
    const unsigned *p = in[T] % 4 == 0 ? s : in[T] % 4 == 1 ? l : in[T] % 4 == 2 ? few : in;
    out[T] = sum(p, 8) + __isShared(p) * 2 + __isLocal(p) * 4 + __isGlobal(p) * 8;
}

extern "C" __global__ void hints(const unsigned *in, unsigned *out)
{
    unsigned r = __ldg(in + T) + __ldcg(in + T) + __ldca(in + T) + __ldcs(in + T) + __ldlu(in + T) + __ldcv(in + T);
    volatile unsigned *v = out + 64;
    v[T] = r;
    __stcg(out + T, v[T] * 3);
    __stcs(out + 128 + T, r); __stwt(out + 192 + T, r + 1);
    uint4 q = __ldg((const uint4 *)in + T / 4);
    double2 d = __ldcs((const double2 *)in + T);
    out[256 + T] = q.x + q.w + (unsigned)(__double_as_longlong(d.y) >> 13);
    asm volatile("prefetch.global.L2 [%0];" :: "l"(in));
}

struct big { unsigned a[5]; double d; unsigned char c; };
__device__ __noinline__ big turned(big b, short k) { b.a[k & 3] += b.c; b.d *= 2; b.c++; return b; }
extern "C" __global__ void structures(const unsigned *in, unsigned *out)
{
    big b;
    for (int k = 0; k < 5; k++) b.a[k] = in[T + k];
    b.d = in[T] % 1000; b.c = (unsigned char)T;
    big r = turned(turned(b, (short)T), 3);
    union { float f; unsigned u; } u;
    u.f = (float)r.d;
    out[T] = r.a[0] + r.a[1] * 3 + r.a[2] * 5 + r.a[3] * 7 + r.a[4] + u.u + r.c;
}

extern "C" __global__ void heap(const unsigned *in, unsigned *out)
{
    unsigned n = in[T] % 30 + 2;
    unsigned *p = (unsigned *)malloc(n * 4);
    if (!p) { out[T] = 0; return; }
    for (unsigned k = 0; k < n; k++) p[k] = in[T] * k;
    unsigned r = p[n - 1] + p[1];
    free(p);
    int *q = new int[4];
    q[3] = 5;
    out[T] = r + q[3];
    delete[] q;
}

extern "C" __global__ void copies(const unsigned *in, unsigned *out)
{
#if __CUDA_ARCH__ >= 800
    __shared__ __align__(16) unsigned s[256];
    unsigned at = (unsigned)__cvta_generic_to_shared(s + threadIdx.x * 4);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(at), "l"(in + threadIdx.x * 4));
    asm volatile("cp.async.commit_group;\n cp.async.wait_group 0;" ::: "memory");
    __syncthreads();
    unsigned r = s[(threadIdx.x * 11) % 256];
    __syncthreads();
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" :: "r"(at), "l"(in + threadIdx.x), "r"(threadIdx.x % 2 * 4));
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    out[T] = r + s[threadIdx.x * 4];
#endif
}
