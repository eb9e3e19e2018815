# SPDX-License-Identifier: Apache-2.0
"""Every generated call, stub to driver and back, under Address- and UndefinedBehaviourSanitizer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import roundtrip
from cuda_header import COMPILER

from orion_virt.codegen.__main__ import generate, write
from orion_virt.codegen.load import load

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=gnu11", "-g", "-O0", "-fno-common", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
#: Bodies by hand are not linked; nothing here reaches them.
LINK = ["-Wl,--unresolved-symbols=ignore-all", "-no-pie", "-ldl"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("roundtrip")
    spec = load()
    write(generate(spec), folder)
    (folder / "guest.c").write_text(roundtrip.guest_c(spec))
    (folder / "install.c").write_text(roundtrip.install_c(spec))
    guest = [folder / "guest.c", ROOT / "tests/spec/c/fake_guest.c"]
    guest += sorted((folder / "guest-agent/libcuda/gen").glob("stub_*.c"))
    host = [folder / "install.c", ROOT / "tests/spec/c/fake_host.c"]
    host += sorted((folder / "orion_virt/executor/gen").glob("*.c"))
    objects = _compile(guest, folder, folder / "guest-agent/libcuda", ROOT / "guest-agent/libcuda")
    objects += _compile(host, folder, folder / "orion_virt/executor", ROOT / "orion_virt/executor")
    _run([COMPILER, *FLAGS, *objects, *LINK, "-o", str(folder / "program")])
    return folder / "program"


def _compile(sources: list[Path], folder: Path, *include: Path) -> list[str]:
    paths = [*include, folder / "ivshmem/gen", ROOT / "ivshmem/include", ROOT / "tests/spec/c"]
    out = folder / f"objects-{include[0].name}"
    out.mkdir()
    includes = [f"-I{p}" for p in paths]
    _run([COMPILER, "-c", *FLAGS, *includes, *(str(s) for s in sources)], out)
    return [str(p) for p in sorted(out.glob("*.o"))]


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[:4000]


def test_every_generated_call_arrives_and_answers(program: Path) -> None:
    assert len(roundtrip.generated(load())) > 50
    _run([str(program)])


def test_made_up_payloads_stay_inside_the_command(program: Path) -> None:
    _run([str(program), "hostile"])
