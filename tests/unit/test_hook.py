# SPDX-License-Identifier: Apache-2.0
"""The qemu hook, as functions and as libvirt runs it."""

from __future__ import annotations

import grp
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from orion_virt import layout, paths
from orion_virt.domain import metadata, shmem
from orion_virt.hook import backing, domain_xml, doorbell, qemu
from orion_virt.region import doorbell as region_doorbell

REPO = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden" / "domain"
SCRIPT = REPO / "hooks" / "qemu.d" / "50-orion-virt"
UUID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
GROUP = grp.getgrgid(os.getegid()).gr_name

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the hook runs as root and gives files to root")


def xml(region: str = f"orion-{UUID}", size: str = "<size unit='M'>16</size>", vgpu: str = "") -> bytes:
    return f"""<domain type='qemu' id='3'><name>vm1</name><uuid>{UUID}</uuid>
      <metadata><orion:vgpu xmlns:orion='https://orion-virt/domain/1' {vgpu}/></metadata>
      <devices><shmem name='{region}' role='master'><model type='ivshmem-plain'/>{size}</shmem>
      <shmem name='looking-glass'><model type='ivshmem-plain'/></shmem></devices></domain>""".encode()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "shm").mkdir()
    return {"ORION_SHM": str(tmp_path / "shm"), "ORION_RUN": str(tmp_path), "ORION_QEMU_GROUP": GROUP}


def region(settings: dict[str, str]) -> Path:
    return Path(settings["ORION_SHM"]) / f"orion-{UUID}"


def call(op: str, settings: dict[str, str], document: bytes | None = None) -> int:
    return qemu.main(["vm1", op, "begin", "-"], xml() if document is None else document, settings)


def test_constants_agree_with_the_rest() -> None:
    """The hook cannot import the rest (lxml, ctypes), so it repeats four facts."""
    assert domain_xml.METADATA_URI == metadata.URI
    assert domain_xml.DEFAULT_SHMEM_BYTES == shmem.DEFAULT_BYTES
    assert backing.FIRST_BYTES == 2 * layout.EXTENT_BYTES
    assert domain_xml.parse(xml()).region == shmem.region_name(UUID)


@needs_root
def test_prepare_makes_a_fresh_file(settings: dict[str, str]) -> None:
    old_mask = os.umask(0o077)
    try:
        assert call("prepare", settings) == 0
    finally:
        os.umask(old_mask)
    info = region(settings).stat()
    assert (info.st_size, stat.S_IMODE(info.st_mode), info.st_uid) == (16 << 20, 0o660, 0)
    assert info.st_gid == grp.getgrnam(GROUP).gr_gid
    assert info.st_blocks * 512 >= backing.FIRST_BYTES
    assert region(settings).read_bytes().count(0) == 16 << 20
    assert os.listdir(settings["ORION_SHM"]) == [f"orion-{UUID}"]


@needs_root
def test_prepare_replaces_what_it_finds_and_truncates_nothing(settings: dict[str, str]) -> None:
    region(settings).write_bytes(b"of an earlier run")
    with region(settings).open("rb") as held:
        assert call("prepare", settings) == 0
        assert held.read() == b"of an earlier run"
    assert region(settings).stat().st_size == 16 << 20


