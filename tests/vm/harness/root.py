# SPDX-License-Identifier: Apache-2.0
"""A guest root of the distribution's own packages, made once by debootstrap into the cache."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path

from orion_virt.errors import NotFound, Unavailable

from .cache import filling

NEEDED_MIB = 600


def guest_root(cache: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """The root directory; `say` gets debootstrap's lines. Unavailable with the remedy when it cannot be made."""
    return _made(cache, cache / "root", _release(), say)


def python_root(cache: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """The same with Python."""
    return _made(cache, cache / "roots" / "python", _release(), say, "python3")


def release_root(cache: Path, release: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """The same of another release of Debian."""
    return _made(cache, cache / "roots" / release, release, say)


def _made(cache: Path, root: Path, release: str, say: Callable[[str], None], packages: str = "") -> Path:
    with filling(cache):
        if not (root / "done").exists():
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir(parents=True)
            _bootstrap(root / "fs", release, say, packages)
            (root / "done").touch()
    return root / "fs"


def _bootstrap(target: Path, release: str, say: Callable[[str], None], packages: str) -> None:
    if not shutil.which("debootstrap"):
        raise NotFound("debootstrap is not installed", hint="apt-get install debootstrap")
    if shutil.disk_usage(target.parent).free < NEEDED_MIB << 20:
        raise Unavailable(f"{NEEDED_MIB} MiB of disk are needed in {target.parent}", hint="Free some, or set ORION_CACHE")
    # In namespaces of its own what debootstrap mounts and starts is gone with it, however we end.
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
            "debootstrap", "--variant=minbase", *([f"--include={packages}"] if packages else []), release, str(target), *_mirror(release)]
    last: deque[str] = deque(maxlen=4)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                last.append(line)
                say(line.strip().removeprefix("I: "))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise Unavailable(f"debootstrap failed: {''.join(last).strip()}", hint="Is the package archive in reach?")
    shutil.rmtree(target / "var" / "cache" / "apt" / "archives", ignore_errors=True)
    # QEMU's user reads the files for the guest; there are no secrets among them.
    subprocess.run(["chmod", "-R", "a+rX", str(target)], check=True)


def _release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise Unavailable("this distribution has no code name in /etc/os-release", hint="Use Debian or Ubuntu")


def _mirror(release: str) -> list[str]:
    """The archive that apt itself uses for this release; debootstrap's default where it cannot be told."""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"], capture_output=True, text=True,
                            check=False, timeout=180)
    lines = [line.split() for line in listed.stdout.splitlines() if len(line.split()) == 2]
    sites = [site for site, found in lines if found == release]
    if not sites and "debian" in Path("/etc/os-release").read_text():  # another release of the same archive
        sites = [site for site, found in lines if found == _release()]
    return sites[:1]
