# SPDX-License-Identifier: Apache-2.0
"""The programs of programs/*.cu: on the host's CPU, as compiled for several architectures, and as a real card ran them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import LIBRARY, compile_ptx, headers, recorded
from device import Device
from instructions import instructions
from corpus import FOLDER, IN_WORDS, OPTIONS, OUT_WORDS, difference, nvcc, result, runs, words
from reference import BLOCK, FOLDER as REFERENCE, instruction_results, summary, unpacked

RUNS = runs()
PTX: dict[tuple[str, int], bytes] = {}


def ptx(file: str, arch: int) -> bytes:
    """A program by NVRTC, compiled once."""
    if (file, arch) not in PTX:
        source = (FOLDER / f"{file}.cu").read_text()
        if file == "nvcc":
            if not shutil.which("nvcc"):
                pytest.skip("nvcc is not installed")
            return PTX.setdefault((file, arch), nvcc(file, arch))
        PTX[file, arch] = compile_ptx(source, str(arch), f"--include-path={headers()}", "--device-int128", *OPTIONS).rstrip(b"\0 ")
    return PTX[file, arch]


@pytest.fixture(scope="module")
def device():
    return Device(str(LIBRARY))


def got(device: Device, run, arch: int = 90) -> np.ndarray:
    module = device.load(ptx(run.file, arch))
    out = result(device, module, run)
    device.unload(module)
    return out


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """flow.cu as a library for the host's CPU, by zig's C++ compiler."""
    library = tmp_path_factory.mktemp("host") / "flow.so"
    subprocess.run([sys.executable, "-m", "ziglang", "c++", "-std=c++17", "-O1", "-w", "-fno-sanitize=undefined", "-shared", "-fPIC",
                    "-include", Path(__file__).parent / "host_threads.h", "-x", "c++", FOLDER / "flow.cu", "-o", library],
                   check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("run", [r for r in RUNS if r.file == "flow"], ids=lambda r: r.name)
def test_flow_is_as_on_the_host(device, host, run):
    out, source = np.zeros(OUT_WORDS, np.uint32), words()
    assert source.size == IN_WORDS
    host.run(getattr(host, run.kernel), run.grid, run.block, ctypes.c_void_p(source.ctypes.data), ctypes.c_void_p(out.ctypes.data))
    assert np.count_nonzero(out) > run.grid * run.block // 2
    assert not difference(run, got(device, run), out)


@pytest.mark.parametrize("run", RUNS, ids=lambda r: r.name)
def test_architectures_agree(device, run):
    newest = got(device, run, 90)
    assert np.any(newest), "a kernel that writes nothing compares nothing"
    for arch in (75, 80, 86):
        if arch >= run.arch:
            assert not difference(run, got(device, run, arch), newest), f"compute_{arch}"


@pytest.mark.parametrize("run", RUNS, ids=lambda r: r.name)
def test_program_is_as_on_a_card(device, run):
    want = unpacked(recorded("programs")[run.name], np.zeros(OUT_WORDS, np.uint32))
    assert not difference(run, got(device, run), want)


def test_instructions_are_as_on_a_card(device):
    known, wrong = recorded("instructions"), []
    unlike = set((REFERENCE / "unlike.txt").read_text().split())
    chosen = instructions(90)
    assert set(known) == {i.name for i in chosen}, "record again: the list of instructions has changed"
    for i, values in zip(chosen, instruction_results(device, chosen)):
        if i.relative or i.absolute:
            continue  # test_instructions.py holds these to what the manual promises
        blocks = [k for k, (a, b) in enumerate(zip(summary(i, values).split(), known[i.name].split())) if a != b]
        if blocks and i.name not in unlike:
            wrong.append(f"{i.name}: results {', '.join(f'{k * BLOCK}..{k * BLOCK + BLOCK - 1}' for k in blocks[:4])}")
        elif not blocks and i.name in unlike:
            wrong.append(f"{i.name} is as on the card now: take it out of unlike.txt")
    assert not wrong, f"{len(wrong)} instructions:\n" + "\n".join(wrong)


@pytest.mark.parametrize("run", [r for r in RUNS if "functions" not in r.kernel], ids=lambda r: r.name)
def test_translated_program_is_as_interpreted(device, run, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("ORION_SIM_CACHE", str(tmp_path_factory.getbasetemp() / "translated"))
    monkeypatch.setenv("ORION_SIM_TRANSLATE", "never")
    want = got(device, run)
    monkeypatch.setenv("ORION_SIM_TRANSLATE", "always")
    assert not difference(run, got(device, run), want)
