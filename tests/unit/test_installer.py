# SPDX-License-Identifier: Apache-2.0
"""install-client in a scratch root, under every shell that this machine has."""

from __future__ import annotations

import grp
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orion_virt import paths
from orion_virt.cli.main import main
from orion_virt.config import load_client

ROOT = Path(__file__).resolve().parents[2]
SHELLS = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installer whose binaries are stand-ins with awkward bytes."""
    lib = tmp_path_factory.mktemp("lib")
    (lib / "guest").mkdir()
    (lib / "guest" / "libcuda.so.1").write_bytes(bytes(range(256)) * 500 + b"no newline at the end")
    (lib / "guest" / "libnvidia-ml.so.1").write_bytes(b"\xff\0nvml" * 999)
    (lib / "guest" / "orion-smi").write_bytes(b"smi")
    (lib / "guest" / "orion-probe").write_bytes(b"probe")
    (lib / "guest" / "orion-demo").write_bytes(b"\n\n\0\n")
    build = runpy.run_path(str(ROOT / "guest-agent" / "installer" / "build.py"))["build"]
    build(lib, lib / "install-client")
    return lib / "install-client"


def install(shell: list[str], installer: Path, root: Path, *args: str, answer: str = "") -> subprocess.CompletedProcess:
    """Runs the installer below `root`."""
    (root / "etc").mkdir(exist_ok=True)
    return subprocess.run([*shell, str(installer), *args], input=answer, capture_output=True, text=True, timeout=180,
                          env={"PATH": os.environ["PATH"], "ORION_ROOT": str(root)}, check=False)


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="install-client needs root")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: s[0])
def test_installs_every_byte(shell: list[str], installer: Path, tmp_path: Path) -> None:
    done = install(shell, installer, tmp_path, answer="y\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Orion client environment will be installed to /usr/lib/orion\n"
                                  "Do you want to continue [n/y] ?\n")
    assert done.stdout.endswith("export LD_LIBRARY_PATH=/usr/lib/orion:$LD_LIBRARY_PATH\n")
    lib = tmp_path / "usr/lib/orion"
    assert (lib / "libcuda.so.1").read_bytes() == (installer.parent / "guest" / "libcuda.so.1").read_bytes()
    assert (lib / "demo/orion-demo").read_bytes() == b"\n\n\0\n"
    assert (lib / "libcuda.so").readlink() == Path("libcuda.so.1")
    assert (lib / "libnvidia-ml.so").read_bytes() == (installer.parent / "guest" / "libnvidia-ml.so.1").read_bytes()
    assert (lib / "orion-smi").read_bytes() == b"smi"
    assert (lib / "orion-probe").read_bytes() == b"probe"
    for name in ("orion-smi", "orion-check"):
        assert (tmp_path / "usr/bin" / name).readlink() == Path("/usr/lib/orion") / name
    assert (tmp_path / "etc/ld.so.conf.d/orion.conf").read_text() == "/usr/lib/orion\n"


@pytest.mark.parametrize("bell", [False, True])
def test_the_rule_gives_the_registers_of_a_doorbell_device_only(tmp_path: Path, bell: bool) -> None:
    """As udev runs it: $$ is a dollar, %p the device's path below /sys."""
    rule = (ROOT / "guest-agent" / "installer" / "60-orion-ivshmem.rules").read_text()
    command = re.search(r'RUN\+="/bin/sh -c \'(.*)\'"', rule)
    assert command
    names = ["resource0", "resource2", "resource2_wc", *(["resource1"] if bell else [])]
    for name in names:
        (tmp_path / name).touch(0o600)
        os.chown(tmp_path / name, 0, 0)
    script = command[1].replace("$$", "$").replace("/sys%p", str(tmp_path)).replace("orion", "nogroup")
    subprocess.run(["/bin/sh", "-c", script], check=True, timeout=10)
    nogroup = grp.getgrnam("nogroup").gr_gid
    given = {name for name in names if (tmp_path / name).stat().st_gid == nogroup and (tmp_path / name).stat().st_mode & 0o777 == 0o660}
    assert given == {"resource2", "resource2_wc", *(["resource0"] if bell else [])}


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_no_answer_installs_nothing(installer: Path, tmp_path: Path, answer: str) -> None:
    done = install(SHELLS[0], installer, tmp_path, answer=answer)
    assert done.returncode == 1
    assert "-q" in done.stderr
    assert not (tmp_path / "usr").exists()


def test_custom_path_does_not_ask_or_register(installer: Path, tmp_path: Path) -> None:
    done = install(SHELLS[0], installer, tmp_path, "-d", "/opt/orion")
    assert done.returncode == 0
    assert "Do you want" not in done.stdout
    assert not (tmp_path / "etc/ld.so.conf.d").exists()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: s[0])
