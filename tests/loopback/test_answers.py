# SPDX-License-Identifier: Apache-2.0
"""Odd questions to the driver on the simulated card; the same program is compared with a real one."""

from __future__ import annotations

import re
from pathlib import Path

import host as hosts
import pytest
from programs import FOLDER, nvcc

SOURCE = FOLDER / "answers.cu"
ANSWERED = SOURCE.parent / "answered"
#: body -> lines that it must print, where most of what it prints is the card's own
SAYS = {
    "attributes": ["attribute 10: 0 32", "attribute 0: 1 -77", "device 1: 101"],
    "limits": ["limit 0: 0 1024", "limit 13: 215 77"],
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=256) as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("answers"), "answers.cu")


@pytest.mark.parametrize("name", SAYS)
def test_answers(host: hosts.Host, program: Path, name: str) -> None:
    done = host.run([program, name])
    print(done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and "fault" not in done.stdout
    assert not [line for line in SAYS[name] if line not in lines]


@pytest.mark.parametrize("recorded", sorted(ANSWERED.iterdir()), ids=lambda p: p.name)
def test_as_recorded(host: hosts.Host, program: Path, recorded: Path) -> None:
    """What driver 580.159 answered on an H100."""
    assert [line for line in host.run([program, recorded.name]).stdout.splitlines() if line] == recorded.read_text().splitlines()


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
    assert sorted(host.run([program]).stdout.split()) == sorted(["names", *SAYS, *(p.name for p in ANSWERED.iterdir())])
