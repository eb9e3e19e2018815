# SPDX-License-Identifier: Apache-2.0
"""Products by nvcuda::wmma in every shape, type and layout, as CUDA C++, and what they must give."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

MEMORY = {"wmma::precision::tf32": "float"}  # what lies in memory, where that has another name
PADDING = 16  # elements behind each row or column


@dataclass(frozen=True)
class Product:
    """D = scale * (A B + C): shape, types of A and of C, layouts of A, B and of C, and where A lies."""

    m: int
    n: int
    k: int
    a: str
    c: str
    layouts: str          # three of r and c
    shared: bool = False
    since: int = 75

    @property
    def name(self) -> str:
        word = {"wmma::precision::tf32": "tf32", "__nv_bfloat16": "bf16"}.get(self.a, self.a.replace(" char", "8"))
        return f"m{self.m}n{self.n}k{self.k}_{word}_{self.c}_{self.layouts}{'_shared' * self.shared}"


def products() -> list[Product]:
    """All types in all shapes, with layouts in turn."""
    every = ["rcr", "ccc", "rrr", "crc"]
    types = [("half", "half", 75), ("half", "float", 75), ("__nv_bfloat16", "float", 80), ("signed char", "int", 75), ("unsigned char", "int", 75)]
    out = [Product(*s, a, c, every[(at + x) % 4], bool((at + x) % 2), since) for at, (a, c, since) in enumerate(types)
           for x, s in enumerate(((16, 16, 16), (32, 8, 16), (8, 32, 16)))]
    out += [Product(16, 16, 8, "wmma::precision::tf32", "float", lay, since=80) for lay in every]
    out += [Product(8, 8, 4, "double", "double", lay, since=80) for lay in every]
    out += [Product(16, 16, 16, "half", "float", lay, shared) for lay in every for shared in (False, True)]
    return list(dict.fromkeys(out))


SOURCE = r"""
#include <mma.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>
using namespace nvcuda;
template <int M, int N, int K, class A, class C, class LA, class LB, class T>
__device__ void product(const T *a, const T *b, const C *c, C *d, int la, int lb, int lc, wmma::layout_t order, int *counts)
{
    wmma::fragment<wmma::matrix_a, M, N, K, A, LA> fa;
    wmma::fragment<wmma::matrix_b, M, N, K, A, LB> fb;
    wmma::fragment<wmma::accumulator, M, N, K, C> fc, fd;
    wmma::load_matrix_sync(fa, a, la);
    wmma::load_matrix_sync(fb, b, lb);
    wmma::load_matrix_sync(fc, c, lc, order);
    wmma::mma_sync(fd, fa, fb, fc);
    for (int i = 0; i < fd.num_elements; i++) fd.x[i] = fd.x[i] + fd.x[i];
    wmma::store_matrix_sync(d, fd, lc, order);
    if (!threadIdx.x) { counts[0] = fa.num_elements; counts[1] = fb.num_elements; counts[2] = fd.num_elements; }
}
"""


def source(chosen: list[Product]) -> str:
    """A kernel for each, of (a, b, c, d, counts): in shared memory A is read through a copy."""
    text = SOURCE
    for p in chosen:
        layout = {"r": "wmma::row_major", "c": "wmma::col_major"}
        t = MEMORY.get(p.a, p.a)
        la, lb, lc = (s[1] for s in shapes(p))
        order = "wmma::mem_row_major" if p.layouts[2] == "r" else "wmma::mem_col_major"
        size = (p.m if p.layouts[0] == "r" else p.k) * la
        copy = (f"__shared__ __align__(32) {t} s[{size}]; for (int i = threadIdx.x; i < {size}; i += 32) s[i] = a[i]; __syncwarp(); a = s;"
                if p.shared else "")
        text += (f'extern "C" __global__ void {p.name}(const {t} *a, const {t} *b, const {p.c} *c, {p.c} *d, int *n) {{ {copy}\n'
                 f"product<{p.m}, {p.n}, {p.k}, {p.a}, {p.c}, {layout[p.layouts[0]]}, {layout[p.layouts[1]]}>"
                 f"(a, b, c, d, {la}, {lb}, {lc}, {order}, n); }}\n")
    return text


def shapes(p: Product) -> list[tuple[int, int]]:
    """Of A, B and C in memory: how many rows or columns, and how far apart they lie."""
    logical = ((p.m, p.k), (p.k, p.n), (p.m, p.n))
    return [(size[lay == "c"], size[lay == "r"] + PADDING) for size, lay in zip(logical, p.layouts)]


def stored(values: np.ndarray, kind: str) -> np.ndarray:
    """Numbers that the type holds exactly, as it has them in memory."""
    if kind == "__nv_bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype({"half": np.float16, "wmma::precision::tf32": np.float32, "double": np.float64, "signed char": np.int8,
                          "unsigned char": np.uint8, "float": np.float32, "int": np.int32}[kind])


def inputs(p: Product) -> list[np.ndarray]:
    """A, B and C in memory, the padding included: small multiples of 1/4, so that every sum is exact."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(p.name.encode())))
    whole = p.c == "int"
    low, high = (0, 200) if p.a == "unsigned char" else (-100, 100) if whole else (-15, 16)
    out = [rng.integers(low, high, s) / (1 if whole else 4) for s in shapes(p)]
    return [stored(out[0], p.a), stored(out[1], p.a), stored(out[2], p.c)]