@needs_root
@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "hardlink"])
def test_prepare_does_not_follow_planted_files(settings: dict[str, str], tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    if kind == "fifo":
        os.mkfifo(region(settings))
    elif kind == "hardlink":
        region(settings).hardlink_to(victim)
    else:
        region(settings).symlink_to(victim if kind == "symlink" else tmp_path / "nothing")
    assert call("prepare", settings) == 0
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()
    assert stat.S_ISREG(region(settings).lstat().st_mode)
    assert region(settings).stat().st_nlink == 1


@needs_root
def test_prepare_refuses_a_planted_directory(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    region(settings).mkdir()
    assert call("prepare", settings) == 1
    said = capsys.readouterr()
    assert f"rm -r {region(settings)}" in said.err and "vm1" in said.err
    assert said.out == ""


def test_prepare_refuses_a_clone(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("prepare", settings, xml(region=f"orion-{OTHER}")) == 1
    assert "of another domain" in capsys.readouterr().err
    assert os.listdir(settings["ORION_SHM"]) == []


def test_prepare_refuses_what_does_not_fit(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("prepare", settings, xml(size="<size unit='T'>1024</size>")) == 1
    assert "--size" in capsys.readouterr().err
    assert os.listdir(settings["ORION_SHM"]) == []


def test_prepare_refuses_an_unknown_group(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("prepare", settings | {"ORION_QEMU_GROUP": "no-such-group"}) == 1
    assert "ORION_QEMU_GROUP" in capsys.readouterr().err


@needs_root
def test_full_tmpfs_is_a_refusal(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert call("prepare", settings) == 1
    assert "is full" in capsys.readouterr().err
    assert os.listdir(settings["ORION_SHM"]) == []


@needs_root
@pytest.mark.parametrize(("vgpu", "answer", "status"), [
    ("required='yes'", None, 1), ("required='yes'", b'{"ok": true, "pid": 1}\n', 0), ("required='no'", None, 0),
    ("required='yes' enabled='no'", None, 0), ("required='maybe'", None, 0)])
def test_required(settings: dict[str, str], vgpu: str, answer: bytes | None, status: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        if answer:
            server.bind(os.path.join(settings["ORION_RUN"], "control.sock"))
            server.listen()
            import threading

            def serve() -> None:
                peer, _ = server.accept()
                with peer:
                    peer.recv(100)
                    peer.sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
        before = time.monotonic()
        assert call("prepare", settings, xml(vgpu=vgpu)) == status
        assert time.monotonic() - before < 1


@needs_root
def test_required_and_silent_daemon(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(os.path.join(settings["ORION_RUN"], "control.sock"))
        server.listen()
        assert call("prepare", settings, xml(vgpu="required='yes'")) == 1
    assert "systemctl start oriond" in capsys.readouterr().err


def bell_xml(settings: dict[str, str], region: str = f"orion-{UUID}", uuid: str = UUID, path: str = "") -> bytes:
    path = path or f"{settings['ORION_RUN']}/doorbell/{uuid}-16.sock"
    return f"""<domain type='qemu'><name>vm1</name><uuid>{UUID}</uuid><devices><shmem name='{region}' role='master'>
      <model type='ivshmem-doorbell'/><server path='{path}'/><msi vectors='32' ioeventfd='on'/></shmem></devices></domain>""".encode()


def bell_path(settings: dict[str, str]) -> Path:
    return Path(settings["ORION_RUN"]) / "doorbell" / f"{UUID}-16.sock"


def test_the_doorbells_path_is_the_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_RUN", "/run/orion")
    path = str(paths.doorbell_socket(UUID, 16))
    assert doorbell.size_of(path, f"orion-{UUID}") == 16 << 20 and doorbell.size_of(path, f"orion-{OTHER}") == 0
    assert doorbell.control_of(path) == region_doorbell.control_of(path)


@needs_root
def test_prepare_starts_the_doorbells_server(settings: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has room for 107 bytes
        _with_a_doorbell(settings | {"ORION_RUN": short})


def _with_a_doorbell(settings: dict[str, str]) -> None:
    path = bell_path(settings)
    assert call("prepare", settings, bell_xml(settings)) == 0
    assert region(settings).stat().st_size == 16 << 20
    assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (grp.getgrnam(GROUP).gr_gid, 0o660)
    with socket.socket(socket.AF_UNIX) as as_qemu:
        as_qemu.connect(str(path))
        as_qemu.settimeout(5)
        assert as_qemu.recv(8) == bytes(8)
        assert region_doorbell.check(doorbell.control_of(str(path))) == ""
        assert call("release", settings, bell_xml(settings)) == 0
        assert os.listdir(path.parent) == [] and not region(settings).exists()
    for _ in range(2):  # again, over whatever is left
        assert call("prepare", settings, bell_xml(settings)) == 0
    assert call("release", settings, bell_xml(settings)) == 0


@needs_root
def test_a_doorbell_without_a_server_is_refused_with_the_way_out(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """QEMU would not start either, and say less."""
    monkeypatch.setattr(doorbell, "SERVER", "/nowhere/server.py")
    assert call("prepare", settings, bell_xml(settings)) == 1
    said = capsys.readouterr().err
    assert "vm1" in said and "/nowhere/server.py" in said and "virsh edit vm1" in said and "Traceback" not in said
    (Path(settings["ORION_RUN"]) / "doorbell").rmdir()
    (Path(settings["ORION_RUN"]) / "doorbell").write_text("in the way")
    assert call("prepare", settings, bell_xml(settings)) == 1
    assert "File exists" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/var/lib/libvirt/shmem-x-sock", f"/run/orion/doorbell/{OTHER}-16.sock"])
def test_a_doorbell_with_a_foreign_server_is_refused(settings: dict[str, str], path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("prepare", settings, bell_xml(settings, path=path)) == 1
    assert path in capsys.readouterr().err


def test_release_takes_sockets_of_a_device_that_is_gone(settings: dict[str, str]) -> None:
    """The XML is the live one, and the device may have been detached."""
    directory = Path(settings["ORION_RUN"]) / "doorbell"
    directory.mkdir()
    for uuid in (UUID, OTHER):
        (directory / f"{uuid}-16.sock").touch()
        (directory / f"{uuid}-16.ctl").touch()
    assert call("release", settings) == 0
    assert sorted(os.listdir(directory)) == [f"{OTHER}-16.ctl", f"{OTHER}-16.sock"]


def test_a_clone_with_a_doorbell_is_refused_and_takes_nothing_away(settings: dict[str, str]) -> None:
    others = Path(settings["ORION_RUN"]) / "doorbell" / f"{OTHER}-16.sock"
    others.parent.mkdir()
    others.touch()
    document = bell_xml(settings, f"orion-{OTHER}", OTHER)
    assert call("prepare", settings, document) == 1
    assert call("release", settings, document) == 0
    assert others.exists()


@pytest.mark.parametrize("op", qemu.REPORTED)
def test_others_tell_the_daemon(settings: dict[str, str], op: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(os.path.join(settings["ORION_RUN"], "hook.sock"))
        server.settimeout(1)
        assert call(op, settings) == 0
        assert server.recv(200).decode() == f"{op} {UUID} vm1"


@pytest.mark.parametrize("op", [*qemu.REPORTED, "start", "attach", "invented"])
@pytest.mark.parametrize("document", [None, b"", b"<domain/>", b"\xff\xfe", b"<a><b></a>"])
def test_others_never_fail(settings: dict[str, str], op: str, document: bytes | None) -> None:
    assert call(op, settings, document) == 0
    assert call(op, settings | {"ORION_RUN": "/nowhere"}, document) == 0


def test_prepare_lets_a_domain_start_whose_xml_it_does_not_understand(settings: dict[str, str]) -> None:
    assert call("prepare", settings, b"<domain/>") == 0
    assert qemu.main([], b"", settings) == 0


@needs_root
def test_release_removes_only_our_file(settings: dict[str, str], tmp_path: Path) -> None:
    assert call("prepare", settings) == 0
    other = Path(settings["ORION_SHM"]) / f"orion-{OTHER}"
    other.touch()
    assert call("release", settings) == 0
    assert not region(settings).exists() and other.exists()
    region(settings).symlink_to(tmp_path)
    assert call("release", settings) == 0
    assert region(settings).is_symlink()


def test_golden_live_xml() -> None:
    domain = domain_xml.parse((GOLDEN / "live-q35.xml").read_bytes())
    assert [(s.name, s.size_bytes) for s in domain.shmems] == [(domain.region, 128 << 20)]


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no system python3")
@needs_root
def test_script_as_libvirt_runs_it(settings: dict[str, str], tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    (hooks / "qemu.d").mkdir(parents=True)
    script = shutil.copy(SCRIPT, hooks / "qemu.d")
    lines = [f"{k}={v}" for k, v in {**settings, "ORION_PYTHONPATH": str(REPO)}.items()]
    (hooks / "orion-virt.env").write_text("# comment\n" + "\n".join(lines) + "\n")
    environ = {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "HOME": "/root"}

    def run(op: str, document: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([script, "vm1", op, "begin", "-"], input=document, capture_output=True, env=environ,
                              cwd="/", timeout=10, check=False)

    before = time.monotonic()
    done = run("prepare", xml())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert time.monotonic() - before < 2  # 30 ms on an idle machine; libvirt blocks every client meanwhile
    assert region(settings).stat().st_size == 16 << 20
    assert run("started", xml()).returncode == 0
    assert run("release", xml()).returncode == 0
    assert not region(settings).exists()
    refused = run("prepare", xml(region=f"orion-{OTHER}"))
    assert refused.returncode == 1 and b"virsh edit vm1" in refused.stderr and b"Traceback" not in refused.stderr
    (hooks / "orion-virt.env").unlink()
    assert run("prepare", xml()).returncode == 0, "a hook whose module is gone must not stop a domain"


def test_script_is_small_and_pure() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 30
    assert os.access(SCRIPT, os.X_OK)
    code = ("import sys; sys.path.append(sys.argv[1]); before = set(sys.modules)\n"
            "from orion_virt.hook import qemu\n"
            "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))")
    done = subprocess.run([sys.executable, "-I", "-c", code, str(REPO)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["orion_virt"]
