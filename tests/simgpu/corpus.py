# SPDX-License-Identifier: Apache-2.0
"""The programs in programs/*.cu: kernels of (in, out) whose results do not depend on the order of threads."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from device import Device

FOLDER = Path(__file__).parent / "programs"
IN_WORDS, OUT_WORDS = 4096, 8192
OPTIONS = ("-std=c++17", "-fmad=false")  # else which products are fused would be each compiler's choice


@dataclass(frozen=True)
class Run:
    """One launch: a line `// run KERNEL GRID BLOCK [shared=BYTES] [cooperative] [arch=75] [relative=0]`."""

    file: str
    kernel: str
    grid: int
    block: int
    shared: int = 0
    cooperative: bool = False
    arch: int = 75
    relative: float = 0.0  # results are floating point, as near as this; 0: bits

    @property
    def name(self) -> str:
        return f"{self.file}.{self.kernel}"


def runs() -> list[Run]:
    """All launches that the programs' first lines name."""
    found = []
    for path in sorted(FOLDER.glob("*.cu")):
        for line in re.findall(r"^// run (.*)$", path.read_text(), re.M):
            kernel, grid, block, *rest = line.split()
            pairs = dict(word.partition("=")[::2] for word in rest)
            found.append(Run(path.stem, kernel, int(grid), int(block), int(pairs.get("shared", 0)), "cooperative" in pairs,
                             int(pairs.get("arch", 75)), float(pairs.get("relative", 0))))
    return found


def nvcc(file: str, arch: int) -> bytes:
    """PTX of a program by NVIDIA's compiler."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "program.ptx"
        subprocess.run(["nvcc", "-ptx", f"-arch=compute_{arch}", *OPTIONS, "-o", out, FOLDER / f"{file}.cu"], check=True)
        return out.read_bytes()


def words() -> np.ndarray:
    """The input: numbers of splitmix64, the same for ever, a few of them small or at the limits."""
    state = np.arange(1, IN_WORDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values = (z ^ (z >> np.uint64(31))).astype(np.uint32)
    values[5::16] &= np.uint32(255)
    values[7::64], values[9::64], values[11::64] = 0, 0xffffffff, 0x80000000
    return values


def result(device: Device, module: object, run: Run) -> np.ndarray:
    """What a launch leaves in `out`."""
    source, out = device.put(words()), device.put(np.zeros(OUT_WORDS, np.uint32))
    device.launch(device.function(module, run.kernel), run.grid, run.block, source, out, shared=run.shared,
                  cooperative=run.cooperative)
    got = device.get(out, np.zeros(OUT_WORDS, np.uint32))
    device.free(source, out)
    return got


def difference(run: Run, got: np.ndarray, want: np.ndarray) -> str:
    """What differs between two results; empty: nothing."""
    if run.relative:
        kind = np.float64 if "double" in run.kernel else np.float32
        a, b = got.view(kind), want.view(kind)
        with np.errstate(invalid="ignore", over="ignore"):
            same = (np.abs(a - b) <= run.relative * np.maximum(np.abs(b), 1e-3)) | (a == b) | (np.isnan(a) & np.isnan(b))
    else:
        a, b = got, want
        same = a == b
    at = np.flatnonzero(~same)
    return "" if not len(at) else f"{run.name}: {len(at)} results differ, first number {at[0]}: {a[at[0]]}, not {b[at[0]]}"
