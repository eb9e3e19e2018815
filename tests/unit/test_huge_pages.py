# SPDX-License-Identifier: Apache-2.0
"""Huge pages are reported as the tmpfs has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orion_virt.region import huge

REPO = Path(__file__).resolve().parents[2]
SHM = "31 25 0:28 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw,size=1024k{}\n"
OTHER = "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n26 25 0:5 / /dev rw - devtmpfs udev rw,size=10k\n"


@pytest.mark.parametrize(("mounts", "switch", "expected"), [
    (OTHER + SHM.format(",huge=within_size,inode64"), "always within_size advise [never] deny force", "within_size"),
    (OTHER + SHM.format(""), "always [within_size] advise never deny force", "never"),
    (OTHER + SHM.format(",huge=always"), "always within_size advise never [deny] force", "deny"),
    (OTHER + SHM.format(""), "always within_size advise never deny [force]", "force"),
    (OTHER + SHM.format(",huge=always") + SHM.format(",huge=advise"), "[never]", "advise"),
    (OTHER + SHM.format(",huge=always"), "", ""), (OTHER, "[never]", ""), ("", "[never]", "")])
def test_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str, switch: str, expected: str) -> None:
    (tmp_path / "mounts").write_text(mounts)
    (tmp_path / "switch").write_text(switch)
    monkeypatch.setattr(huge, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(huge, "SWITCH", tmp_path / "switch")
    assert huge.policy(Path("/dev/shm")) == expected
    said = huge.describe(Path("/dev/shm"))
    assert ("remount,huge=within_size /dev/shm" in said) is (expected in ("never", "advise"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.skipif(not huge.SWITCH.exists(), reason="this kernel has no huge pages for shared memory")
@pytest.mark.parametrize("option", ["within_size", "never"])
def test_a_real_tmpfs(tmp_path: Path, option: str) -> None:
    program = "import pathlib, sys; from orion_virt.region import huge; print(huge.policy(pathlib.Path(sys.argv[1])))"
    script = f"mount -t tmpfs -o huge={option} t {tmp_path} && exec {sys.executable} -c \"$0\" {tmp_path}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, program], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in (option, "deny", "force"), done.stdout + done.stderr  # the kernel's switch may be set
