# SPDX-License-Identifier: Apache-2.0
"""The guest's libraries as files: what they need from an old guest, and what they export."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess

import pytest
from host import LIB

NAMES = ["libcuda.so.1", "libnvidia-ml.so.1"]
PROGRAMS = ["orion-smi", "orion-probe", "orion-demo"]
each_library = pytest.mark.parametrize("library", NAMES)
each_file = pytest.mark.parametrize("name", NAMES + PROGRAMS)
pytestmark = [pytest.mark.skipif(not all((LIB / "guest" / name).exists() for name in NAMES + PROGRAMS), reason="run `make build` first"),
              pytest.mark.skipif(not shutil.which("objdump"), reason="objdump is not installed")]


def objdump(library: str, *options: str) -> str:
    return subprocess.run(["objdump", *options, str(LIB / "guest" / library)], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="built without ziglang: for this machine only")
@each_file
def test_needs_no_symbol_newer_than_glibc_2_17(name: str) -> None:
    versions = {tuple(int(part) for part in v.split(".")) for v in re.findall(r"GLIBC_(\d+(?:\.\d+)+)", objdump(name, "-T"))}
    assert versions
    assert max(versions) <= (2, 17)


@each_file
def test_needs_nothing_but_libc(name: str) -> None:
    """And each other, which the program finds beside itself."""
    needed = {one.split(".so")[0] for one in re.findall(r"NEEDED\s+(\S+)", objdump(name, "-p"))}
    ours = {"libnvidia-ml"} if name == "orion-smi" else set()
    assert needed - ours <= {"libc", "libm", "libdl", "libpthread", "librt", "ld-linux-x86-64"}


@each_library
def test_has_its_soname(library: str) -> None:
    assert re.search(rf"SONAME\s+{re.escape(library)}$", objdump(library, "-p"), re.M)


@each_library
def test_exports_its_api_only_and_unversioned(library: str) -> None:
    exported = [line.split() for line in objdump(library, "-T").splitlines() if re.search(r"\sg\s+DF?O? \.text|\sg\s+DF \.text", line)]
    names = [words[-1] for words in exported]
    prefix, number = {"libcuda.so.1": ("cu", 600), "libnvidia-ml.so.1": ("nvml", 430)}[library]
    assert len(names) > number
    assert [name for name in names if not name.startswith(prefix)] == []
    assert [words for words in exported if "Base" not in words and len(words) > 6] == []


@each_library
def test_static_tls_is_small(library: str) -> None:
    """Loaded by dlopen at any time: glibc keeps little static TLS for latecomers."""
    tls = re.search(r"TLS\s+off.*\n\s+filesz \S+ memsz (0x[0-9a-f]+)", objdump(library, "-p"))
    assert not tls or int(tls[1], 16) <= 64
