# SPDX-License-Identifier: Apache-2.0
"""Finds NVIDIA's public headers (from PyPI wheels) and compiles small programs against them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("gcc") or shutil.which("cc") or "cc"
INTERNAL = "-D__CUDA_API_VERSION_INTERNAL"  # declares every version of every function


def _nvidia_folders() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    return [Path(p) for p in spec.submodule_search_locations or ()] if spec else []


def find_include(major: int) -> Path | None:
    """The include folder of CUDA `major`, None where it is not installed."""
    folders = [Path(os.environ["ORION_CUDA12_INCLUDE"])] if major == 12 and "ORION_CUDA12_INCLUDE" in os.environ else []
    below = {12: "cuda_runtime/include", 13: "cu13/include"}[major]
    folders += [nvidia / below for nvidia in _nvidia_folders()]
    return next((f for f in folders if (f / "cuda.h").exists() and _version(f) // 1000 == major), None)


def _version(folder: Path) -> int:
    match = re.search(r"#define CUDA_VERSION (\d+)", (folder / "cuda.h").read_text())
    return int(match[1]) if match else 0


def include_or_skip(major: int) -> Path:
    """As find_include, but skips the test with the remedy."""
    folder = find_include(major)
    if folder is None:
        hint = " or set ORION_CUDA12_INCLUDE" if major == 12 else ""
        wheel = "nvidia-cuda-runtime-cu12" if major == 12 else "nvidia-cuda-runtime"
        pytest.skip(f"no cuda.h of CUDA {major}: pip install {wheel}{hint}")
    return folder


def preprocessed(include: Path) -> str:
    """cuda.h with every version declared, on one line."""
    command = [COMPILER, "-E", "-P", INTERNAL, f"-I{include}", "-x", "c", "-"]
    done = subprocess.run(command, input="#include <cuda.h>\n", capture_output=True, text=True, check=True, timeout=180)
    return re.sub(r"\s+", " ", done.stdout)


def public_functions(include: Path) -> set[str]:
    """Every exported symbol that cuda.h declares."""
    return set(re.findall(r"(?<!typedef )CUresult (cu\w+)\([^;{]*\);", preprocessed(include)))


def other_names(include: Path) -> set[str]:
    """Functions of the headers beside cuda.h, which need other libraries' headers to compile."""
    names: set[str] = set()
    for header in include.glob("cuda[A-Z]*.h"):
        text = header.read_text()
        names |= set(re.findall(r"CUDAAPI (cu\w+)\(", text)) | set(re.findall(r"PFN_(cu\w+?)_v\d{4,5}\)", text))
        names |= set(re.findall(r"(cu\w+_v\d)\b", text))
    return names


def compile_c(source: str, folder: Path, *flags: str, run: bool = False) -> str:
    """Compiles `source` (and runs it); fails the test with the compiler's words. Returns its output."""
    path = folder / "probe.c"
    path.write_text(source)
    link = ["-o", str(folder / "probe")] if run else ["-fsyntax-only"]
    command = [COMPILER, "-std=gnu11", "-Wall", "-Wextra", "-Werror", *flags, str(path), *link]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[:4000]
    if not run:
        return ""
    return subprocess.run([folder / "probe"], capture_output=True, text=True, check=True, timeout=10).stdout
