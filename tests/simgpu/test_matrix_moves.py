# SPDX-License-Identifier: Apache-2.0
"""ldmatrix, stmatrix and movmatrix: where each element goes, interpreted and translated."""

from __future__ import annotations

import re

import matrix_moves
import numpy as np
import pytest
from conftest import LIBRARY
from device import Device, DeviceError
from matrix_moves import MOVES, expected, held


@pytest.fixture
def device():
    return Device(str(LIBRARY))


@pytest.fixture
def translate(monkeypatch, tmp_path):
    monkeypatch.setenv("ORION_SIM_CACHE", str(tmp_path / "cache"))
    return lambda how: monkeypatch.setenv("ORION_SIM_TRANSLATE", how)


def moved(device, module, name, offsets, words):
    """What the kernel leaves in `out`."""
    at, source, out = device.put(offsets), device.put(words), device.put(np.zeros_like(words))
    try:
        device.launch(device.function(module, name), 1, 32, at, source, out)
        return device.get(out, words)
    finally:
        device.free(at, source, out)


def shuffled_rows(seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).permutation(64)[:32] * 16).astype(np.uint32)


@pytest.mark.parametrize("how", ["never", "always"])
def test_each_element_goes_where_the_manual_says(device, translate, tmp_path, how):
    translate(how)
    module = device.load(matrix_moves.module())
    chosen = range(len(MOVES)) if how == "never" else [n for n, m in enumerate(MOVES) if m.count == 4 and m.trans and m.space != ".shared"]
    words = np.random.default_rng(1).integers(0, 1 << 32, (32, 8), dtype=np.uint32)
    wrong = [MOVES[n].text for n in chosen
             if (moved(device, module, f"k{n}", shuffled_rows(n), words) != expected(MOVES[n], shuffled_rows(n), words)).any()]
    assert wrong == []
    assert how == "never" or len(list((tmp_path / "cache").glob("*.so"))) == len(chosen)
    pairs = words[:, 0].copy().view(np.uint16).reshape(8, 8)
    assert (moved(device, module, "movmatrix", shuffled_rows(0), words)[:, 0] == held(pairs, True)).all()


def test_small_counts_need_no_addresses_of_other_lanes(device, translate):
    """.x1 reads what lanes 0 to 7 name."""
    translate("never")
    module, words = device.load(matrix_moves.module()), np.arange(256, dtype=np.uint32).reshape(32, 8)
    offsets = shuffled_rows(3)
    want = expected(MOVES[0], offsets, words)
    offsets[8:] = 0xfffffff0
    assert MOVES[0].count == 1 and (moved(device, module, "k0", offsets, words) == want).all()


@pytest.fixture
def fault(translate):
    """Runs a kernel on a context of its own, since a fault stays with it."""
    def run(how, source, *args, block=32):
        translate(how)
        device = Device(str(LIBRARY))
        try:
            device.launch(device.function(device.load(source), "k0"), 1, block, *(device.put(a) if isinstance(a, np.ndarray) else a for a in args))
        except DeviceError as e:
            return e.code
        finally:
            device.lib.cuDevicePrimaryCtxReset_v2(0)
        return 0

    return run


@pytest.mark.parametrize("how", ["never", "always"])
@pytest.mark.parametrize("word", ["ldmatrix", "stmatrix"])
@pytest.mark.parametrize("offset,code,report", [
    (8, 716, r"thread \(5,0,0\), PTX line \d+: {verb} of 16 bytes at address 0x8, which is not a multiple of 16"),
    (1024, 700, r"thread \(5,0,0\), PTX line \d+: invalid {verb} of 16 bytes at shared memory address 0x400: outside its 1024 bytes")],
    ids=["misaligned", "outside"])
def test_a_bad_row_is_reported(fault, capfd, how, word, offset, code, report):
    offsets = shuffled_rows(0)
    offsets[5] = offset
    source = ".version 8.1\n.target sm_90\n.address_size 64\n" + matrix_moves.move_kernel(
        "k0", next(m for m in MOVES if m.word == word and m.space == ".shared"))
    words = np.zeros((32, 8), np.uint32)
    assert fault(how, source, offsets, words, words) == code
    said = capfd.readouterr().err
    verb = "read" if word == "ldmatrix" else "write"
    assert "kernel k0, block (0,0,0)" in said and re.search(report.format(verb=verb), said), said


ALONE = """.version 8.1
.target sm_90
.address_size 64
.visible .entry k0(.param .u64 p0) { .reg .u32 %t, %v; .reg .u64 %p; .reg .pred %c, %d;
.shared .align 16 .b8 rows[512];
mov.u32 %t, %tid.x; setp.ge.u32 %c, %t, 16; ld.param.u64 %p, [p0];
BEFORE
movmatrix.sync.aligned.m8n8.trans.b16 %v, %t;
END: ret; }"""


@pytest.mark.parametrize("how", ["never", "always"])
@pytest.mark.parametrize("block,before,line", [
    (16, "", 8), (32, "@%c bra END;", 8), (32, "@%c exit;", 8),
    (32, "@%c bra OTHER; movmatrix.sync.aligned.m8n8.trans.b16 %v, %t; bra END; OTHER:", 7)],
                         ids=["a block of half a warp", "half goes another way", "half has ended", "half at another one"])
def test_lanes_that_are_not_there_are_reported(fault, capfd, how, block, before, line):
    assert fault(how, ALONE.replace("BEFORE", before), 0, block=block) == 715
    said = capfd.readouterr().err
    assert "kernel k0, block (0,0,0), thread (" in said and f"PTX line {line}" in said
    assert "movmatrix needs all 32 threads of a warp, and 16 are here" in said


def test_lanes_that_come_later_are_waited_for(device, translate):
    """Half of the warp makes a detour; the instruction is one that all execute."""
    source = ALONE.replace("p0)", "p0, .param .u64 p1, .param .u64 p2)").replace("BEFORE", """
        @!%c bra JOIN; add.u32 %t, %t, 5; add.u32 %t, %t, -5; bra JOIN; JOIN:""").replace("END:", """
        ld.param.u64 %p, [p2]; mad.wide.u32 %p, %t, 32, %p; st.global.u32 [%p], %v; END:""")
    translate("never")
    words = np.zeros((32, 8), np.uint32)
    got = moved(device, device.load(source), "k0", shuffled_rows(0), words)[:, 0]
    matrix = np.arange(32, dtype=np.uint32).view(np.uint16).reshape(8, 8)
    assert (got == held(matrix, True)).all()


@pytest.mark.parametrize("text", [
    "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%v, %v, %v}, [rows];", "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%v}, [rows];",
    "ldmatrix.sync.aligned.m8n16.x1.shared.b8x16.b6x16_p32 {%v}, [rows];", "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%v}, [%p];",
    "ldmatrix.aligned.m8n8.x1.shared.b16 {%v}, [rows];", "movmatrix.sync.aligned.m8n8.b16 %v, %t;"])
def test_a_form_that_is_none_is_refused_by_name_and_line(device, text):
    with pytest.raises(DeviceError) as e:
        device.load(ALONE.replace("BEFORE", text))
    assert e.value.code == 218 and f"'{text.split()[0]}'" in str(e.value) and "7" in str(e.value)
