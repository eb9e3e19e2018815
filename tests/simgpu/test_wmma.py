# SPDX-License-Identifier: Apache-2.0
"""wmma: products in every shape, type, layout and space against NumPy, interpreted and translated; bad addresses."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import LIBRARY
from cuda.bindings import driver
from device import Device, DeviceError
from wmma_programs import expected, inputs, kernel, module, products, result

SPACES = [(".shared", ".global"), (".shared::cta", ""), ("", "")]


@pytest.fixture
def device(monkeypatch, tmp_path):
    monkeypatch.setenv("ORION_SIM_CACHE", str(tmp_path / "cache"))
    yield Device(str(LIBRARY))
    driver.cuDevicePrimaryCtxReset(0)  # a fault stays with the context


def wrong(device, chosen, spaces) -> list[str]:
    loaded = device.load(module(chosen, spaces))
    return [p.name for p in chosen if (result(device, loaded, p)[0] != expected(p, 1)[0]).any()]


@pytest.mark.parametrize("spaces", SPACES, ids=["spaces", "mixed", "generic"])
def test_products_are_as_numpy_has_them(device, monkeypatch, spaces):
    monkeypatch.setenv("ORION_SIM_TRANSLATE", "never")
    assert wrong(device, products(), spaces) == []


def test_translated_products_too(device, monkeypatch, tmp_path):
    monkeypatch.setenv("ORION_SIM_TRANSLATE", "always")
    chosen = products()[1::6]
    assert wrong(device, chosen, SPACES[0]) == [] and len(list((tmp_path / "cache").glob("*.so"))) == len(chosen)


SMALL = """.version 8.4
.target sm_80
.address_size 64
.visible .entry k0(.param .u64 p0, .param .u64 p1, .param .u64 p2) {
.reg .b32 %a, %b, %c<2>, %s; .reg .u64 %pa, %pb, %pd; .reg .pred %odd;
ld.param.u64 %pa, [p0]; ld.param.u64 %pb, [p1]; ld.param.u64 %pd, [p2]; mov.b32 %c0, 5; mov.b32 %c1, 5;
BEFORE
wmma.load.a.sync.aligned.row.SHAPE.global.TYPE {%a}, [%pa];
wmma.load.b.sync.aligned.col.SHAPE.global.TYPE {%b}, [%pb], STRIDE;
wmma.mmaOP.sync.aligned.row.col.SHAPE.s32.TYPE.TYPE.s32SAT {%c0, %c1}, {%a}, {%b}, {%c0, %c1};
wmma.store.d.sync.aligned.row.SHAPE.global.s32 [%pd], {%c0, %c1};
ret; }"""


def small(**words: str) -> str:
    text = SMALL
    for word, value in ({"SHAPE": "m8n8k32", "TYPE": "s4", "OP": "", "SAT": "", "STRIDE": "64", "BEFORE": ""} | words).items():
        text = text.replace(word, value)
    return text


@pytest.mark.parametrize("kind", ["s4", "u4", "b1"])
def test_elements_smaller_than_a_byte(device, kind):
    rng, bits = np.random.default_rng(5), 1 if kind == "b1" else 4
    k = 128 if kind == "b1" else 32
    a, b = (rng.integers(0, 256, (8, n * k * bits // 8)).astype(np.uint8) for n in (1, 2))  # B's columns lie twice as far apart
    text = small(SHAPE=f"m8n8k{k}", TYPE=kind, OP=".xor.popc" if kind == "b1" else "", SAT="" if kind == "b1" else ".satfinite", STRIDE=str(2 * k))
    out = device.put(np.zeros((8, 8), np.int32))
    device.launch(device.function(device.load(text), "k0"), 1, 32, device.put(a), device.put(b), out)
    x, y = ((m[..., None] >> np.arange(0, 8, bits) & (1 << bits) - 1).reshape(8, -1)[:, :k].astype(int) for m in (a, b))
    if kind == "s4":
        x, y = np.where(x > 7, x - 16, x), np.where(y > 7, y - 16, y)
    want = (x[:, None] != y[None]).sum(axis=2) if kind == "b1" else x @ y.T
    assert (device.get(out, np.zeros((8, 8), np.int32)) == want + 5).all()


@pytest.mark.parametrize("how", ["never", "always"])
@pytest.mark.parametrize("before,code,report", [
    ("add.u64 %pa, %pa, 2;", 716, "read of 4 bytes at address 0x[0-9a-f]+, which is not a multiple of 4"),
    ("add.u64 %pa, %pa, 4;", 700, "invalid read of 4 bytes at address 0x[0-9a-f]+, which is not device memory: 0 bytes behind the end"),
    ("mov.u32 %s, %tid.x; setp.eq.u32 %odd, %s, 9; @%odd add.u64 %pb, %pb, 16;", 715,
     r"wmma.load whose address or stride is another than that of the warp's first thread"),
    ("mov.u32 %s, %tid.x; setp.eq.u32 %odd, %s, 9; @%odd exit;", 715, "wmma.load needs all 32 threads of a warp, and 31 are here")],
    ids=["misaligned", "outside", "not one address", "a thread has ended"])
def test_a_bad_access_is_reported(device, monkeypatch, capfd, how, before, code, report):
    monkeypatch.setenv("ORION_SIM_TRANSLATE", how)
    a, b, d = (device.put(np.zeros(n, np.uint8)) for n in (128, 256, 256))
    f = device.function(device.load(small(BEFORE=before)), "k0")
    with pytest.raises(DeviceError) as e:
        device.launch(f, 1, 32, a, b, d)
    said = capfd.readouterr().err
    assert e.value.code == code and re.search(rf"kernel k0, block \(0,0,0\), thread \(\d+,0,0\), PTX line (8|9): {report}", said), said


@pytest.mark.parametrize("text", [
    small(SHAPE="m8n8k16"), small(TYPE="s8"), small(SAT=".xor"), small(OP=".xor.popc"), small().replace("col.m8n8k32", "row.m8n8k32"),
    small().replace("load.a", "load.d"), small().replace("{%c0, %c1};", "{%c0};"), small().replace("wmma.load.a", "wmma.fetch.a")])
def test_a_form_that_is_none_is_refused_by_name_and_line(device, text):
    with pytest.raises(DeviceError) as e:
        device.load(text)
    assert e.value.code == 218 and re.search(r"PTX line \d+, kernel k0: instruction 'wmma\.[^']*' is not supported by the simulated GPU", str(e.value)), e.value


def test_a_stride_may_be_left_out(device):
    p = next(p for p in products() if p.name == "m16n16k8_tf32_float_rcr")
    text = re.sub(r"(wmma\.load\.a[^;]*), \d+;", r"\1;", ".version 8.4\n.target sm_90\n.address_size 64\n" + kernel(p, SPACES[0]))
    assert text.count(", 24;") == 1  # B's alone
    a, b, c = inputs(p)
    buffers = [device.put(np.ascontiguousarray(x)) for x in (a[:, :p.k], b, c, np.zeros_like(c), np.zeros(4, np.int32))]
    device.launch(device.function(device.load(text), p.name), 1, 32, *buffers)
    assert (device.get(buffers[3], c) == expected(p, 1)[0]).all()
