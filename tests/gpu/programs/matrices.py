# SPDX-License-Identifier: Apache-2.0
"""Every mma, ldmatrix, stmatrix, movmatrix and wmma that this card has, against the PTX manual's layouts and exact sums.

Needs a driver and NumPy; with SIMULATED=PATH it runs on the simulated GPU's library. Prints a checksum of each result.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "simgpu"))

import matrices  # noqa: E402
import matrix_moves  # noqa: E402
import numpy as np  # noqa: E402
import wmma_programs  # noqa: E402
from device import Device  # noqa: E402


def say(name: str, result: np.ndarray, wrong: list[str]) -> bool:
    """A line for a result; True: it is wrong."""
    print(f"{name}: {zlib.crc32(np.ascontiguousarray(result).tobytes()):08x}", *wrong[:3])
    return bool(wrong)


def products(device: Device, arch: int) -> int:
    """How many mma are further from the exact sum than a card may be."""
    chosen = matrices.forms(arch)
    got = matrices.results(device, [chosen], arch)
    return sum(say(f.text, got[f.text], matrices.wrong(f, got[f.text], matrices.slack_of_a_card(f))) for f in chosen)


def moves(device: Device) -> int:
    """How many of ldmatrix, stmatrix and movmatrix put an element elsewhere."""
    module, found = device.load(matrix_moves.module()), 0
    words = np.random.default_rng(1).integers(0, 1 << 32, (32, 8), dtype=np.uint32)
    offsets = (np.random.default_rng(2).permutation(64)[:32] * 16).astype(np.uint32)
    kernels = {f"k{n}": (m.text, matrix_moves.expected(m, offsets, words)) for n, m in enumerate(matrix_moves.MOVES)}
    transposed = np.zeros_like(words)
    transposed[:, 0] = matrix_moves.held(words[:, 0].copy().view(np.uint16).reshape(8, 8), True)
    for kernel, (text, want) in (kernels | {"movmatrix": ("movmatrix", transposed)}).items():
        buffers = [device.put(x) for x in (offsets, words, np.zeros_like(words))]
        device.launch(device.function(module, kernel), 1, 32, *buffers)
        got = device.get(buffers[2], words)
        found += say(text, got, ["elements are elsewhere"] * bool((got != want).any()))
    return found


def wmma(device: Device, arch: int) -> int:
    """How many products by wmma are wrong; they are exact in every order."""
    chosen, found = [p for p in wmma_programs.products() if p.since <= arch], 0
    module = device.load(wmma_programs.module(chosen, (".shared", "")))
    for p in chosen:
        got = wmma_programs.result(device, module, p)[0]
        found += say(p.name, got, ["not what NumPy has"] * bool((got != wmma_programs.expected(p, 1)[0]).any()))
    return found


def main() -> int:
    """0: all is as it must be."""
    device = Device()
    arch = device.attribute(75) * 10 + device.attribute(76)
    found = products(device, min(arch, 90)) + (moves(device) + wmma(device, arch) if arch >= 90 else 0)
    print(f"{found} wrong")
    return found > 0


if __name__ == "__main__":
    sys.exit(main())
