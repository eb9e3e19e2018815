# SPDX-License-Identifier: Apache-2.0
""".ci/setup with stand-ins for what would change this machine: what it asks, installs and says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Each writes its name and arguments into the file `calls`.
STAND_INS = {
    "apt-get": 'case "$*" in *"$FAILS"*) [ -z "$FAILS" ] || exit 100 ;; esac',
    "dpkg-query": 'for p in $MISSING; do case "$*" in *" $p") exit 1 ;; esac; done; echo "install ok installed"',
    "id": "echo 1000",
    "sudo": '[ "$1" != tee ] || cat >/dev/null; case "$1" in env) shift 2; exec "$@" ;; apt-get) exec "$@" ;; esac',
    "uname": "echo ${MACHINE:-x86_64}",
    "df": r'printf "h\nx 1 1 ${FREE:-9000000} 1%% /\n"',
}


@pytest.fixture
def setup(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a copy of the script whose virtual environment is up to date."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "setup", tmp_path / ".ci")
    (tmp_path / "bin").mkdir()
    for name, body in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n{body}\n')
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    stamp = subprocess.run("cat setup.cfg pyproject.toml | cksum | cut -d' ' -f1", shell=True, cwd=tmp_path, text=True,
                           capture_output=True, check=True).stdout.strip()
    (tmp_path / ".venv" / f"installed-{stamp}").touch()

    def run(stdin: int = subprocess.DEVNULL, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {"OS_RELEASE": "/nowhere", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "MISSING": "", "FAILS": "", **variables}
        return subprocess.run([shutil.which("dash") or "sh", tmp_path / ".ci" / "setup"], stdin=stdin, env=env, text=True,
                              capture_output=True, timeout=180, check=False)

    return run


def installed(folder: Path) -> list[str]:
    calls = folder / "calls"
    return [line for line in calls.read_text().splitlines() if line.startswith("apt-get install")] if calls.exists() else []


def test_nothing_is_missing(setup: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    done = setup()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not installed(tmp_path)


def test_only_what_is_missing(setup: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    done = setup(MISSING="seabios zstd", YES="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "These packages will be installed with apt-get: seabios zstd\n"
    assert [line.split()[-2:] for line in installed(tmp_path)] == [["seabios", "zstd"]]
    calls = (tmp_path / "calls").read_text()
    if not Path("/usr/sbin/policy-rc.d").exists():  # no service that comes with a package is started
        assert calls.index("sudo tee /usr/sbin/policy-rc.d") < calls.index("apt-get install")
        assert calls.index("apt-get install") < calls.index("sudo rm -f /usr/sbin/policy-rc.d")


@pytest.mark.parametrize(("system", "browser"), [("debian", True), ("ubuntu", False), (None, False)])
def test_the_browser_where_it_is_a_package(setup: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, system: str | None,
                                           browser: bool) -> None:
    if system is not None:
        (tmp_path / "os-release").write_text(f'NAME="X"\nVERSION_ID="1"\nID={system}\nID_LIKE=debian\n')
    done = setup(MISSING="zstd chromium chromium-driver", YES="1", OS_RELEASE=str(tmp_path / "os-release"))
    assert done.returncode == 0 and not done.stderr
    assert [line.split()[-1 - 2 * browser :] for line in installed(tmp_path)] == [["zstd", *(["chromium", "chromium-driver"] if browser else [])]]


def test_continuous_integration_is_not_asked(setup: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    assert setup(MISSING="zstd", CI="true").returncode == 0
    assert installed(tmp_path)


def test_no_terminal_to_ask_on(setup: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    done = setup(MISSING="zstd")
    assert done.returncode == 1 and "YES=1" in done.stderr
    assert not installed(tmp_path)


@pytest.mark.parametrize(("answer", "status"), [(b"n\n", 1), (b"y\n", 0)])
def test_the_question(setup: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, answer: bytes,
                      status: int) -> None:
    ours, theirs = os.openpty()
    try:
        os.write(ours, answer)
        done = setup(stdin=theirs, MISSING="zstd")
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == status and "Do you want to continue [n/y] ?" in done.stdout
    assert bool(installed(tmp_path)) == (status == 0)


@pytest.mark.parametrize(("variables", "said"), [
    ({"MISSING": "zstd", "FAILS": "update"}, "is there a network?"),
    ({"MISSING": "zstd", "FAILS": "install"}, "could not install: zstd"),
    ({"MACHINE": "aarch64"}, "this one is aarch64"),
    ({"FREE": "1000"}, "3 GB of disk are needed"),
])
def test_one_clear_error(setup: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, variables: dict[str, str],
                         said: str) -> None:
    done = setup(YES="1", **variables)
    assert done.returncode == 1
    assert said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    calls = (tmp_path / "calls").read_text()
    assert calls.count("sudo tee /usr/sbin/policy") == min(1, calls.count("sudo rm -f /usr/sbin/policy"))


def test_the_virtual_environment_gets_what_tests_and_documentation_need(setup: Callable[..., subprocess.CompletedProcess[str]],
                                                                        tmp_path: Path) -> None:
    next((tmp_path / ".venv").glob("installed-*")).unlink()
    (tmp_path / ".venv" / "bin").mkdir()
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / "bin" / "pip").write_text(f'#!/bin/sh\necho "pip $*" >>{tmp_path}/calls\n')
    (tmp_path / ".venv" / "bin" / "pip").chmod(0o755)
    assert setup().returncode == 0
    assert "-r .venv/requirements.txt" in (tmp_path / "calls").read_text()
    assert {"libvirt-python", "pytest", "sphinx", "myst-parser"} <= set((tmp_path / ".venv" / "requirements.txt").read_text().split())
    assert list((tmp_path / ".venv").glob("installed-*"))


@pytest.mark.parametrize(("uid", "sudo"), [("0", ""), ("1000", "sudo env ")])
@pytest.mark.parametrize(("target", "does"), [("demo", "guest-agent/demo/run.py"), ("test", "ORION_NO_SKIPS=1 .venv/bin/python -m pytest")])
def test_make(tmp_path: Path, target: str, does: str, uid: str, sudo: str) -> None:
    """The README's two commands prepare the machine, build as the user and run as root."""
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    (tmp_path / "id").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    shown = subprocess.run(["make", "-n", "--no-print-directory", target, "MAKE=make"], cwd=ROOT, env=env, text=True,
                           capture_output=True, timeout=180, check=True).stdout.splitlines()
    assert shown[0] == ".ci/setup" and "PY=.venv/bin/python build" in shown[1]
    assert does in shown[-1] and shown[-1].startswith(sudo or (".venv", "env ORION"))
