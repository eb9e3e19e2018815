# SPDX-License-Identifier: Apache-2.0
"""Each instruction on random and special operands, compared with fractions and whole numbers (exact.py)."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from conftest import LIBRARY
from device import Device
from exact import FORMATS, decode, expected, is_nan
from exact_bits import bits, near
from instructions import CLASSES, OPERANDS, WIDTH, Instruction, instructions, module, operands

BLOCK = 256
TUPLES = 160  # of the operands that a card's reference covers, as many as fractions are fast for


@pytest.fixture(scope="module")
def device():
    return Device(str(LIBRARY))


def results(device: Device, chosen: list[Instruction], arch: int = 90) -> list[np.ndarray]:
    """The bits that each instruction gave for each tuple of its operands."""
    loaded, out = device.load(module(chosen, arch)), []
    for n, i in enumerate(chosen):
        sources = [device.put(v) for v in operands(i)]
        to = device.put(np.zeros(OPERANDS, np.uint64))
        device.launch(device.function(loaded, f"k{n}"), OPERANDS // BLOCK, BLOCK, to, *sources)
        width = 8 * WIDTH[CLASSES[i.to]] if i.to not in ("u8", "s8") else 8
        out.append(device.get(to, np.zeros(OPERANDS, np.uint64)) & np.uint64((1 << width) - 1))
        device.free(to, *sources)
    device.unload(loaded)
    return out


def agrees(i: Instruction, got: int, want: int) -> bool:
    kind = i.to.removesuffix("x2")
    if want == -1 and i.to.endswith("x2"):
        return any(is_nan(decode(got >> s & 0xffff, kind)) for s in (0, 16))
    return is_nan(decode(got, kind)) if want == -1 and kind in FORMATS else got == want


def by_word() -> dict[str, list[Instruction]]:
    groups = defaultdict(list)
    for i in instructions(90):
        groups[i.text.split(".")[0]].append(i)
    return groups


@pytest.mark.parametrize("word", sorted(by_word()))
def test_instruction_gives_what_fractions_give(device, word):
    chosen = by_word()[word]
    wrong, compared = [], 0
    for i, got in zip(chosen, results(device, chosen)):
        tuples = list(zip(*(v.tolist() for v in operands(i))))[:TUPLES]
        for v, g in zip(tuples, got.tolist()):
            want = bits(i, list(v))
            want = expected(i, list(v)) if want is None else want
            right = near(i, list(v), g) if want is None else None if want == -2 else agrees(i, g, want)
            compared += right is not None
            if right is False:
                wrong.append(f"{i.name} of {', '.join(map(hex, v))}: {g:#x}, not {want or 0:#x}")
    assert not wrong, f"{len(wrong)} of {compared}:\n" + "\n".join(wrong[::max(len(wrong) // 12, 1)][:14])
    assert compared, f"nothing says what {word} gives"
