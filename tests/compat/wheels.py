# SPDX-License-Identifier: Apache-2.0
"""Releases from the package index, unpacked once into the cache (ORION_CACHE)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from pip._internal.models.index import PyPI

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


def installed(python: Path, package: str) -> str:
    """Its version in that environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def source(package: str, version: str) -> Path:
    """The unpacked source of a release, which need not build here."""
    folder = cache() / "sources" / f"{package}-{version}"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "source.tar.gz"
            archive.write_bytes(_fetched(package, f"{package}-{version}.tar.gz"))
            with tarfile.open(archive) as unpacked:
                unpacked.extraction_filter = getattr(tarfile, "data_filter", None)  # where this Python has it
                unpacked.extractall(scratch)
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(scratch) / f"{package}-{version}", folder)
    return folder


def _fetched(package: str, name: str) -> bytes:
    """A file of the index that pip uses, checked (the simple repository API as JSON, PEP 691)."""
    set_by_user = subprocess.run([sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True)
    index = set_by_user.stdout.strip() or PyPI.simple_url
    asked = urllib.request.Request(f"{index.rstrip('/')}/{package}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        (file,) = [f for f in json.load(answer)["files"] if f["filename"] == name]
    with urllib.request.urlopen(urllib.parse.urljoin(asked.full_url, file["url"]), timeout=SECONDS) as answer:
        content = bytes(answer.read())
    assert hashlib.sha256(content).hexdigest() == file["hashes"]["sha256"], f"{name} is not what the index says"
    return content
