# SPDX-License-Identifier: Apache-2.0
"""Fetches a stock distribution kernel from its package into a cache; nothing is installed."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from orion_virt.errors import NotFound, Unavailable

from .cache import filling

META_PACKAGES = ("linux-image-amd64", "linux-image-virtual", "linux-image-generic")
FETCH_SECONDS = 600


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    image: Path
    modules: Path
    version: str


def fetch(cache: Path) -> Kernel:
    """The cached kernel, or a newly downloaded one. Raises Unavailable with the remedy."""
    home = cache / "kernel"
    with filling(cache):
        if not (home / "done").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                for package in _packages():
                    _unpack(package, Path(scratch), home)
            for image in (home / "boot").glob("vmlinuz-*"):
                image.chmod(0o644)
            _find(home)
            (home / "done").touch()
    return _find(home)


def _find(home: Path) -> Kernel:
    images = sorted((home / "boot").glob("vmlinuz-*"))
    if not images:
        raise NotFound(f"no kernel in {home}", hint=f"Remove {home} and try again")
    version = images[-1].name.removeprefix("vmlinuz-")
    for prefix in ("lib/modules", "usr/lib/modules"):
        if (home / prefix / version).is_dir():
            return Kernel(images[-1], home / prefix / version, version)
    raise NotFound(f"no modules of kernel {version} in {home}", hint=f"Remove {home} and try again")


def _apt(*args: str, cwd: Path | None = None) -> str:
    if not shutil.which(args[0]):
        raise Unavailable(f"{args[0]} is not installed", hint="A Debian or Ubuntu host is needed to fetch a kernel")
    done = subprocess.run(args, cwd=cwd, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    if done.returncode:
        raise Unavailable(f"`{' '.join(args)}` failed: {done.stderr.strip()[-300:]}",
                          hint="Run apt-get update, and see that the network and the disk have room")
    return done.stdout


def _packages() -> list[str]:
    """The real packages behind the distribution's kernel meta package."""
    for meta in META_PACKAGES:
        try:
            text = _apt("apt-cache", "depends", meta)
        except Unavailable:
            continue
        names = re.findall(r"Depends: (linux-(?:image|modules)-\d\S*)", text)
        if names:
            version = re.sub(r"^linux-(image|modules)-", "", names[0])
            modules = f"linux-modules-{version}"
            known = subprocess.run(["apt-cache", "show", modules], capture_output=True, check=False, timeout=180)
            return names[:1] + ([modules] if known.returncode == 0 else [])
    raise Unavailable("no distribution kernel package is known to apt", hint="Run apt-get update")


def _unpack(package: str, scratch: Path, home: Path) -> None:
    _apt("apt-get", "download", "-o", "APT::Sandbox::User=root", package, cwd=scratch)
    debs = list(scratch.glob(f"{package}_*.deb"))
    if not debs:
        raise Unavailable(f"apt-get download {package} left no file", hint="See that the disk has 1 GiB free")
    _apt("dpkg", "-x", str(debs[0]), str(home))
    debs[0].unlink()


def read_module(path: Path) -> bytes:
    """A module's ELF image, decompressed as busybox's insmod needs it."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        if not shutil.which("zstd"):
            raise Unavailable("zstd is not installed", hint="apt-get install zstd")
        return subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True, timeout=180).stdout
    return path.read_bytes()


def modules_in_order(kernel: Kernel, wanted: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """`wanted` and what they depend on, each after its dependencies; built-in ones are left out."""
    files = {p.name.split(".ko")[0].replace("-", "_"): p for p in kernel.modules.rglob("*.ko*")}
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in order or name not in files:
            return
        image = read_module(files[name])
        for dependency in _depends(image):
            add(dependency)
        order[name] = image

    for name in wanted:
        add(name)
    return list(order.items())


def _depends(image: bytes) -> list[str]:
    """The `depends=` line of a module's .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", image)
    return [n.replace("-", "_") for n in found.group(1).decode().split(",") if n] if found else []