def test_users_join_the_group_once(shell: list[str], installer: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    for user in ("ann", "bob", "ann"):
        assert install(shell, installer, tmp_path, "-q", "--user", user).returncode == 0
    assert (tmp_path / "etc/group").read_text().splitlines()[1].split(":")[3] == "ann,bob"


def test_an_existing_configuration_is_kept(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "etc/orion").mkdir(parents=True)
    (tmp_path / "etc/orion/client.conf").write_text("[controller]\n")
    done = install(SHELLS[0], installer, tmp_path, answer="y\n")
    assert "generated to /etc/orion/client.conf.new" in done.stdout
    assert (tmp_path / "etc/orion/client.conf").read_text() == "[controller]\n"


def test_nccl_is_told_unless_the_owner_did(installer: Path, tmp_path: Path) -> None:
    conf = tmp_path / "etc" / "nccl.conf"
    install(SHELLS[0], installer, tmp_path, "-q")
    assert "\nNCCL_P2P_LEVEL=SYS\n" in conf.read_text()
    for text, said in (("NCCL_DEBUG=WARN\n", True), ("NCCL_P2P_LEVEL=PHB\n", False)):
        conf.write_text(text)
        assert ("add NCCL_P2P_LEVEL=SYS" in install(SHELLS[0], installer, tmp_path, "-q").stderr) == said
        assert conf.read_text() == text
    install(SHELLS[0], installer, tmp_path, "--uninstall")
    assert conf.read_text() == "NCCL_P2P_LEVEL=PHB\n"


def test_uninstall_leaves_only_the_configuration(installer: Path, tmp_path: Path) -> None:
    install(SHELLS[0], installer, tmp_path, "-q")
    done = install(SHELLS[0], installer, tmp_path, "--uninstall")
    assert done.returncode == 0
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"etc/orion/client.conf", "etc/group"}
    again = install(SHELLS[0], installer, tmp_path, "--uninstall")
    assert again.returncode == 1
    assert "nothing is installed" in again.stderr


def test_a_damaged_file_is_noticed(installer: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(installer.read_bytes()[:-700])
    done = install(SHELLS[0], cut, tmp_path, "-q")
    assert done.returncode == 1
    assert "damaged" in done.stderr


@pytest.mark.parametrize(("args", "said"), [(("--nonsense",), "unknown option '--nonsense'"), (("-d",), "needs a path"),
                                            (("-d", "here"), "not absolute")])
def test_bad_arguments_are_named(installer: Path, tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    done = install(SHELLS[0], installer, tmp_path, *args)
    assert done.returncode == 1
    assert said in done.stderr


def test_the_programs_of_a_host_stay(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/orion-check").write_text("#!/usr/bin/python3\n")
    done = install(SHELLS[0], installer, tmp_path, "-q")
    assert done.returncode == 0 and "/usr/bin/orion-check is the host's and stays" in done.stderr
    install(SHELLS[0], installer, tmp_path, "--uninstall")
    assert (tmp_path / "usr/bin/orion-check").read_text() == "#!/usr/bin/python3\n"


def test_an_upgrade_takes_the_place_of_what_an_older_client_had(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/orion-check").write_text("#!/bin/sh\n# as a file\n")
    lib = tmp_path / "usr/lib/orion"
    lib.mkdir(parents=True)
    (lib / "libcuda.so.1").write_bytes(b"old")
    with (lib / "libcuda.so.1").open("rb") as running:  # a program that has it mapped goes on with it
        assert install(SHELLS[0], installer, tmp_path, "-q").returncode == 0
        assert running.read() == b"old"
    assert (tmp_path / "usr/bin/orion-check").readlink() == Path("/usr/lib/orion/orion-check")
    assert (lib / "libcuda.so.1").read_bytes() != b"old"


@pytest.mark.parametrize("args", [("-q",), ("-q", "--uninstall")])
def test_a_packages_files_are_the_package_managers(installer: Path, tmp_path: Path, args: tuple[str, ...]) -> None:
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info / "orion-client.list").touch()
    done = install(SHELLS[0], installer, tmp_path, *args)
    assert done.returncode == 1 and "as the package orion-client; use apt-get install or remove" in done.stderr
    assert install(SHELLS[0], installer, tmp_path, "-q", "-d", "/opt/orion").returncode == 0


# ---- orion-virt build-client ----

def build_client(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["build-client", *arguments])


@pytest.fixture
def built(installer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "lib", lambda: installer.parent)
    return installer


def test_build_client(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "client.sh"
    assert build_client("-o", str(out)).output == f"{out} is written. In the guest, as root: sh client.sh\n"
    assert out.read_bytes() == built.read_bytes() and out.stat().st_mode & 0o777 == 0o755
    assert [p.name for p in tmp_path.iterdir()] == ["client.sh"]


def test_build_client_with_a_controller(built: Path, tmp_path: Path) -> None:
    out, root = tmp_path / "client.sh", tmp_path / "root"
    root.mkdir()
    assert build_client("-o", str(out), "--controller", "10.0.0.1").exit_code == 0
    assert install(SHELLS[0], out, root, "-q").returncode == 0
    assert load_client(root / "etc/orion/client.conf").controller_addr == "10.0.0.1:9123"
    assert (root / "usr/lib/orion/libcuda.so.1").read_bytes() == (built.parent / "guest" / "libcuda.so.1").read_bytes()


@pytest.mark.parametrize(("args", "status", "said"), [
    (("--controller", "$(reboot)"), 2, "Accepted: address:port"), (("--controller", ":"), 2, "Accepted: address:port"),
    (("-o", "/nonexistent/x"), 7, "Name another with -o")])
def test_build_client_errors(built: Path, args: tuple[str, ...], status: int, said: str) -> None:
    done = build_client(*args)
    assert done.exit_code == status and said in done.output


def test_build_client_before_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "lib", lambda: tmp_path)
    done = build_client("-o", str(tmp_path / "x"))
    assert done.exit_code == 3 and "make build" in done.output


def test_a_closed_umask_keeps_nobody_out(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    script = f"umask 077; exec {' '.join(SHELLS[0])} {installer} -q"
    subprocess.run(["sh", "-c", script], env={"PATH": os.environ["PATH"], "ORION_ROOT": str(tmp_path)}, check=True, timeout=180)
    for name, mode in (("usr/lib/orion", 0o755), ("usr/lib/orion/demo", 0o755), ("usr/lib/orion/nccl.conf", 0o644), ("etc/nccl.conf", 0o644),
                       ("etc/orion/client.conf", 0o644), ("etc/ld.so.conf.d/orion.conf", 0o644), ("usr/bin", 0o755)):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode, name
