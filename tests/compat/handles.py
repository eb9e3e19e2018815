# SPDX-License-Identifier: Apache-2.0
"""Makes and destroys the handle of one of NVIDIA's libraries, `handles.py NAME FILE`, as a program does at its start."""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p

KERNEL = b'extern "C" __global__ void twice(float *x) { x[threadIdx.x] *= 2; }'


def right(what: str, got: int) -> None:
    if got != 0:
        raise SystemExit(f"{what} answers {got}")


def handle(lib: ctypes.CDLL, create: str, destroy: str) -> None:
    made = c_void_p()
    right(create, getattr(lib, create)(byref(made)))
    right(destroy, getattr(lib, destroy)(made))


def cublas(lib: ctypes.CDLL) -> None:
    handle(lib, "cublasCreate_v2", "cublasDestroy_v2")


def cublaslt(lib: ctypes.CDLL) -> None:
    handle(lib, "cublasLtCreate", "cublasLtDestroy")


def cudnn(lib: ctypes.CDLL) -> None:
    handle(lib, "cudnnCreate", "cudnnDestroy")


def cusparse(lib: ctypes.CDLL) -> None:
    handle(lib, "cusparseCreate", "cusparseDestroy")


def cusolver(lib: ctypes.CDLL) -> None:
    handle(lib, "cusolverDnCreate", "cusolverDnDestroy")
    handle(lib, "cusolverSpCreate", "cusolverSpDestroy")


def cufft(lib: ctypes.CDLL) -> None:
    """A handle needs nothing of the GPU; a plan may need a kernel that is there for real cards only."""
    plan = c_int()
    right("cufftCreate", lib.cufftCreate(byref(plan)))
    right("cufftDestroy", lib.cufftDestroy(plan))


def curand(lib: ctypes.CDLL) -> None:
    made = c_void_p()
    right("curandCreateGenerator", lib.curandCreateGenerator(byref(made), 100))
    right("curandDestroyGenerator", lib.curandDestroyGenerator(made))


def nccl(lib: ctypes.CDLL) -> None:
    """One rank; more of them need kernels."""
    comm = c_void_p()
    right("ncclCommInitAll", lib.ncclCommInitAll(byref(comm), 1, byref(c_int(0))))
    right("ncclCommDestroy", lib.ncclCommDestroy(comm))


def nvjitlink(lib: ctypes.CDLL) -> None:
    made = c_void_p()
    # every release exports the interface of its own version and of all before it
    names = [f"__nvJitLinkCreate_{major}_{minor}" for major, minor in ((12, 0), (12, 1), (12, 4), (13, 0), (13, 4))]
    create = next(getattr(lib, name) for name in ["nvJitLinkCreate", *names] if hasattr(lib, name))
    right("nvJitLinkCreate", create(byref(made), 1, (c_char_p * 1)(b"-arch=sm_90")))


def nvrtc(lib: ctypes.CDLL) -> None:
    program, size = c_void_p(), c_size_t()
    right("nvrtcCreateProgram", lib.nvrtcCreateProgram(byref(program), KERNEL, b"k.cu", 0, None, None))
    right("nvrtcCompileProgram", lib.nvrtcCompileProgram(program, 1, (c_char_p * 1)(b"--gpu-architecture=compute_90")))
    right("nvrtcGetPTXSize", lib.nvrtcGetPTXSize(program, byref(size)))
    assert size.value > 100
    right("nvrtcDestroyProgram", lib.nvrtcDestroyProgram(byref(program)))


def context() -> None:
    """What the runtime would make for them: cuFFT, NVRTC and nvJitLink bring no runtime."""
    cu, made = ctypes.CDLL("libcuda.so.1"), c_void_p()
    right("cuInit", cu.cuInit(0))
    right("cuDevicePrimaryCtxRetain", cu.cuDevicePrimaryCtxRetain(byref(made), 0))
    right("cuCtxSetCurrent", cu.cuCtxSetCurrent(made))


if __name__ == "__main__":
    context()
    globals()[sys.argv[1]](ctypes.CDLL(sys.argv[2]))
    print("done")
