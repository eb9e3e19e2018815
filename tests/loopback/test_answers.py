# SPDX-License-Identifier: Apache-2.0
"""Odd questions to the driver on the simulated card; the same program is compared with a real one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import host as hosts
import pytest

SOURCE = Path(__file__).resolve().parent.parent / "gpu" / "programs" / "answers.cu"
#: body -> lines that it must print; what a real card says is compared there
SAYS = {
    "odd_names": ["'' 0: 0 null 1", "cuInit 99000: 1 left 77", "'cuFuncGetParamCount' 13000: 0 null 1"],
    "texts": ["719: 0 CUDA_ERROR_LAUNCH_FAILED: 0 unspecified launch failure", "1000: 1 null: 1 null"],
    "attributes": ["attribute 10: 0 32", "attribute 0: 1 -77", "device 1: 101"],
    "limits": ["limit 0: 0 1024", "limit 13: 215 77"],
    "without_init": ["D(cuMemAlloc)(nullptr, 0): 3", "D(cuDriverGetVersion)(&i): 0"],
    "without_context": ["D(cuMemFree)(0): 0", "D(cuDevicePrimaryCtxReset)(0): 0"],
    "wrong_devices": ["D(cuDeviceTotalMem)(&n, 1000): 101"],
    "wrong_contexts": ["D(cuCtxCreate)(&c, &params, 0, 0): 224", "D(cuCtxDestroy)(context): 201"],
    "wrong_streams": ["D(cuStreamCreate)(&s, 2): 1", "D(cuEventElapsedTime)(&ms, a, b): 400"],
    "wrong_memory": ["D(cuMemsetD8)(0, 0, 64): 1", "D(cuMemsetD16)(p + 1, 0, 4): 1", "D(cuMemFree)(p): 0"],
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=256) as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed")
    made = tmp_path_factory.mktemp("answers") / "answers"
    flags = ["-arch=compute_90", "-std=c++17", "-Wno-deprecated-declarations", "-ldl"]
    subprocess.run(["nvcc", "-o", made, SOURCE, *flags], check=True)
    return made


@pytest.mark.parametrize("name", SAYS)
def test_answers(host: hosts.Host, program: Path, name: str) -> None:
    done = host.run([program, name])
    print(done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and "fault" not in done.stdout
    assert not [line for line in SAYS[name] if line not in lines]


def test_the_attributes_not_compared_are_the_client_s_own() -> None:
    client = (SOURCE.parents[3] / "guest-agent/libcuda/device.c").read_text()
    absent = client[client.index("bool og_attribute_is_absent") :].split("return true;")[0]
    own = re.search(r"OWN\[\] = \{ ([\d, ]+) \}", SOURCE.read_text())
    assert own and {int(n) for n in own[1].split(",")} == {33, 34, 50, 134} | {int(n) for n in re.findall(r"case (\d+):", absent)}


def test_names(host: hosts.Host, program: Path, tmp_path: Path) -> None:
    """A name that changed twice, with its variant for per-thread default streams."""
    questions = tmp_path / "names"
    questions.write_text("2000 10010 11030 12030 13000\ncuStreamGetCaptureInfo\ncuNothing\ncuGLGetDevices\n")
    done = host.run(["sh", "-c", f"'{program}' names < '{questions}'"])
    assert done.stdout.splitlines()[::3] == [
        "cuStreamGetCaptureInfo 0: 2000=[0 null 2] 10010=[0 set 0]", "cuNothing 0: 2000=[0 null 1]",
        "cuGLGetDevices 0: 2000=[0 null 2] 10010=[0 set 0]"]  # fmt: skip


def test_every_body_is_named(host: hosts.Host, program: Path) -> None:
    assert host.run([program]).stdout.split() == ["names", *SAYS]
