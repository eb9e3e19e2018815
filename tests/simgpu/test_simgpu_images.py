# SPDX-License-Identifier: Apache-2.0
"""Fat binaries and machine code as nvcc makes them; virtual memory management."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cuda.bindings import driver

KERNEL = 'extern "C" __global__ void twice(int *p) { p[threadIdx.x] *= 2; }'
needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not installed")


def nvcc(folder: Path, *options: str, source: str = KERNEL) -> bytes:
    """What nvcc makes of the kernel."""
    (folder / "k.cu").write_text(source)
    subprocess.run(["nvcc", *options, "k.cu", "-o", "k.out"], cwd=folder, check=True, timeout=120)
    return (folder / "k.out").read_bytes()


@needs_nvcc
@pytest.mark.parametrize("mode", ["none", "speed", "size"])
def test_fat_binary(gpu, ok, tmp_path, mode):
    image = nvcc(tmp_path, "-fatbin", "-gencode", "arch=compute_90,code=compute_90", "-Xfatbin", f"--compress-mode={mode}")
    library = ok(driver.cuLibraryLoadData(image, [], [], 0, [], [], 0))
    kernel = ok(driver.cuLibraryGetKernel(library, b"twice"))
    assert ok(driver.cuKernelGetParamInfo(kernel, 0)) == [0, 8] or ok(driver.cuKernelGetParamInfo(kernel, 0)) == (0, 8)
    p = gpu.put(np.arange(32, dtype=np.int32))
    gpu.launch(ok(driver.cuKernelGetFunction(kernel)), (1,), (32,), p)
    np.testing.assert_array_equal(gpu.get(p, np.zeros(32, np.int32)), np.arange(32) * 2)


@needs_nvcc
def test_machine_code_loads_and_cannot_be_launched(gpu, ok, tmp_path, capfd):
    module = ok(driver.cuModuleLoadData(nvcc(tmp_path, "-cubin", "-arch=sm_90")))
    f = ok(driver.cuModuleGetFunction(module, b"twice"))
    assert int(driver.cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)[0]) == 209
    assert "kernel twice exists as machine code only" in capfd.readouterr().err


MANY = """
struct S { char c[100]; double d; };
struct Big { char c[6000]; };
__device__ float var = 3;
__constant__ int table[10];
extern "C" __global__ void k(int a, char b, S s, float *p, short q)
{ __shared__ float sh[33]; sh[threadIdx.x] = p[0]; __syncthreads(); p[0] = a + b + s.d + q + sh[a] + var + table[a]; }
extern "C" __global__ void big(Big b, int *o) { o[0] = b.c[o[1]]; }
"""
PARAMS = {b"k": [(0, 4), (4, 1), (8, 112), (120, 8), (128, 2)], b"big": [(0, 6000), (6000, 8)]}


@needs_nvcc
@pytest.mark.parametrize("code", ["sm_90", "compute_90"])
@pytest.mark.parametrize("mode", ["none", "speed", "size"])
def test_what_is_known_of_code(gpu, ok, tmp_path, code, mode):
    """Parameters, shared memory and variables, the same whether the kernel can run (PTX) or not."""
    options = ["-fatbin", "-gencode", f"arch=compute_90,code={code}", "-Xfatbin", f"--compress-mode={mode}"]
    module = ok(driver.cuModuleLoadData(nvcc(tmp_path, *options, source=MANY)))
    for name, params in PARAMS.items():
        f = ok(driver.cuModuleGetFunction(module, name))
        assert [tuple(ok(driver.cuFuncGetParamInfo(f, i))) for i in range(len(params))] == params
        assert int(driver.cuFuncGetParamInfo(f, len(params))[0]) == 1
        shared = ok(driver.cuFuncGetAttribute(driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, f))
        assert shared == (132 if name == b"k" else 0)
    at, size = ok(driver.cuModuleGetGlobal(module, b"var"))
    assert size == 4 and gpu.get(int(at), np.zeros(1, np.float32))[0] == 3
    assert ok(driver.cuModuleGetGlobal(module, b"table"))[1] == 40
    assert int(driver.cuModuleGetGlobal(module, b"none")[0]) == 500


@needs_nvcc
def test_code_for_another_card_is_refused(gpu, tmp_path):
    image = nvcc(tmp_path, "-fatbin", "-gencode", "arch=compute_80,code=sm_80")
    assert int(driver.cuModuleLoadData(image)[0]) == 209


def test_virtual_memory(gpu, ok):
    size, prop = 4 << 20, driver.CUmemAllocationProp()
    prop.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    access = driver.CUmemAccessDesc()
    access.location, access.flags = prop.location, driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    handle, at = ok(driver.cuMemCreate(size, prop, 0)), ok(driver.cuMemAddressReserve(size, 0, 0, 0))
    ok(driver.cuMemMap(at, size, 0, handle, 0))
    assert int(driver.cuMemsetD8(at, 3, size)[0]) == 1  # no access yet
    ok(driver.cuMemSetAccess(at, size, [access], 1))
    ok(driver.cuMemsetD8(at, 3, size))
    assert (gpu.get(int(at), np.zeros(size, np.uint8)) == 3).all()
    ok(driver.cuMemUnmap(at, size))
    ok(driver.cuMemRelease(handle))
    ok(driver.cuMemAddressFree(at, size))
    assert ok(driver.cuMemGetInfo())[0] == 512 << 20
