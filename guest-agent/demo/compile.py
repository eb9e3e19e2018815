# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels.cu to PTX with NVRTC: python3 compile.py kernels.cu > kernels.ptx (package cuda-python)."""

import re
import sys
from pathlib import Path

from cuda.bindings import nvrtc


def check(answer: tuple) -> object:
    """The value of an NVRTC answer, or an error that names it."""
    if answer[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise SystemExit(f"NVRTC: {answer[0].name}")
    return answer[1] if len(answer) > 1 else None


def compile_ptx(source: str, architecture: str = "compute_75") -> str:
    """PTX of the CUDA C++ `source`; the compiler's log goes to stderr when it fails."""
    program = check(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))
    options = [f"--gpu-architecture={architecture}".encode()]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * check(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise SystemExit(log.decode())
    ptx = b" " * check(nvrtc.nvrtcGetPTXSize(program))
    check(nvrtc.nvrtcGetPTX(program, ptx))
    # The newest compiler names its own PTX version, which older drivers refuse; these kernels need no more than 7.0.
    return re.sub(r"^\.version .*$", ".version 7.0", ptx.rstrip(b"\0").decode(), flags=re.M)


if __name__ == "__main__":
    sys.stdout.write(compile_ptx(Path(sys.argv[1]).read_text()))
