# SPDX-License-Identifier: Apache-2.0
"""Releases from the package index, unpacked once into the cache (ORION_CACHE)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from vm.harness import guest_cache

SECONDS = 1800
QUIET = ["-q", "--disable-pip-version-check", "--no-cache-dir"]


def cache() -> Path:
    return guest_cache() / "compat"


def _pip(python: str | Path, *words: str) -> str:
    done = subprocess.run([str(python), "-m", "pip", *words], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"pip {' '.join(words)}: {done.stderr[-2000:]}"
    return done.stdout


def newest(package: str) -> str:
    """The version that pip would install now."""
    said = _pip(sys.executable, "install", *QUIET, "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", package)
    return json.loads(said)["install"][0]["metadata"]["version"]


def unpacked(requirement: str) -> Path:
    """The folder with the files of `package==version`; of `package` the newest."""
    package, _, version = requirement.partition("==")
    version = version or newest(package)
    folder = cache() / "wheels" / f"{package}-{version}"
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part{os.getpid()}")
        _pip(sys.executable, "install", *QUIET, "--no-deps", "--target", str(part), f"{package}=={version}")
        for old in folder.parent.glob(f"{package}-*.part*"):
            if old != part:
                shutil.rmtree(old)
        part.rename(folder)
    return folder


def libraries(folder: Path) -> list[Path]:
    """Folders of shared libraries below `folder`."""
    return sorted({found.parent for found in folder.glob("**/lib/*.so*")})


def environment(name: str, *requirements: str) -> Path:
    """The interpreter of a virtual environment of its own that holds the newest of `requirements`."""
    folder = cache() / f"venv-{name}"
    python = folder / "bin" / "python"
    stamp = folder / "holds"
    words = " ".join(requirements)
    if not stamp.exists() or stamp.read_text() != words:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
        _pip(python, "install", *QUIET, *requirements)
        stamp.write_text(words)
    return python
