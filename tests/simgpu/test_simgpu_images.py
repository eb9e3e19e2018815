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


def nvcc(folder: Path, *options: str) -> bytes:
    """What nvcc makes of the kernel."""
    (folder / "k.cu").write_text(KERNEL)
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
