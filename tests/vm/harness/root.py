# SPDX-License-Identifier: Apache-2.0
"""A guest root of the distribution's own packages, made once by debootstrap into the cache."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from orion_virt.errors import NotFound, Unavailable

BOOTSTRAP_SECONDS = 900
NEEDED_MIB = 600


def guest_root(cache: Path) -> Path:
    """The root directory; Unavailable with the remedy when it cannot be made."""
    root = cache / "root"
    if (root / "done").exists():
        return root / "fs"
    if not shutil.which("debootstrap"):
        raise NotFound("debootstrap is not installed", hint="apt-get install debootstrap")
    cache.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(cache).free < NEEDED_MIB << 20:
        raise Unavailable(f"{NEEDED_MIB} MiB of disk are needed in {cache}", hint="free some, or set ORION_CACHE")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    release = _release()
    argv = ["debootstrap", "--variant=minbase", release, str(root / "fs"), *_mirror(release)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BOOTSTRAP_SECONDS, check=False)
    if done.returncode:
        raise Unavailable(f"debootstrap failed: {(done.stdout + done.stderr)[-400:]}", hint="is the package archive in reach?")
    shutil.rmtree(root / "fs" / "var" / "cache" / "apt" / "archives", ignore_errors=True)
    (root / "done").touch()
    return root / "fs"


def _release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise Unavailable("this distribution has no code name in /etc/os-release", hint="use Debian or Ubuntu")


def _mirror(release: str) -> list[str]:
    """The archive that apt itself uses for this release; debootstrap's default where it cannot be told."""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"], capture_output=True, text=True,
                            check=False, timeout=60)
    sites = [line.split()[0] for line in listed.stdout.splitlines() if line.split()[1:] == [release]]
    return sites[:1]
