# SPDX-License-Identifier: Apache-2.0
"""The simulated GPU under cuda-python, with nothing of ours between."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

LIBRARY = Path(os.environ.get("ORION_SIM_LIBRARY", "") or
               Path(__file__).resolve().parents[2] / "orion_virt/_lib/simgpu/libcuda.so.1")
pytest.importorskip("numpy")
pytest.importorskip("cuda.bindings")
if not LIBRARY.exists():
    pytest.skip("the simulated GPU is not built (make build)", allow_module_level=True)
with mock.patch.dict(os.environ, ORION_SIM_MEMORY="512", ORION_SIM_GPUS="2"):
    ctypes.CDLL(str(LIBRARY), mode=ctypes.RTLD_GLOBAL).cuInit(0)  # cuda-python's dlopen of libcuda.so.1 finds this one

import numpy as np  # noqa: E402
from cuda.bindings import driver, nvrtc  # noqa: E402
from device import Device  # noqa: E402


def check(answer: tuple) -> object:
    """The values of a cuda-python answer, or an assertion on its CUresult."""
    assert int(answer[0]) == 0, answer[0]
    return answer[1] if len(answer) == 2 else answer[1:]


def compile_ptx(source: str, arch: str = "90", *more: str) -> bytes:
    """PTX of CUDA C++ by NVRTC."""
    program = check(nvrtc.nvrtcCreateProgram(source.encode(), b"test.cu", 0, [], []))
    options = [o.encode() for o in (f"--gpu-architecture=compute_{arch}", *more)]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(result):
        log = b" " * check(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise AssertionError(log.decode())
    ptx = b" " * check(nvrtc.nvrtcGetPTXSize(program))
    check(nvrtc.nvrtcGetPTX(program, ptx))
    return ptx


def headers() -> str:
    """Where the runtime's package has cuda_fp16.h."""
    import nvidia

    (found,) = (p / "cu13" / "include" for p in map(Path, nvidia.__path__) if (p / "cu13" / "include").exists())
    return str(found)


class Gpu:
    """The primary context of device 0 and a few short cuts."""

    def __init__(self) -> None:
        check(driver.cuInit(0))
        self.context = check(driver.cuDevicePrimaryCtxRetain(0))
        check(driver.cuCtxSetCurrent(self.context))

    def put(self, array: np.ndarray) -> int:
        """A device copy of an array."""
        p = check(driver.cuMemAlloc(max(array.nbytes, 1)))
        check(driver.cuMemcpyHtoD(p, array.ctypes.data, array.nbytes))
        return int(p)

    def get(self, p: int, like: np.ndarray) -> np.ndarray:
        """Device memory as an array like another."""
        out = np.empty_like(like)
        check(driver.cuMemcpyDtoH(out.ctypes.data, p, out.nbytes))
        return out

    def function(self, source: str, name: str, arch: str = "90") -> object:
        """A kernel of freshly compiled source."""
        module = check(driver.cuModuleLoadData(compile_ptx(source, arch)))
        return check(driver.cuModuleGetFunction(module, name.encode()))

    def launch(self, f: object, grid: tuple, block: tuple, *args: object, shared: int = 0, stream: int = 0) -> None:
        """Starts a kernel; ints are pointers, other arguments NumPy scalars."""
        values = [np.array(a, dtype=np.uint64) if isinstance(a, int) else np.array(a) for a in args]
        pointers = np.array([v.ctypes.data for v in values], dtype=np.uint64)
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        check(driver.cuLaunchKernel(f, *grid, *block, shared, stream, pointers.ctypes.data, 0))

    def sync(self) -> None:
        """Waits for everything."""
        check(driver.cuCtxSynchronize())


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    """A fresh primary context, reset afterwards: a test may poison it."""
    yield Gpu()
    driver.cuDevicePrimaryCtxReset(0)


@pytest.fixture(params=["never", "always"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """Device 0, whose kernels are interpreted, and once more translated; reset afterwards."""
    monkeypatch.setenv("ORION_SIM_CACHE", str(tmp_path_factory.getbasetemp() / "translated"))
    monkeypatch.setenv("ORION_SIM_TRANSLATE", request.param)
    yield Device(str(LIBRARY))
    driver.cuDevicePrimaryCtxReset(0)


@pytest.fixture
def ok() -> Callable[[tuple], object]:
    """Checks an answer of cuda-python."""
    return check


def recorded(name: str) -> dict[str, str]:
    """What a card gave; reference.py packs and unpacks it."""
    path = Path(__file__).parent / "reference" / f"{name}.json"
    found = json.loads(path.read_text())
    assert "NVIDIA" in found["card"], "the reference must come from a real card"
    return dict(found["results"])
