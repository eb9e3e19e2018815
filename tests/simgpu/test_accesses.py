# SPDX-License-Identifier: Apache-2.0
"""Loads and stores of translated kernels: whatever the lanes' addresses have in common, and whichever lanes take part."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import LIBRARY, compile_ptx
from cuda.bindings import driver
from device import Device, DeviceError

#: Where thread t reads in turn k of a loop, in elements.
PATTERNS = {"one": "7 + k", "next": "t + k * 3", "apart": "3 * t + k", "back": "200 - t - k", "tiles": "t % 16 + k", "rows": "t / 16 * 5 + k",
            "small": "t % 8 * 3 + t / 8 + k", "squares": "t * t % 101 + k", "mixed": "(t < 16 ? 4 : t) + k"}
TYPES = {"signed char": np.int8, "unsigned short": np.uint16, "int": np.int32, "long long": np.int64}
KINDS = dict(zip(PATTERNS, list(TYPES) * 3))  # one type each: a compiler's run costs
BLOCK, TURNS, SIZE = 80, 5, 1024
SOURCE = "".join(rf"""
extern "C" __global__ void {name}(const {kind} *in, long long *out, {kind} *copy, long long from, long long to)
{{
    __shared__ {kind} s[{SIZE}];
    {kind} mine[{TURNS}];
    long long t = threadIdx.x, sum = 0;
    for (int k = t; k < {SIZE}; k += blockDim.x) s[k] = in[k];
    __syncthreads();
    if (t < from || t >= to) return;
    for (int k = 0; k < {TURNS}; k++) {{ long long i = {pattern}; sum += in[i] * 3 + s[i] * 5; mine[(k + t) % {TURNS}] = in[i]; }}
    for (int k = 0; k < {TURNS}; k++) sum = sum * 7 + mine[k];
    out[t] = sum;
    {{ int k = 0; copy[{pattern}] = in[{pattern}] + 1; }}
}}""" for (name, pattern), kind in zip(PATTERNS.items(), KINDS.values()))
VECTORS = r"""
extern "C" __global__ void vectors(const float4 *in, float4 *out, const double2 *two, double2 *back, long long from, long long to)
{
    long long t = threadIdx.x;
    if (t < from || t >= to) return;
    float4 v = in[t], w = in[t / 3];
    out[t] = make_float4(v.x + w.w, v.y - w.z, v.z * w.y, v.w + w.x);
    double2 d = two[99 - t];
    back[t] = make_double2(d.y, d.x);
}
extern "C" __global__ void beyond(const int *in, int *out, long long step)
{
    int s = 0;
    const int *p = in + threadIdx.x;
    for (int k = 0; k < 100; k++, p += step) s += *p;
    out[threadIdx.x] = s;
}
"""
PARTS = [(0, BLOCK), (0, 1), (3, 17), (31, 34), (40, 63)]


@pytest.fixture(scope="module")
def loaded():
    device = Device(str(LIBRARY))
    yield device, device.load(compile_ptx(SOURCE + VECTORS).rstrip(b"\0 "))
    driver.cuDevicePrimaryCtxReset(0)  # what is read beyond its end poisons it


@pytest.fixture
def translated(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("ORION_SIM_CACHE", str(tmp_path_factory.getbasetemp() / "translated"))
    monkeypatch.setenv("ORION_SIM_TRANSLATE", "always")


def expected(pattern: str, source: np.ndarray, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """What a kernel of SOURCE writes."""
    out, copy = np.zeros(BLOCK, np.int64), np.zeros_like(source)
    expression = pattern.replace("(t < 16 ? 4 : t)", "(4 if t < 16 else t)").replace("/", "//")
    for t in range(start, end):
        at = [eval(expression, {"t": t, "k": k}) for k in range(TURNS)]  # noqa: S307
        mine = {(k + t) % TURNS: int(source[i]) for k, i in enumerate(at)}
        total = sum(int(source[i]) * 8 for i in at)
        for k in range(TURNS):
            total = total * 7 + mine[k]
        out[t], copy[at[0]] = total, source[at[0]] + 1
    return out, copy


@pytest.mark.parametrize("name", PATTERNS)
def test_accesses_give_what_the_host_computes(loaded, translated, name):
    device, module = loaded
    source = np.random.default_rng(3).integers(0, 100, SIZE).astype(TYPES[KINDS[name]])
    f = device.function(module, name)
    for start, end in PARTS:
        pin, pout, pcopy = device.put(source), device.put(np.zeros(BLOCK, np.int64)), device.put(np.zeros_like(source))
        device.launch(f, 1, BLOCK, pin, pout, pcopy, start, end)
        out, copy = expected(PATTERNS[name], source, start, end)
        np.testing.assert_array_equal(device.get(pout, out), out, f"threads {start} to {end}")
        np.testing.assert_array_equal(device.get(pcopy, copy), copy, f"threads {start} to {end}")
        device.free(pin, pout, pcopy)


def test_vector_accesses(loaded, translated):
    device, module = loaded
    v, d = np.arange(400, dtype=np.float32).reshape(100, 4), np.arange(200.0).reshape(100, 2)
    for start, end in PARTS:
        pin, pout, ptwo, pback = device.put(v), device.put(np.zeros_like(v)), device.put(d), device.put(np.zeros_like(d))
        device.launch(device.function(module, "vectors"), 1, 96, pin, pout, ptwo, pback, start, end)
        t = np.arange(start, end)
        w, out, back = v[t // 3], np.zeros_like(v), np.zeros_like(d)
        out[t] = np.stack([v[t, 0] + w[:, 3], v[t, 1] - w[:, 2], v[t, 2] * w[:, 1], v[t, 3] + w[:, 0]], 1)
        back[t] = d[99 - t][:, ::-1]
        np.testing.assert_array_equal(device.get(pout, out), out)
        np.testing.assert_array_equal(device.get(pback, back), back)


WRAPS = """.version 8.0
.target sm_75
.address_size 64
.visible .entry wraps(.param .u64 out) {
.shared .align 16 .b8 s[512]; .local .align 16 .b8 mine[16];
.reg .u32 %t, %a, %b, %v, %w, %x, %y; .reg .u64 %o;
mov.u32 %t, %tid.x; ld.param.u64 %o, [out]; mad.wide.u32 %o, %t, 8, %o;
mad.lo.u32 %a, %t, 4, -256; add.u32 %b, %a, s; st.shared.u32 [%b+256], %t; bar.sync 0;
mad.lo.u32 %a, %t, -4, -4; add.u32 %b, %a, s; ld.shared.u32 %v, [%b+128];
mov.u32 %a, mine; add.u32 %a, %a, -64; st.local.v2.u32 [%a+72], {%t, %v}; ld.local.v2.u32 {%w, %x}, [%a+72];
st.global.v2.u32 [%o], {%w, %x};
ret; }"""


@pytest.mark.parametrize("how", ["never", "always"])
def test_addresses_of_32_bits_wrap(monkeypatch, tmp_path, how):
    """As compilers write them for unrolled loops: a register below zero, and an offset that leads back."""
    monkeypatch.setenv("ORION_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ORION_SIM_TRANSLATE", how)
    device = Device(str(LIBRARY))
    out = device.put(np.zeros((32, 2), np.uint32))
    device.launch(device.function(device.load(WRAPS), "wraps"), 1, 32, out)
    assert device.get(out, np.zeros((32, 2), np.uint32)).tolist() == [[t, 31 - t] for t in range(32)]


ATOMIC = """.version 8.1
.target sm_90
.address_size 64
.func (.param .b32 r) twice(.param .b32 x) { .reg .b32 %x<20>; ld.param.b32 %x0, [x]; add.u32 %x1, %x0, %x0; st.param.b32 [r], %x1; ret; }
.visible .entry adds(.param .u64 p, .param .u64 o) { .reg .b32 %f<4>; .reg .u64 %p, %o;
ld.param.u64 %p, [p]; ld.param.u64 %o, [o]; mov.f32 %f0, 0f3F800000; mov.f32 %f1, 0f40000000;
atom.global.v2.f32.add {%f2, %f3}, [%p], {%f0, %f1};
st.global.v2.f32 [%o], {%f2, %f3}; ret; }"""


@pytest.mark.parametrize("how", ["never", "always"])
def test_a_vector_atomic_returns_what_was_there(monkeypatch, tmp_path, how):
    """Beside a function, whose registers come first."""
    monkeypatch.setenv("ORION_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ORION_SIM_TRANSLATE", how)
    device, two = Device(str(LIBRARY)), np.zeros(2, np.float32)
    p, out = device.put(np.array([5, 6], np.float32)), device.put(two)
    device.launch(device.function(device.load(ATOMIC), "adds"), 1, 1, p, out)
    assert device.get(p, two).tolist() == [6, 8] and device.get(out, two).tolist() == [5, 6]


def test_the_first_access_beyond_is_reported(loaded, translated, capfd):
    """Addresses that a loop moves on are known without a look: yet where they leave the memory, lane and place are named: 1000 = 30 + 97 * 10."""
    device, module = loaded
    f = device.function(module, "beyond")
    pin = device.put(np.ones(1000, np.int32))
    pout = device.put(np.zeros(64, np.int32))
    device.launch(f, 1, 64, pin, pout, 9)
    assert (device.get(pout, np.zeros(64, np.int32)) == 100).all()
    with pytest.raises(DeviceError):
        device.launch(f, 1, 64, pin, pout, 10)
    said = capfd.readouterr().err
    assert "kernel beyond, block (0,0,0), thread (30,0,0)" in said and f"invalid read of 4 bytes at address {pin + 4000:#x}" in said, said
