# SPDX-License-Identifier: Apache-2.0
"""The files of the packages, laid out below a directory as they will lie on a machine."""

from __future__ import annotations

import compileall
import importlib.metadata
import os
import py_compile
import re
import runpy
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

REPO = Path(__file__).resolve().parent.parent
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
SITE = "usr/lib/orion/python"
PROGRAMS = {"oriond": "orion_virt.cli.oriond", "orion-controller": "orion_virt.cli.controller", "orion-virt": "orion_virt.cli.main",
            "orion-check": "orion_virt.cli.check", "orion-doorbell": "ivshmem.server"}
UNUSED = {"cuda-core", "numpy"}  # of cuda-python, of which the bindings are used
LAUNCHER = """\
#!/usr/bin/python3 -I
import os
import sys

os.environ["PYTHONPATH"] = "/{site}"  # for workers and other children
sys.path.insert(0, "/{site}")
from {module} import main

main()
"""


@dataclass(frozen=True)
class Package:
    """What deb and rpm say of themselves."""

    name: str
    summary: str
    script: str  # in this directory
    deb: dict[str, str]
    rpm: dict[str, str]
    conffiles: tuple[str, ...] = ()


def _library_versions() -> tuple[str, str]:
    """glibc and libvirt that the binaries were built with: no older ones have all their symbols."""
    import libvirt

    number = libvirt.getVersion()
    return (os.confstr("CS_GNU_LIBC_VERSION") or "glibc 2.17").split()[1], f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


GLIBC, LIBVIRT = _library_versions()
NEXT = f"{sys.version_info[0]}.{sys.version_info[1] + 1}"
SERVER = Package(
    "orion-virt", "Shares the GPUs of a host with its libvirt virtual machines, with no driver in the guest", "server.sh",
    {"Depends": f"python3 (>= {PYTHON}), python3 (<< {NEXT}), libc6 (>= {GLIBC}), libvirt0 (>= {LIBVIRT}), "
                "libvirt-daemon-system, qemu-system-x86 | qemu-kvm", "Conflicts": "orion-client"},
    {"Requires": f"python(abi) = {PYTHON}, glibc >= {GLIBC}, libvirt-libs >= {LIBVIRT}, libvirt-daemon-driver-qemu, qemu-kvm", "Conflicts": "orion-client"},
)
CLIENT = Package(
    "orion-client", "CUDA of an Orion vGPU in a virtual machine, with no driver and no CUDA", "client.sh",
    {"Depends": "libc6 (>= 2.17)", "Conflicts": "orion-virt"}, {"Conflicts": "orion-virt"}, ("/etc/orion/client.conf",),
)


def _put(root: Path, name: str, data: bytes | str, mode: int = 0o644) -> None:
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data.encode() if isinstance(data, str) else data)
    target.chmod(mode)


def _copy_package(site: Path) -> None:
    """orion_virt and ivshmem as setup.cfg packages them, with the hook beside them as in a checkout."""
    for source in (*(REPO / "orion_virt").rglob("*"), *(REPO / "ivshmem").glob("*.py")):
        inside = source.relative_to(REPO)
        is_data = inside.parts[1] in ("_lib", "systemd") or source.name == "vgpu.rng" or source.parent.name == "web"
        if source.is_file() and "__pycache__" not in inside.parts and (source.suffix == ".py" or is_data):
            (site / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, site / inside)
    hook = Path("hooks") / "qemu.d" / "50-orion-virt"
    _put(site, str(hook), (REPO / hook).read_bytes(), 0o755)


def _applies(requirement: str) -> bool:
    """Whether this Python needs it; extras are nobody's here."""
    return Requirement(requirement).marker is None or Requirement(requirement).marker.evaluate({"extra": ""})


def _requirements() -> list[importlib.metadata.Distribution]:
    """setup.cfg's, and theirs."""
    text = (REPO / "setup.cfg").read_text()
    listed = text.split("install_requires =\n", 1)[1].split("\n\n", 1)[0]
    queue, found = [line.strip() for line in listed.splitlines()], {}
    while queue:
        name = re.split(r"[\s;<>=~!\[(]", queue.pop(), maxsplit=1)[0].lower()
        if name not in found and name not in UNUSED:
            found[name] = importlib.metadata.distribution(name)
            queue += [line for line in found[name].requires or [] if _applies(line)]
    return [found[name] for name in sorted(found)]


def _copy_requirements(site: Path) -> None:
    for distribution in _requirements():
        for file in distribution.files or []:
            if file.parts[0] != ".." and file.suffix not in (".pyc", ".pxd", ".pyx", ".h", ".pyi"):
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(distribution.locate_file(file), target)


def server(root: Path) -> None:
    """Files of the host's package."""
    site = root / SITE
    _copy_package(site)
    _copy_requirements(site)
    compileall.compile_dir(site, quiet=1, stripdir=str(root), prependdir="/", workers=1,
                           invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    for program, module in PROGRAMS.items():
        _put(root, f"usr/bin/{program}", LAUNCHER.format(site=SITE, module=module), 0o755)
    for unit in (REPO / "orion_virt" / "systemd").glob("*.service"):
        _put(root, f"usr/lib/systemd/system/{unit.name}", unit.read_bytes())
    _put(root, "usr/lib/tmpfiles.d/orion.conf", (REPO / "orion_virt" / "systemd" / "orion.tmpfiles.conf").read_bytes())
    for page in (REPO / "orion_virt" / "_lib" / "man").glob("*.[18]"):
        _put(root, f"usr/share/man/man{page.suffix[1:]}/{page.name}", page.read_bytes())
    sys.path.insert(0, str(REPO))
    from orion_virt.cli import complete

    for shell, place in complete.PLACES.items():
        _put(root, f"usr/share/{place}", complete.script(shell))
    for file in (REPO / "monitoring").iterdir():
        _put(root, f"usr/share/orion-virt/monitoring/{file.name}", file.read_bytes())
    for doc in (REPO / "docs").glob("*.md"):
        _put(root, f"usr/share/doc/orion-virt/{doc.name}", doc.read_bytes())


def client(root: Path) -> None:
    """Files of the guest's package: those of install-client, and what that writes."""
    installer = REPO / "guest-agent" / "installer"
    payload = runpy.run_path(str(installer / "build.py"))["payload"]
    for name, path, mode in payload(REPO / "orion_virt" / "_lib"):
        place = name.replace("/etc/udev/", "usr/lib/udev/") if name.startswith("/") else f"usr/lib/orion/{name}"
        _put(root, place, path.read_bytes(), int(mode, 8))
    (root / "usr/bin").mkdir(parents=True)
    for link, target in (("usr/lib/orion/libcuda.so", "libcuda.so.1"), ("usr/lib/orion/libnvidia-ml.so", "libnvidia-ml.so.1"),
                         ("usr/bin/orion-smi", "/usr/lib/orion/orion-smi"), ("usr/bin/orion-check", "/usr/lib/orion/orion-check")):
        os.symlink(target, root / link)
    _put(root, "etc/ld.so.conf.d/orion.conf", "/usr/lib/orion\n")
    _put(root, "etc/orion/client.conf", (installer / "client.conf").read_bytes())


def script(package: Package) -> str:
    """The functions of the package's script."""
    setup = (REPO / "guest-agent" / "installer" / "setup.sh").read_text()
    return (Path(__file__).parent / package.script).read_text().replace("@SETUP@", setup)


STAGES = ((SERVER, server), (CLIENT, client))
