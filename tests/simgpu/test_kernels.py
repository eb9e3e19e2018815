# SPDX-License-Identifier: Apache-2.0
"""Kernels that NVRTC compiles, compared with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from cuda.bindings import driver

SOURCE = r"""
extern "C" __global__ void saxpy(float a, const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
extern "C" __global__ void reduce(const float *x, float *out, int n) {
    __shared__ float s[256];
    int t = threadIdx.x;
    float v = 0;
    for (int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x) v += x[i];
    s[t] = v;
    __syncthreads();
    for (int k = 128; k >= 32; k >>= 1) { if (t < k) s[t] += s[t + k]; __syncthreads(); }
    if (t < 32) {
        v = s[t];
        for (int k = 16; k; k >>= 1) v += __shfl_down_sync(~0u, v, k);
        if (!t) atomicAdd(out, v);
    }
}
extern "C" __global__ void matmul(const float *a, const float *b, float *c, int n) {
    __shared__ float A[16][16], B[16][16];
    int r = blockIdx.y * 16 + threadIdx.y, q = blockIdx.x * 16 + threadIdx.x;
    float s = 0;
    for (int k = 0; k < n; k += 16) {
        A[threadIdx.y][threadIdx.x] = a[r * n + k + threadIdx.x];
        B[threadIdx.y][threadIdx.x] = b[(k + threadIdx.y) * n + q];
        __syncthreads();
        for (int j = 0; j < 16; j++) s += A[threadIdx.y][j] * B[j][threadIdx.x];
        __syncthreads();
    }
    c[r * n + q] = s;
}
extern "C" __global__ void histogram(const unsigned char *x, unsigned *h, int n) {
    extern __shared__ unsigned s[];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) s[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&s[x[i]], 1u);
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&h[i], s[i]);
}
extern "C" __global__ void shuffles(unsigned *out) {
    unsigned t = threadIdx.x, *o = out + t * 8;
    o[0] = __shfl_sync(~0u, t * 3, 5);
    o[1] = __shfl_up_sync(~0u, t, 2);
    o[2] = __shfl_xor_sync(~0u, t, 9);
    o[3] = __shfl_down_sync(~0u, t, 3, 8);
    o[4] = __ballot_sync(~0u, t % 3 == 0);
    o[5] = __any_sync(~0u, t == 40) | __all_sync(~0u, t < 32) << 1;
    o[6] = __syncthreads_count(t & 1);
    o[7] = __match_any_sync(~0u, t / 4);
}
extern "C" __global__ void lock(int *mutex, int *value) {
    bool done = false;
    while (!done) {
        if (atomicCAS(mutex, 0, 1) == 0) { *value += 1; __threadfence(); atomicExch(mutex, 0); done = true; }
    }
}
__device__ __noinline__ int collatz(int n) { int k = 0; while (n != 1) { n = n & 1 ? 3 * n + 1 : n / 2; k++; } return k; }
extern "C" __global__ void steps(int *out) { int i = blockIdx.x * blockDim.x + threadIdx.x; out[i] = collatz(i + 1); }
extern "C" __global__ void functions(const double *x, double *d, float *f, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    d[i] = sin(x[i]) * exp(-x[i] * x[i]) + sqrt(fabs(x[i])) + pow(fabs(x[i]), 1.5) + log1p(fabs(x[i])) + atan2(x[i], 2.0);
    float y = (float)x[i];
    f[i] = cosf(y) + expf(y) + log2f(fabsf(y) + 1.f) + rsqrtf(fabsf(y) + 1.f) + tanhf(y) + erff(y);
}
"""


@pytest.mark.parametrize("arch", ["75", "90"])
def test_saxpy(gpu, arch):
    x, y = (np.random.default_rng(1).random(1000, dtype=np.float32) for _ in range(2))
    px, py = gpu.put(x), gpu.put(y)
    gpu.launch(gpu.function(SOURCE, "saxpy", arch), (8,), (128,), np.float32(2.5), px, py, np.int32(1000))
    np.testing.assert_allclose(gpu.get(py, y), np.float32(2.5) * x + y, rtol=1e-6)


def test_reduction(gpu):
    x = np.random.default_rng(2).random(5000, dtype=np.float32)
    out = gpu.put(np.zeros(1, np.float32))
    gpu.launch(gpu.function(SOURCE, "reduce"), (4,), (256,), gpu.put(x), out, np.int32(x.size))
    np.testing.assert_allclose(gpu.get(out, np.zeros(1, np.float32))[0], x.sum(), rtol=1e-4)


def test_tiled_matrix_product(gpu):
    a, b = np.random.default_rng(3).random((2, 48, 48), dtype=np.float32)
    c = gpu.put(np.zeros_like(a))
    gpu.launch(gpu.function(SOURCE, "matmul"), (3, 3), (16, 16), gpu.put(a), gpu.put(b), c, np.int32(48))
    np.testing.assert_allclose(gpu.get(c, a), a @ b, rtol=1e-4)


def test_histogram(gpu):
    x = np.random.default_rng(4).integers(0, 256, 9000).astype(np.uint8)
    h = gpu.put(np.zeros(256, np.uint32))
    gpu.launch(gpu.function(SOURCE, "histogram"), (3,), (96,), gpu.put(x), h, np.int32(x.size), shared=1024)
    np.testing.assert_array_equal(gpu.get(h, np.zeros(256, np.uint32)), np.bincount(x, minlength=256))


def test_shuffles_and_votes(gpu):
    out = gpu.put(np.zeros((32, 8), np.uint32))
    gpu.launch(gpu.function(SOURCE, "shuffles"), (1,), (32,), out)
    o, t = gpu.get(out, np.zeros((32, 8), np.uint32)), np.arange(32)
    np.testing.assert_array_equal(o[:, 0], 15)
    np.testing.assert_array_equal(o[:, 1], np.where(t < 2, t, t - 2))
    np.testing.assert_array_equal(o[:, 2], t ^ 9)
    np.testing.assert_array_equal(o[:, 3], np.where(t % 8 < 5, t + 3, t))
    np.testing.assert_array_equal(o[:, 4], sum(1 << int(i) for i in t if i % 3 == 0))
    np.testing.assert_array_equal(o[:, 5], 2)
    np.testing.assert_array_equal(o[:, 6], 16)
    np.testing.assert_array_equal(o[:, 7], [15 << (int(i) // 4 * 4) for i in t])


def test_lanes_of_a_warp_that_spin_for_each_other(gpu):
    mutex, value = gpu.put(np.zeros(1, np.int32)), gpu.put(np.zeros(1, np.int32))
    gpu.launch(gpu.function(SOURCE, "lock"), (2,), (64,), mutex, value)
    assert gpu.get(value, np.zeros(1, np.int32))[0] == 128


def test_call_of_a_function_with_divergent_loops(gpu):
    def collatz(n: int) -> int:
        k = 0
        while n != 1:
            n, k = (3 * n + 1 if n & 1 else n // 2), k + 1
        return k

    out = gpu.put(np.zeros(128, np.int32))
    gpu.launch(gpu.function(SOURCE, "steps"), (2,), (64,), out)
    np.testing.assert_array_equal(gpu.get(out, np.zeros(128, np.int32)), [collatz(i + 1) for i in range(128)])


def test_mathematical_functions(gpu):
    x = np.concatenate([np.random.default_rng(5).normal(0, 5, 500), [0.0, 1e6, -1e9, 1e-300]])
    d, f = gpu.put(x), gpu.put(x.astype(np.float32))
    gpu.launch(gpu.function(SOURCE, "functions"), (4,), (128,), gpu.put(x), d, f, np.int32(x.size))
    with np.errstate(over="ignore"):
        want = np.sin(x) * np.exp(-x * x) + np.sqrt(abs(x)) + abs(x) ** 1.5 + np.log1p(abs(x)) + np.arctan2(x, 2)
    np.testing.assert_allclose(gpu.get(d, x), want, rtol=1e-13)
    import math
    y = x.astype(np.float32).astype(np.float64)
    small = abs(y) < 80
    want = np.cos(y) + np.exp(np.where(small, y, 0)) + np.log2(abs(y) + 1) + 1 / np.sqrt(abs(y) + 1) + np.tanh(y)
    want += [math.erf(v) for v in y]
    np.testing.assert_allclose(gpu.get(f, x.astype(np.float32))[small], want[small], rtol=1e-5, atol=1e-5)


EXPRESSIONS = {
    "add": ("a+b", lambda a, b: a + b), "sub": ("a-b", lambda a, b: a - b), "mul": ("a*b", lambda a, b: a * b),
    "and": ("a&b", lambda a, b: a & b), "or": ("a|b", lambda a, b: a | b), "xor": ("a^b", lambda a, b: a ^ b),
    "shl": ("a<<(b&7)", lambda a, b: a << (b & a.dtype.type(7))), "shr": ("a>>(b&7)", lambda a, b: a >> (b & a.dtype.type(7))),
    "less": ("(a<b)*3", lambda a, b: ((a < b) * 3).astype(a.dtype)), "min": ("a<b?a:b", np.minimum),
    "max": ("a>b?a:b", np.maximum), "not": ("~a", lambda a, b: ~a),
    "mix": ("(a*7-b)^(a>>3)", lambda a, b: (a * a.dtype.type(7) - b) ^ (a >> a.dtype.type(3))),
}
TYPES = {"signed char": np.int8, "unsigned short": np.uint16, "short": np.int16, "int": np.int32, "unsigned": np.uint32,
         "long long": np.int64, "unsigned long long": np.uint64}


@pytest.mark.parametrize("ctype", TYPES)
def test_integer_arithmetic(gpu, ctype):
    dtype, rng = TYPES[ctype], np.random.default_rng(6)
    info = np.iinfo(dtype)
    a, b = (rng.integers(info.min, info.max, 256, dtype=dtype, endpoint=True) for _ in range(2))
    a[:4], b[:4] = [info.min, info.max, 0, 1], [info.max, info.min, info.max, 0]
    body = "".join(f"o[{k}*256+i]=({ctype})({e});" for k, (e, _) in enumerate(EXPRESSIONS.values()))
    source = f'extern "C" __global__ void k(const {ctype}*x,const {ctype}*y,{ctype}*o){{int i=threadIdx.x;{ctype} a=x[i],b=y[i];{body}}}'
    like = np.zeros((len(EXPRESSIONS), 256), dtype)
    out = gpu.put(like)
    gpu.launch(gpu.function(source, "k"), (1,), (256,), gpu.put(a), gpu.put(b), out)
    result = gpu.get(out, like)
    for row, (name, (_, f)) in zip(result, EXPRESSIONS.items()):
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(row, f(a, b), err_msg=f"{name} of {ctype}")


@pytest.mark.parametrize("ctype", ["int", "unsigned", "long long", "unsigned long long"])
def test_division(gpu, ctype):
    dtype, rng = TYPES[ctype], np.random.default_rng(7)
    info = np.iinfo(dtype)
    a = rng.integers(info.min, info.max, 256, dtype=dtype, endpoint=True)
    b = np.maximum(rng.integers(1, 1 << 20, 256).astype(dtype), 1)
    source = f'extern "C" __global__ void k(const {ctype}*x,const {ctype}*y,{ctype}*o){{int i=threadIdx.x;o[i]=x[i]/y[i];o[256+i]=x[i]%y[i];}}'
    out = gpu.put(np.zeros(512, dtype))
    gpu.launch(gpu.function(source, "k"), (1,), (256,), gpu.put(a), gpu.put(b), out)
    r = gpu.get(out, np.zeros(512, dtype))
    want = [int(abs(int(x)) // int(y)) * (1 if x >= 0 else -1) for x, y in zip(a, b)]
    np.testing.assert_array_equal(r[:256], want)
    np.testing.assert_array_equal(r[256:], [int(x) - q * int(y) for x, q, y in zip(a, want, b)])


def test_conversions_and_comparisons_of_special_floats(gpu):
    x = np.array([0.0, -0.0, 1.5, 2.5, -1.5, np.nan, np.inf, -np.inf, 3e9, -3e9, 1e-40, 0.999999], np.float32)
    source = r"""extern "C" __global__ void k(const float *x, int *o, int n) {
        int i = threadIdx.x; float a = x[i], b = x[(i + 1) % n]; int *p = o + i * 10;
        p[0] = __float2int_rn(a); p[1] = __float2int_rz(a); p[2] = __float2int_rd(a); p[3] = __float2uint_rn(a) >> 1;
        p[4] = a < b; p[5] = !(a >= b); p[6] = a != b; p[7] = isnan(a); p[8] = __float_as_int(fminf(a, b));
        p[9] = __float_as_int(__fadd_rz(a, 1e-8f)); }"""
    out = gpu.put(np.zeros((x.size, 10), np.int32))
    gpu.launch(gpu.function(source, "k"), (1,), (x.size,), gpu.put(x), out, np.int32(x.size))
    o, y = gpu.get(out, np.zeros((x.size, 10), np.int32)), np.roll(x, -1)
    clamp = np.nan_to_num(x.astype(np.float64), nan=0, posinf=1e10, neginf=-1e10)
    for column, f in ((0, np.rint), (1, np.trunc), (2, np.floor)):
        np.testing.assert_array_equal(o[:, column], np.clip(f(clamp), -(2**31), 2**31 - 1))
    np.testing.assert_array_equal(o[:, 3], np.clip(np.rint(clamp), 0, 2**32 - 1).astype(np.int64) >> 1)
    np.testing.assert_array_equal(o[:, 4], x < y)
    np.testing.assert_array_equal(o[:, 5], ~(x >= y))
    np.testing.assert_array_equal(o[:, 6], x != y)
    np.testing.assert_array_equal(o[:, 7], np.isnan(x))
    np.testing.assert_array_equal(o[:, 8].view(np.float32), np.fmin(x, y))
    assert o[2, 9:].view(np.float32)[0] == np.float32(1.5)  # toward zero: unchanged


def test_malloc_of_device_code_gives_as_much_as_the_limit_allows(gpu, ok):
    source = 'extern "C" __global__ void takes(size_t n, int *p) { char *m = (char *)malloc(n); *p = m != 0; if (m) m[n - 1] = 1; free(m); }'
    got, before = [], ok(driver.cuCtxGetLimit(driver.CUlimit.CU_LIMIT_MALLOC_HEAP_SIZE))
    for limit in (before, 32 << 20):
        ok(driver.cuCtxSetLimit(driver.CUlimit.CU_LIMIT_MALLOC_HEAP_SIZE, limit))
        out = gpu.put(np.full(1, 7, np.int32))
        gpu.launch(gpu.function(source, "takes"), (1,), (1,), np.uint64(20 << 20), out)
        got.append(int(gpu.get(out, np.zeros(1, np.int32))[0]))
    assert (before, got) == (8 << 20, [0, 1])


def test_elements_of_arrays_by_index(gpu, ok, capfd):
    """`a[2]` is the address of an element for mov, and the element for a load; `a+4` counts bytes."""
    body = """.version 7.8\n.target sm_75\n.address_size 64\n.global .align 4 .u32 table[4] = { 10, 11, 12, 13 };
.visible .entry k(.param .u64 out) {\n.reg .b32 %r<8>; .reg .b64 %rd<8>;\n.shared .align 8 .b16 s[32];
ld.param.u64 %rd0, [out];\nld.global.u32 %r0, table[3];\nmov.u64 %rd1, table[2];\nld.global.u32 %r1, [%rd1];
mov.u32 %r2, s[5];\nmov.u32 %r3, s;\nsub.u32 %r2, %r2, %r3;\nmov.u64 %rd2, table+4;\nld.global.u32 %r3, [%rd2];
st.global.v4.u32 [%rd0], {%r0, %r1, %r2, %r3};\nret; }\0"""
    out = gpu.put(np.zeros(4, np.uint32))
    gpu.launch(ok(driver.cuModuleGetFunction(ok(driver.cuModuleLoadData(body.encode())), b"k")), (1,), (1,), out)
    assert gpu.get(out, np.zeros(4, np.uint32)).tolist() == [13, 12, 10, 11]
    assert int(driver.cuModuleLoadData(body.replace("table[3]", "table[%r0]").encode())[0]) == 218
    assert "PTX line 9, kernel k: '%r0' behind a variable is no number" in capfd.readouterr().err
