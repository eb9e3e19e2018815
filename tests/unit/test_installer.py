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
    (lib / "guest" / "orion-demo").write_bytes(b"\n\n\0\n")
    build = runpy.run_path(str(ROOT / "guest-agent" / "installer" / "build.py"))["build"]
    build(lib, lib / "install-client")
    return lib / "install-client"


def install(shell: list[str], installer: Path, root: Path, *args: str, answer: str = "") -> subprocess.CompletedProcess:
    """Runs the installer below `root`."""
    (root / "etc").mkdir(exist_ok=True)
    return subprocess.run([*shell, str(installer), *args], input=answer, capture_output=True, text=True, timeout=60,
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
    assert (tmp_path / "usr/bin/orion-smi").readlink() == Path("/usr/lib/orion/orion-smi")
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
