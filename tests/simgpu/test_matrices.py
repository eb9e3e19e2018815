# SPDX-License-Identifier: Apache-2.0
"""Every form of mma: its layouts as the PTX manual has them, its results against exact sums, interpreted and translated."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import LIBRARY, recorded
from device import Device, DeviceError
from matrices import Form, forms, results, slack_of_a_card, wrong
from reference import unpacked


@pytest.fixture
def device():
    return Device(str(LIBRARY))


@pytest.fixture(scope="module")
def interpreted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORION_SIM_TRANSLATE", "never")
        return results(Device(str(LIBRARY)), [forms(90)])


def kind(form: Form) -> str:
    return f"{form.a}-{form.c}"


@pytest.mark.parametrize("which", sorted({kind(f) for f in forms(90)}))
def test_mma_gives_the_exact_sum_rounded_once(interpreted, which):
    chosen = [f for f in forms(90) if kind(f) == which]
    found = [w for f in chosen for w in wrong(f, interpreted[f.text])]
    assert not found, f"{len(found)} differ:\n" + "\n".join(found[::max(len(found) // 12, 1)][:14])


def test_translated_mma_gives_the_same_bits(device, interpreted, monkeypatch, tmp_path):
    monkeypatch.setenv("ORION_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ORION_SIM_TRANSLATE", "always")
    got = results(device, [forms(90)[::9]])  # the interpreter's own code computes: it is the registers that matter
    assert len(list((tmp_path / "cache").glob("*.so"))) == 1
    assert [text for text in got if (got[text] != interpreted[text]).any()] == []


def test_a_card_is_as_near_as_is_said(interpreted):
    """Bits differ, since it truncates; whole numbers do not."""
    found = recorded("matrices")
    assert set(found) == {f.text for f in forms(90)}, "record it again on a card"
    for form in forms(90):
        got = unpacked(found[form.text], interpreted[form.text].reshape(-1)).reshape(interpreted[form.text].shape)
        assert wrong(form, got, slack_of_a_card(form)) == []
        assert form.c != "s32" or np.array_equal(got, interpreted[form.text])


REFUSED = """.version 8.4
.target sm_90
.address_size 64
.visible .entry k0() { .reg .b32 %r<32>; .reg .f64 %d<8>;
TEXT
ret; }"""
R2, R4 = "{%r0, %r1}", "{%r0, %r1, %r2, %r3}"


@pytest.mark.parametrize("text", [
    f"mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {R4}, {R4}, {R2}, {R4};",
    f"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {R4}, {R2}, {R2}, {R4};",
    f"mma.sync.aligned.m16n8k16.row.col.f32.f16.bf16.f32 {R4}, {R4}, {R2}, {R4};",
    f"mma.sync.aligned.m16n8k16.row.col.satfinite.f32.f16.f16.f32 {R4}, {R4}, {R2}, {R4};",
    f"mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {R4}, {R2}, {R2}, {R4};",
    f"mma.sp.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {R4}, {R4}, {R4}, {R4}, %r4, 0;",
    f"mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32 {R2}, {{%r0}}, {{%r1}}, {R2};",
    "wgmma.fence.sync.aligned;"])
def test_a_form_that_is_none_is_refused_by_name_and_line(device, text):
    with pytest.raises(DeviceError) as e:
        device.load(REFUSED.replace("TEXT", text))
    name = text.split(" ")[0].rstrip(";")
    assert e.value.code == 218 and f"'{name}' is not supported by the simulated GPU" in str(e.value) and "line 5" in str(e.value), e.value
