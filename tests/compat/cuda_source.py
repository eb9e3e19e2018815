# SPDX-License-Identifier: Apache-2.0
"""CUDA C++ to PTX by NVRTC, with NVIDIA's headers from their packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nvidia
from cuda.bindings import nvrtc


def ok(answer: tuple[Any, ...]) -> Any:
    """What a call gave beside its result, which must be success."""
    result, *rest = answer
    if result.value:
        raise RuntimeError(f"{result!r}")
    return rest[0] if len(rest) == 1 else tuple(rest) if rest else None


def includes() -> tuple[bytes, ...]:
    """Options that name the headers' folders."""
    found = [path for root in nvidia.__path__ for path in Path(root).glob("*/include")]
    return tuple(f"-I{path}".encode() for path in [*found, *(path / "cccl" for path in found)])


def ptx(source: str, arch: int, *options: bytes) -> bytes:
    """With the NUL at its end. Raises RuntimeError with the compiler's log."""
    program = ok(nvrtc.nvrtcCreateProgram(source.encode(), b"program.cu", 0, [], []))
    said = [f"--gpu-architecture=compute_{arch}".encode(), *options]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(said), said)
    if result.value:
        log = b" " * ok(nvrtc.nvrtcGetProgramLogSize(program))
        ok(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(log.decode())
    made = b" " * ok(nvrtc.nvrtcGetPTXSize(program))
    ok(nvrtc.nvrtcGetPTX(program, made))
    ok(nvrtc.nvrtcDestroyProgram(program))
    return made