def expected(p: Product, scale: int) -> tuple[np.ndarray, list[int]]:
    """D in memory, with zeros in the padding, and the numbers of elements of the fragments."""
    real = [(x.astype(np.uint32) << 16).view(np.float32) if k == "__nv_bfloat16" else x for x, k in zip(inputs(p), (p.a, p.a, p.c))]
    a, b, c = ((x[:, :-PADDING] if lay == "r" else x[:, :-PADDING].T).astype(np.float64) for x, lay in zip(real, p.layouts))
    d = scale * (a @ b + c)
    full = np.zeros(shapes(p)[2])
    full[:, :-PADDING] = d if p.layouts[2] == "r" else d.T
    counts = [16, 16] if p.a == "half" else [p.m * p.k // 32, p.k * p.n // 32]
    return stored(full, p.c), [*counts, p.m * p.n // 32]


def result(device: object, module: object, p: Product) -> tuple[np.ndarray, list[int]]:
    """What the kernel left in D, and the counts."""
    a, b, c = inputs(p)
    buffers = [device.put(x) for x in (a, b, c, np.zeros_like(c), np.zeros(4, np.int32))]
    device.launch(device.function(module, p.name), 1, 32, *buffers)
    d, counts = device.get(buffers[3], c), device.get(buffers[4], np.zeros(4, np.int32))
    device.free(*buffers)
    return d, counts[:3].tolist()


# ---- the same as PTX text, for machines without NVIDIA's headers ----

WORDS = {"half": "f16", "__nv_bfloat16": "bf16", "wmma::precision::tf32": "tf32", "double": "f64", "signed char": "s8",
         "unsigned char": "u8", "float": "f32", "int": "s32"}


def _registers(p: Product) -> dict[str, int]:
    """As the manual lists them."""
    bits = {"f16": 16, "bf16": 16, "tf32": 32, "f64": 64, "s8": 8, "u8": 8, "f32": 32, "s32": 32}
    a, c = bits[WORDS[p.a]], bits[WORDS[p.c]]
    word, sizes = (64 if a == 64 else 32), {"a": p.m * p.k * a, "b": p.k * p.n * a, "c": p.m * p.n * c}
    found = {role: size // (32 * word) for role, size in sizes.items()}
    return found | {"d": found["c"]} | ({"a": 8, "b": 8} if p.a == "half" else {})


def kernel(p: Product, spaces: tuple[str, str]) -> str:
    """D = A B + C; `spaces`: how addresses in shared and in global memory are given, empty: as generic ones."""
    shape, a, c = f"m{p.m}n{p.n}k{p.k}", WORDS[p.a], WORDS[p.c]
    bits = 64 if a == "f64" else 32
    vectors = {role: "{" + ", ".join(f"%{role}r{k}" for k in range(nr)) + "}" for role, nr in _registers(p).items()}
    declared = ", ".join(f"%{role}r<{nr}>" for role, nr in _registers(p).items())
    layout = dict(zip("abcd", [{"r": "row", "c": "col"}[x] for x in p.layouts + p.layouts[2]]))
    (rows, la), (_, lb), (_, lc) = shapes(p)
    bytes_of_a = rows * la * {"f16": 2, "bf16": 2, "tf32": 4, "f64": 8, "s8": 1, "u8": 1}[a]
    shared, other = spaces if p.shared else (spaces[1], spaces[1])
    copy = (f"mov.u32 %i, %tid.x; mul.wide.u32 %o, %i, 4; cvt.u32.u64 %i, %o; LOOP: add.u64 %o, %pa, %o; ld.global.u32 %v, [%o]; mov.u32 %s, rows; "
            f"add.u32 %s, %s, %i; st.shared.u32 [%s], %v; add.u32 %i, %i, 128; cvt.u64.u32 %o, %i; setp.lt.u32 %p, %i, {bytes_of_a}; "
            f"@%p bra LOOP; bar.warp.sync 0xffffffff; mov.u64 %pa, rows; {'' if shared else 'cvta.shared.u64 %pa, %pa;'}") if p.shared else ""
    types = f"{c}.{c}" if a == "f16" else f"{c}.{a}.{a}.{c}"
    return f""".visible .entry {p.name}(.param .u64 p0, .param .u64 p1, .param .u64 p2, .param .u64 p3, .param .u64 p4) {{
.shared .align 32 .b8 rows[{bytes_of_a + 128}];
.reg .b{bits} {declared}; .reg .u64 %pa, %pb, %pc, %pd, %o; .reg .u32 %v, %s, %i; .reg .pred %p;
ld.param.u64 %pa, [p0]; ld.param.u64 %pb, [p1]; ld.param.u64 %pc, [p2]; ld.param.u64 %pd, [p3];
{copy}
wmma.load.a.sync.aligned.{layout['a']}.{shape}{shared}.{a} {vectors['a']}, [%pa], {la};
wmma.load.b.sync.aligned.{layout['b']}.{shape}{other}.{a} {vectors['b']}, [%pb], {lb};
mov.u32 %v, {lc};
wmma.load.c.sync.aligned.{layout['c']}.{shape}{other}.{c} {vectors['c']}, [%pc], %v;
wmma.mma.sync.aligned.{layout['a']}.{layout['b']}.{shape}.{types} {vectors['d']}, {vectors['a']}, {vectors['b']}, {vectors['c']};
wmma.store.d.sync.aligned.{layout['d']}.{shape}{other}.{c} [%pd], {vectors['d']}, %v;
ret; }}
"""


def module(chosen: list[Product], spaces: tuple[str, str]) -> str:
    """PTX text of their kernels."""
    return ".version 8.4\n.target sm_90\n.address_size 64\n" + "".join(kernel(p, spaces) for p in chosen)
