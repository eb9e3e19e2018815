# SPDX-License-Identifier: Apache-2.0
"""Several PTX modules become one; what cannot be linked or run is said."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from conftest import compile_ptx
from cuda.bindings import driver

RDC = ("--relocatable-device-code=true",)
FIRST = r"""
extern __device__ int total;
extern __device__ int twice(int);
static __device__ int mine = 5;
static __device__ __noinline__ int own(int v) { return v + mine; }
extern __constant__ int table[4];
extern "C" __global__ void k(int *out) { out[threadIdx.x] = own(twice(threadIdx.x)) + table[threadIdx.x & 3]; atomicAdd(&total, 1); }
"""
SECOND = r"""
__device__ int total = 40;
__constant__ int table[4] = { 100, 200, 300, 400 };
static __device__ int mine = 7000;
static __device__ __noinline__ int own(int v) { return v * mine; }
__device__ int (*unused)(int) = own;
__device__ int twice(int v) { return v * 2 + 0 * own(v); }
"""
PTX_TYPE = driver.CUjitInputType.CU_JIT_INPUT_PTX


def ptx(source: str) -> bytes:
    return compile_ptx(source, "90", *RDC).rstrip(b"\0 ")


def link(ok, *texts: bytes) -> object:
    state = ok(driver.cuLinkCreate(0, [], []))
    for text in texts:
        ok(driver.cuLinkAddData(state, PTX_TYPE, text, len(text), b"part", 0, [], []))
    return state


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_units_share_what_they_show_and_keep_what_they_do_not(gpu, ok, order):
    texts = [ptx(FIRST), ptx(SECOND)]
    cubin, _size = ok(driver.cuLinkComplete(link(ok, *(texts[i] for i in order))))
    module = ok(driver.cuModuleLoadData(cubin))
    out = gpu.put(np.zeros(32, np.int32))
    gpu.launch(ok(driver.cuModuleGetFunction(module, b"k")), (1,), (32,), out)
    t = np.arange(32)
    np.testing.assert_array_equal(gpu.get(out, np.zeros(32, np.int32)), t * 2 + 5 + (t % 4 + 1) * 100)
    at, _ = ok(driver.cuModuleGetGlobal(module, b"total"))
    assert gpu.get(int(at), np.zeros(1, np.int32))[0] == 72


def test_a_missing_definition_is_named(gpu, ok, capfd):
    assert int(driver.cuLinkComplete(link(ok, ptx(FIRST)))[0]) == 218
    assert "is defined in no module that was linked" in capfd.readouterr().err


def test_a_second_definition_is_refused(gpu, ok, capfd):
    text = ptx('extern "C" __device__ int f(int v) { return v; } extern "C" __global__ void k(int *p) { *p = f(*p); }')
    assert int(driver.cuLinkComplete(link(ok, text, text))[0]) == 218
    assert "is defined twice" in capfd.readouterr().err


GRID = b"""
.version 8.0
.target sm_75
.address_size 64
.extern .func (.param .b64 r) cudaCGGetIntrinsicHandle(.param .b32 s);
.extern .func (.param .b32 r) cudaCGSynchronize(.param .b64 h, .param .b32 f);
.visible .entry k(.param .u64 out) {
.reg .b64 %o, %h, %a; .reg .b32 %v, %c;
ld.param.u64 %o, [out];
red.global.add.u32 [%o], 1;
{ .param .b32 s; .param .b64 r; st.param.b32 [s], 1; call (r), cudaCGGetIntrinsicHandle, (s); ld.param.b64 %h, [r]; }
{ .param .b64 h; .param .b32 f; .param .b32 r; st.param.b64 [h], %h; st.param.b32 [f], 0; call (r), cudaCGSynchronize, (h, f); }
ld.volatile.global.u32 %v, [%o];
mov.u32 %c, %ctaid.x;
mad.wide.u32 %a, %c, 4, %o;
st.global.u32 [%a+4], %v;
ret; }
"""


def test_an_archive_of_the_device_runtime_gives_the_barrier_of_a_grid(gpu, ok):
    state = link(ok, GRID)
    for _ in range(2):
        ok(driver.cuLinkAddData(state, driver.CUjitInputType.CU_JIT_INPUT_LIBRARY, b"!<arch>\n" + bytes(60), 68, b"cudadevrt", 0, [], []))
    module = ok(driver.cuModuleLoadData(ok(driver.cuLinkComplete(state))[0]))
    out = gpu.put(np.zeros(9, np.int32))
    f = ok(driver.cuModuleGetFunction(module, b"k"))
    argument = np.array([out], np.uint64)
    pointers = np.array([argument.ctypes.data], np.uint64)
    ok(driver.cuLaunchCooperativeKernel(f, 8, 1, 1, 32, 1, 1, 0, 0, pointers.ctypes.data))
    np.testing.assert_array_equal(gpu.get(out, np.zeros(9, np.int32)), 256)


@pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not installed")
def test_dynamic_parallelism_is_refused_with_a_reason(gpu, tmp_path, capfd):
    (tmp_path / "k.cu").write_text("__global__ void child() { } __global__ void parent() { child<<<1, 1>>>(); }")
    subprocess.run(["nvcc", "-ptx", "-rdc=true", "-arch=compute_90", "k.cu", "-o", "k.ptx"], cwd=tmp_path, check=True)
    assert int(driver.cuModuleLoadData((tmp_path / "k.ptx").read_bytes())[0]) == 218
    assert "does not support dynamic parallelism" in capfd.readouterr().err


def test_an_unknown_instruction_is_named_with_kernel_and_line(gpu, capfd):
    text = b".version 8.1\n.target sm_90\n.address_size 64\n.visible .entry odd()\n{\n.reg .b32 %r<4>;\nfrob.s32 %r1, %r2;\nret;\n}\n"
    assert int(driver.cuModuleLoadData(text)[0]) == 218
    assert "PTX line 7, kernel odd: instruction 'frob.s32' is not supported" in capfd.readouterr().err
