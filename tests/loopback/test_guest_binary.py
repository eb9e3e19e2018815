# SPDX-License-Identifier: Apache-2.0
"""The guest library as a file: what it needs from an old guest, and what it exports."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess

import pytest
from host import LIB

LIBRARY = LIB / "guest" / "libcuda.so.1"
pytestmark = [pytest.mark.skipif(not LIBRARY.exists(), reason="run `make build` first"),
              pytest.mark.skipif(not shutil.which("objdump"), reason="objdump is not installed")]


def objdump(*options: str) -> str:
    return subprocess.run(["objdump", *options, str(LIBRARY)], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="built without ziglang: for this machine only")
def test_needs_no_symbol_newer_than_glibc_2_17() -> None:
    versions = {tuple(int(part) for part in v.split(".")) for v in re.findall(r"GLIBC_(\d+(?:\.\d+)+)", objdump("-T"))}
    assert versions
    assert max(versions) <= (2, 17)


def test_needs_nothing_but_libc() -> None:
    needed = re.findall(r"NEEDED\s+(\S+)", objdump("-p"))
    assert {name.split(".so")[0] for name in needed} <= {"libc", "libdl", "libpthread", "librt", "ld-linux-x86-64"}
    assert re.search(r"SONAME\s+libcuda\.so\.1$", objdump("-p"), re.M)


def test_exports_the_driver_api_only_and_unversioned() -> None:
    exported = [line.split() for line in objdump("-T").splitlines() if re.search(r"\sg\s+DF?O? \.text|\sg\s+DF \.text", line)]
    names = [words[-1] for words in exported]
    assert len(names) > 600
    assert [name for name in names if not name.startswith("cu")] == []
    assert [words for words in exported if "Base" not in words and len(words) > 6] == []


def test_static_tls_is_small() -> None:
    """Loaded by dlopen at any time: glibc keeps little static TLS for latecomers."""
    tls = re.search(r"TLS\s+off.*\n\s+filesz \S+ memsz (0x[0-9a-f]+)", objdump("-p"))
    assert not tls or int(tls[1], 16) <= 64
