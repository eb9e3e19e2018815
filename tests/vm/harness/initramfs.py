# SPDX-License-Identifier: Apache-2.0
"""Writes the guest's initramfs: static busybox, the kernel's virtio and 9p modules, and guest_init.sh."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
from pathlib import Path

from orion_virt.errors import NotFound

from .kernel import Kernel, modules_in_order

MODULES = ("virtio_pci", "virtio_console", "virtio_net", "virtio_rng", "9pnet_virtio", "9p", "overlay")
BUSYBOX = ("/bin/busybox", "/usr/bin/busybox", "/usr/lib/initramfs-tools/bin/busybox")
PT_INTERP = 3
DIRECTORIES = ("bin", "dev", "proc", "sys", "tmp", "etc", "modules", "newroot", "lower", "upper", "home", "root", "run")


class Cpio:
    """The kernel's `newc` archive format; every file is root's."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._ino = 0

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        self._ino += 1
        name_bytes = name.encode() + b"\0"
        fields = (self._ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name_bytes), 0)
        self._out.write(b"070701" + b"".join(b"%08X" % f for f in fields) + name_bytes)
        self._pad()
        self._out.write(data)
        self._pad()

    def _pad(self) -> None:
        self._out.write(b"\0" * (-self._out.tell() % 4))

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return self._out.getvalue()


def static_busybox() -> Path:
    """A busybox without a dynamic loader. Raises NotFound with the package's name."""
    for name in BUSYBOX:
        path = Path(name)
        if path.is_file() and not _needs_loader(path.read_bytes()):
            return path
    raise NotFound("no statically linked busybox on this machine", hint="apt-get install busybox-static")


def _needs_loader(image: bytes) -> bool:
    """Whether an x86-64 ELF file has a PT_INTERP program header."""
    first, = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    return any(struct.unpack_from("<I", image, first + i * size)[0] == PT_INTERP for i in range(count))


def with_files(initramfs: Path, files: dict[str, Path], target: Path) -> Path:
    """A copy of an initramfs with more files in it, by their paths in the guest; the kernel unpacks both archives."""
    archive = Cpio()
    made: set[str] = set()
    for name, source in files.items():
        for parent in reversed(Path(name.lstrip("/")).parents[:-1]):
            if str(parent) not in made:
                made.add(str(parent))
                archive.add(str(parent), stat.S_IFDIR | 0o755)
        archive.add(name.lstrip("/"), stat.S_IFREG | 0o755, source.read_bytes())
    target.write_bytes(initramfs.read_bytes() + archive.finish())
    return target


def build(kernel: Kernel, cache: Path) -> Path:
    """The initramfs for `kernel`, built anew whenever an ingredient changed."""
    init = Path(__file__).with_name("guest_init.sh").read_bytes()
    busybox = static_busybox().read_bytes()
    key = hashlib.sha256(init + hashlib.sha256(busybox).digest() + kernel.version.encode() + repr(MODULES).encode())
    target = cache / f"initramfs-{key.hexdigest()[:16]}.cpio"
    if target.exists():
        return target
    archive = Cpio()
    for name in DIRECTORIES:
        archive.add(name, stat.S_IFDIR | (0o1777 if name == "tmp" else 0o755))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, busybox)
    archive.add("bin/sh", stat.S_IFLNK | 0o777, b"busybox")
    archive.add("init", stat.S_IFREG | 0o755, init)
    order = []
    for number, (name, image) in enumerate(modules_in_order(kernel, MODULES)):
        order.append(f"{number:02}-{name}.ko")
        archive.add(f"modules/{order[-1]}", stat.S_IFREG | 0o644, image)
    archive.add("modules/order", stat.S_IFREG | 0o644, "".join(f"{n}\n" for n in order).encode())
    cache.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(archive.finish())
    partial.rename(target)
    return target
