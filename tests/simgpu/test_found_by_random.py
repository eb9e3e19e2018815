# SPDX-License-Identifier: Apache-2.0
"""What random programs found: results that once differed from the host's, or between the interpreter and translated code."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import compile_ptx
from device import Device

SOURCE = r"""
typedef unsigned u32; typedef unsigned long long u64; typedef unsigned __int128 u128;
// Parts of a warp at one instruction, each with a mask of its own.
extern "C" __global__ void parts(const u32 *in, u32 *out)
{
    u32 l = threadIdx.x, size = 1u << (in[0] & 31), first = l & ~(size - 1), m = (size == 32 ? ~0u : (1u << size) - 1) << first, r = 0, eq = 0;
    r = __any_sync(m, l == first + 1) | __all_sync(m, l < 16) << 1 | (__ballot_sync(m, l & 1) == (m & 0xaaaaaaaau)) << 2;
    eq = __match_any_sync(m, l & 3);
    r |= (eq == (m & 0x11111111u << (l & 3))) << 3 | (__reduce_add_sync(m, l - first) == size * (size - 1) / 2) << 4;
    r |= (__shfl_sync(m, l, 0, size) == first) << 5;
    out[l] = r;
}
// Masks by label: lanes that are apart in the warp belong together.
extern "C" __global__ void labels(const u32 *in, u32 *out)
{
    u32 l = threadIdx.x, label = in[l] & 3, m = __match_any_sync(~0u, label);
    out[l] = __reduce_add_sync(m, in[l]) * 33 + __popc(__ballot_sync(m, in[l] & 4));
}
// What is the same for all lanes of the launch, but computed by some of them only.
extern "C" __global__ void stride(const u32 *in, u32 *out)
{
    u32 l = threadIdx.x, s = 0;
    if (l >= 13) {
        const u32 *q = in + l;
        u32 n = gridDim.x * 3 + 1;
#pragma unroll 1
        for (u32 k = 0; k < 7 + (l & 1); k++) { s += *q; q += n; }
    }
    out[l] = s;
}
// Lane 1 waits for lane 0, which waits for lane 2, which takes long.
extern "C" __global__ void chain(const u32 *in, u32 *out)
{
    __shared__ volatile u32 s[3];
    u32 l = threadIdx.x, r = 0;
    if (l < 3) s[l] = 0;
    __syncwarp();
    if (l == 2) {
        u32 x = in[0];
#pragma unroll 1
        for (u32 i = 0; i < 300000 + in[1]; i++) x = x * 3 + (x >> 7);
        s[2] = x | 1;
    }
    if (l == 0 || l == 2) { __syncwarp(5u); if (l == 0) s[0] = s[2]; }
    if (l == 0 || l == 1) { __syncwarp(3u); r = s[0] != 0; }
    out[l] = r;
}
extern "C" __global__ void quotients(const u32 *in, u64 *out)
{
    u32 l = threadIdx.x;
    u64 h = (in[l] + 1) * 0x9E3779B97F4A7C15ull, g = (in[l] + 7) * 0xBF58476D1CE4E5B9ull;
    u128 a = (u128)h << 64 | g, b = (u128)(g >> (l & 15) * 3) << 64 | h;
    out[2 * l] = (u64)(a / b);
    out[2 * l + 1] = (u64)(a % b);
}
"""
HEAD = """.version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n{
.reg .pred %p<3>; .reg .b16 %h<2>; .reg .b32 %r<8>; .reg .f32 %f<2>; .reg .b64 %rd<5>;
ld.param.u64 %rd0, [in];\nld.param.u64 %rd1, [out];\nmov.u32 %r0, %tid.x;\nmul.wide.u32 %rd2, %r0, 4;
add.s64 %rd0, %rd0, %rd2;\nadd.s64 %rd1, %rd1, %rd2;\nld.global.u32 %r1, [%rd0];\nmov.b32 %f1, %r1;\n"""
TAIL = "\nst.global.u32 [%rd1], %r2;\nret;\n}\n"
HUGE, INFINITE, MINUS = 0x49742400, 0x7F800000, 0xFF800000  # 1e6: too large for a half


@pytest.fixture(scope="module")
def ptx():
    return compile_ptx(SOURCE, "90", "--device-int128").rstrip(b"\0 ")


def run(device: Device, text: bytes | str, name: str, given: np.ndarray, out: np.ndarray) -> np.ndarray:
    to = device.put(out)
    device.launch(device.function(device.load(text), name), 1, 32, device.put(given), to)
    return device.get(to, out)


@pytest.mark.parametrize("power", [1, 2, 3, 4, 5])
def test_parts_of_a_warp_with_masks_of_their_own(device, ptx, power):
    size, got = 1 << power, run(device, ptx, "parts", np.full(32, power, np.uint32), np.zeros(32, np.uint32))
    assert got.tolist() == [0b111101 | ((t & ~(size - 1)) + size <= 16) << 1 for t in range(32)]


def test_parts_by_label(device, ptx):
    given = np.random.default_rng(8).integers(0, 1000, 32).astype(np.uint32)
    same = given[:, None] & 3 == given & 3
    want = (same * given).sum(axis=1) * 33 + (same & (given & 4 != 0)).sum(axis=1)
    assert (run(device, ptx, "labels", given, np.zeros(32, np.uint32)) == want).all()


def test_what_only_some_lanes_computed(device, ptx):
    given = np.arange(1, 201, dtype=np.uint32)
    want = [sum(int(given[t + 4 * k]) for k in range(7 + (t & 1))) if t >= 13 else 0 for t in range(32)]
    assert run(device, ptx, "stride", given, np.zeros(32, np.uint32)).tolist() == want


def test_lanes_that_wait_in_a_chain(device, ptx):
    assert run(device, ptx, "chain", np.array([1, 0], np.uint32), np.zeros(32, np.uint32)).tolist() == [1, 1] + [0] * 30


def test_quotients_of_128_bits(device, ptx):
    """NVIDIA's own code for them adds with the carry that a subtraction left: it says that there was no borrow."""
    given, whole = np.arange(1, 33, dtype=np.uint32), 1 << 64
    got = run(device, ptx, "quotients", given, np.zeros((32, 2), np.uint64)).tolist()
    for t in range(32):
        h, g = (int(given[t]) + 1) * 0x9E3779B97F4A7C15 % whole, (int(given[t]) + 7) * 0xBF58476D1CE4E5B9 % whole
        a, b = h << 64 | g, (g >> (t & 15) * 3) << 64 | h
        assert got[t] == [a // b % whole, a % b % whole], t


@pytest.mark.parametrize("code,given,want", [
    ("max.s32.relu %r2, %r1, -7;", [0xFFFFFFFB, 5, 0], [0, 5, 0]),
    ("min.s32.relu %r2, %r1, 3;", [0xFFFFFFFB, 5, 2], [0, 3, 2]),
    ("min.s16x2.relu %r2, %r1, 0x00050005;", [0xFFFE0003, 0x0007FFFD, 0x00010001], [3, 0x00050000, 0x00010001]),
    ("max.s16x2.relu %r2, %r1, 0xfffafffa;", [0xFFFE0003, 0x8000FFFD, 0x00010001], [3, 0, 0x00010001]),
    ("mad24.hi.sat.s32 %r2, %r1, %r1, 2147483647;", [0x7FFFFF, 0, 3], [0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF]),
    ("mad24.hi.sat.s32 %r2, %r1, 1000000, -2147483600;", [0xFFF00000, 0, 0x400000], [0x80000000, 0x80000030, 0x83D09030]),
    ("cvt.rn.satfinite.f16.f32 %h1, %f1; cvt.u32.u16 %r2, %h1;", [HUGE, MINUS, 0x3F800000], [0x7BFF, 0xFBFF, 0x3C00]),
    ("cvt.rn.satfinite.bf16x2.f32 %r2, %f1, %f1;", [INFINITE, MINUS, 0x3F800000], [0x7F7F7F7F, 0xFF7FFF7F, 0x3F803F80]),
    ("cvt.rna.satfinite.tf32.f32 %r2, %f1;", [INFINITE, MINUS, 0x3F800000], [0x7F7FE000, 0xFF7FE000, 0x3F800000]),
    ("setp.lt.u32 %p0, %r1, 16; setp.gt.u32 %p1, %r1, 64; @%p0 setp.lt.u32 %p0|%p1, %r1, 8;\n"
     "selp.u32 %r2, 1, 0, %p0; selp.u32 %r3, 2, 0, %p1; add.u32 %r2, %r2, %r3;", [3, 9, 20], [1, 2, 0]),
], ids=lambda v: v.split()[0] if isinstance(v, str) else "")
def test_instruction(device, code, given, want):
    assert run(device, HEAD + code + TAIL, "k", np.resize(np.array(given, np.uint32), 32), np.zeros(32, np.uint32))[:3].tolist() == want
