# SPDX-License-Identifier: Apache-2.0
"""`make packages`: orion-virt (host) and orion-client (guest) as .deb and .rpm."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from stage import REPO, STAGES, Package, script  # noqa: E402

MAINTAINER = "orion-virt maintainers <maintainers@orion-virt.invalid>"
URL = "https://orion-virt"
# Which function runs when dpkg calls a script with which first argument.
DEB = {
    "preinst": {"install": "before_install", "upgrade": ""},
    "postinst": {"configure": "after_install"},
    "prerm": {"remove": "before_remove"},
    "postrm": {"remove": "after_remove", "purge": "after_purge"},
}
# As rpm: its first argument counts the packages of this name that will be there.
RPM = {"pre": "before_install", "post": "after_install", "preun": '[ "$1" != 0 ] || before_remove',
       "postun": '[ "$1" != 0 ] || after_remove'}


def version() -> str:
    """setup.cfg's, with the commit's date and name so that later builds are upgrades."""
    match = re.search(r"^version = (\S+)$", (REPO / "setup.cfg").read_text(), re.M)
    assert match
    shown = subprocess.run(["git", "log", "-1", "--format=%cd.%h", "--date=format:%Y%m%d%H%M%S", "--abbrev=7"], cwd=REPO,
                           capture_output=True, text=True, check=False).stdout.strip()
    return f"{match[1]}+{shown}" if shown else match[1]


def _deb_scripts(package: Package, control: Path) -> None:
    for name, cases in DEB.items():
        body = "".join(f"{word}) {function} ;;\n" for word, function in cases.items() if function)
        text = f'#!/bin/sh\nset -e\n{script(package)}\ncase "$1" in\n{body}esac\n'
        (control / name).write_text(text)
        (control / name).chmod(0o755)


@dataclass(frozen=True)
class Job:
    """What is the same for all packages of one run."""

    output: Path
    number: str
    plain: bool  # not compressed, for tests


def build_deb(package: Package, root: Path, job: Job) -> Path:
    """One .deb of the staged `root`."""
    control = root / "DEBIAN"
    control.mkdir()
    size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) // 1024
    fields = {"Package": package.name, "Version": job.number, "Architecture": "amd64", "Maintainer": MAINTAINER, "Section": "admin",
              "Priority": "optional", "Installed-Size": str(size), "Homepage": URL, **package.deb, "Description": package.summary}
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    if package.conffiles:
        (control / "conffiles").write_text("".join(f"{name}\n" for name in package.conffiles))
    _deb_scripts(package, control)
    made = job.output / f"{package.name}_{job.number}_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone" if job.plain else "-Zxz", "--build", str(root), str(made)], check=True,
                   stdout=subprocess.DEVNULL)
    shutil.rmtree(control)
    return made


def _rpm_files(package: Package, root: Path) -> list[str]:
    """Files, and the directories that are ours alone."""
    lines = []
    for path in sorted(root.rglob("*")):
        name = f"/{path.relative_to(root)}"
        if path.is_dir() and not path.is_symlink():
            lines += [f'%dir "{name}"'] if "orion" in name else []
        else:
            lines.append(f'%config(noreplace) "{name}"' if name in package.conffiles else f'"{name}"')
    return lines


def build_rpm(package: Package, root: Path, job: Job) -> Path:
    """One .rpm of the staged `root`."""
    fields = {"Name": package.name, "Version": job.number.replace("-", "_"), "Release": "1", "Summary": package.summary,
              "License": "Apache-2.0", "URL": URL, "AutoReqProv": "no", **package.rpm}
    quoted = script(package).replace("%", "%%")
    parts = ["%define _build_id_links none", "%define __os_install_post %{nil}", f"%define _binary_payload {'w.ufdio' if job.plain else 'w6.xzdio'}",
             *(f"{key}: {value}" for key, value in fields.items()), "%description", package.summary,
             *(f"%{name}\nset -e\n{quoted}\n{call}" for name, call in RPM.items()), "%files", "%defattr(-,root,root)",
             *_rpm_files(package, root)]
    with tempfile.TemporaryDirectory() as top:
        spec = Path(top) / f"{package.name}.spec"
        spec.write_text("\n".join(parts) + "\n")
        copy = Path(top) / "root"
        shutil.copytree(root, copy, symlinks=True)  # rpmbuild removes what it packs
        done = subprocess.run(["rpmbuild", "-bb", "--quiet", "--target", "x86_64-linux", "--define", f"_topdir {top}", "--buildroot",
                               str(copy), str(spec)], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"packages: rpmbuild failed: {done.stderr.strip()[-2000:]}")
        (built,) = Path(top).rglob("*.rpm")
        return Path(shutil.copy(built, job.output / built.name))


def main(job: Job) -> None:
    """Prints the name of each package that it has made."""
    for tool in ("dpkg-deb", "rpmbuild"):
        if not shutil.which(tool):
            sys.exit(f"packages: {tool} is not installed (apt-get install dpkg rpm)")
    job.output.mkdir(parents=True, exist_ok=True)
    for package, stage in STAGES:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory) / "root"
            root.mkdir(mode=0o755)
            stage(root)
            subprocess.run(["chmod", "-R", "u+rwX,go=rX", str(root)], check=True)
            for build in (build_deb, build_rpm):
                print(build(package, root, job))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--version", default=version(), dest="number")
    parser.add_argument("--plain", action="store_true", help="do not compress")
    main(Job(**vars(parser.parse_args())))
