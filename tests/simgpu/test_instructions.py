# SPDX-License-Identifier: Apache-2.0
"""Each instruction on random and special operands, compared with fractions and whole numbers (exact.py)."""

from __future__ import annotations

from collections import defaultdict

import pytest
from conftest import LIBRARY
from device import Device
from exact import FORMATS, decode, expected, is_nan
from exact_bits import bits, near
from instructions import Instruction, instructions, operands, results

TUPLES = 160  # of the operands that a card's reference covers, as many as fractions are fast for


@pytest.fixture(scope="module")
def device():
    return Device(str(LIBRARY))


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
    for i, got in zip(chosen, results(device, [[i] for i in chosen])):
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


# What becomes C of its own when a kernel is translated; for the others the interpreter's own code runs.
TRANSLATED = ("add sub mul mad and or xor not shl shr neg abs min max div rem popc shf bfi bfe fma rcp sqrt rsqrt setp selp cvt "
              "mul24 prmt ex2").split()


def groups() -> list[list[Instruction]]:
    chosen = [i for i in instructions(90) if i.text.split(".")[0] in TRANSLATED and ".r" not in i.text.replace(".rn", "").replace(".rzi", "")]
    return [chosen[k:k + 48] for k in range(0, len(chosen), 48)]


def test_translated_instructions_give_what_interpreted_ones_give(device, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("ORION_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ORION_SIM_TRANSLATE", "never")
    want = results(device, groups())
    monkeypatch.setenv("ORION_SIM_TRANSLATE", "always")
    got = results(device, groups())
    assert len(list((tmp_path / "cache").glob("*.so"))) == len(groups()), capfd.readouterr().err
    names = [i.name for group in groups() for i in group]
    assert [n for n, a, b in zip(names, want, got) if (a != b).any()] == []
