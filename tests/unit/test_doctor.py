# SPDX-License-Identifier: Apache-2.0
"""Each check of `orion-virt doctor`: content with a good host, and what it says of one that is broken in its way."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lxml import etree

from orion_virt import doctor, paths
from orion_virt.cli import doctor as command
from orion_virt.cli.main import main
from orion_virt.config import ServerConfig
from orion_virt.doctor import files, guests, host
from orion_virt.doctor.facts import Facts, Finding, Machine
from orion_virt.errors import ConfigError, OrionError, Unavailable
from orion_virt.hook import owner

UUID = "11111111-2222-3333-4444-555555555555"
BUILD = "abcdef1-20260101_000000"
HOOK = "#!/usr/bin/python3\n"
GROUPS = "root:x:0:\nkvm:x:{gid}:libvirt-qemu\nlibvirt:x:120:alice\n"


class Fake(Machine):
    """Files below a directory; programs that are a table."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.programs: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.landlock_version = 4

    def run(self, argv: Sequence[str]) -> str | None:
        return self.programs.get(" ".join(argv))

    def landlock(self) -> int:
        return self.landlock_version

    def label(self, name: str) -> str:
        return self.labels.get(name, "")

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path


def domain(**changes: Any) -> dict[str, Any]:
    return {
        "name": "vm1",
        "uuid": UUID,
        "state": "running",
        "device": "live",
        "size_mib": 128,
        "wanted": True,
        "reason": "marked",
        "problems": [],
        "server_addrs": ["192.168.122.1:9960"],
        "controller_addr": "192.168.122.1:9123",
    } | changes


def xml(machine: str = "pc", kind: str = "kvm", os_: str = "", devices: str = "") -> etree._Element:
    return etree.fromstring(
        f"<domain type='{kind}'><os>{os_}<type machine='{machine}'>hvm</type></os><devices>{devices}</devices></domain>"
    )


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    """A host on which all is well."""
    machine = Fake(tmp_path)
    machine.write("/etc/group", GROUPS.format(gid=os.getegid()))
    machine.write("/etc/passwd", "root:x:0:0:::\nlibvirt-qemu:x:64055:1:::\nalice:x:1000:1000:::\n")
    machine.write("/proc/mounts", "tmpfs /dev/shm tmpfs rw,nosuid 0 0\n")
    machine.write(
        "/proc/77/status", f"Name:\tqemu-system-x86\nUid:\t9\t9\t9\t9\nGid:\t9\t9\t9\t9\nGroups:\t9 {os.getegid()}\n"
    )
    machine.write("/proc/cpuinfo", "vendor_id : GenuineIntel\n")
    machine.write(f"/dev/shm/orion-{UUID}", "", 0o660)
    machine.write(host.HOOK, HOOK, 0o755)
    machine.write(host.HOOK_ENV, "ORION_PYTHONPATH=/opt\nORION_QEMU_GROUP=kvm\n")
    machine.write("/opt/orion_virt/hook/qemu.py", "")
    machine.write(host.THP, "always [within_size] never")
    source = machine.write("/source", HOOK)
    status = {
        "pid": 5,
        "build": BUILD,
        "gpus": [1],
        "simulated": True,
        "controller_addr": "c:9123",
        "registered": True,
        "shm_used_mib": 0,
        "shm_budget_mib": 1000,
        "regions": [{"uuid": UUID}],
        "channels": [],
    }
    return Facts(machine, ServerConfig(shm_group_name="kvm"), status, [domain()], {UUID: xml()}, (), source, BUILD)


def levels(found: Sequence[Finding]) -> list[str]:
    return [finding.level for finding in found]


def one(found: Any, level: str, *words: str) -> Finding:
    """The only finding, with its level and words in text or fix."""
    listed = [f for f in found if f.level != "ok"]
    assert levels(listed) == [level], listed
    for word in words:
        assert word in listed[0].text + " | " + listed[0].fix, listed[0]
    return listed[0]


def machine_of(facts: Facts) -> Fake:
    assert isinstance(facts.machine, Fake)
    return facts.machine


def status_with(facts: Facts, **changes: Any) -> Facts:
    assert isinstance(facts.status, dict)
    return replace(facts, status=facts.status | changes)


def test_all_is_well(facts: Facts) -> None:
    if os.geteuid():
        pytest.skip("files of root need root")
    found = list(doctor.examine(facts))
    assert {f.level for _, f in found} == {"ok"}, found


def test_every_check_is_in_the_list_and_tested() -> None:
    """A check that nobody breaks is none."""
    here = Path(__file__).read_text() + Path(__file__).with_name("test_firewall.py").read_text()
    for check in doctor.CHECKS:
        module = check.__module__.rpartition(".")[2]
        assert f"{module}.{check.__name__}(" in here, f"{module}.{check.__name__} has no test"


def test_configuration(facts: Facts) -> None:
    one(
        host.configuration(replace(facts, config=ConfigError("server.conf:3: bad", hint="Accepted: 1"))),
        "error",
        "server.conf:3",
    )
    one(
        host.configuration(replace(facts, config=ServerConfig(warnings=("unknown key x",)))), "warning", "unknown key x"
    )


def test_monitoring(facts: Facts) -> None:
    assert not levels(list(host.monitoring(facts)))
    assert levels(list(host.monitoring(status_with(facts, metrics={"addr": "127.0.0.1:9464", "problem": ""})))) == ["ok"]
    taken = {"addr": "127.0.0.1:9464", "problem": "cannot listen on 127.0.0.1:9464: Address already in use"}
    one(host.monitoring(status_with(facts, metrics=taken)), "warning", "already in use", "systemctl reload oriond")


def test_daemon(facts: Facts) -> None:
    down = replace(facts, status=Unavailable("oriond is not running", hint="Start it"))
    one(host.daemon(down), "error", "not running", "Start it")
    one(
        host.daemon(status_with(facts, build="0000000-20250101_000000")),
        "warning",
        "0000000-2025",
        "systemctl restart oriond",
    )
    assert list(host.controller(down)) == []


def test_controller(facts: Facts) -> None:
    one(host.controller(status_with(facts, registered=False)), "error", "c:9123", "orion-controller")


def test_memory(facts: Facts) -> None:
    def with_channels(*how: str) -> Facts:
        return status_with(facts, simulated=False, channels=[{"driver_memory": one} for one in how])

    assert list(host.memory(with_channels())) == list(host.memory(with_channels("unknown"))) == []
    assert levels(list(host.memory(with_channels("measured", "unknown")))) == ["ok"]
    one(host.memory(with_channels("measured", "estimated")), "warning", "estimated", "nvidia-smi")


def test_libvirt(facts: Facts) -> None:
    one(
        host.libvirt(replace(facts, domains=Unavailable("no connection to libvirt", hint="systemctl status libvirtd"))),
        "error",
        "systemctl status libvirtd",
    )


def test_hook(facts: Facts) -> None:
    machine = machine_of(facts)
    machine.write(host.HOOK_ENV, "ORION_PYTHONPATH=/opt\nORION_QEMU_GROUP=qemu\n")
    one(host.hook(facts), "error", "group qemu", "orion-virt hook install")
    machine.write(host.HOOK_ENV, "ORION_PYTHONPATH=/gone\n")
    one(host.hook(facts), "error", "/gone", "hook install")
    machine.path(host.HOOK_ENV).unlink()
    one(host.hook(facts), "error", "missing")
    machine.write(host.HOOK, HOOK + "# changed", 0o755)
    one(host.hook(facts), "warning", "another version")
    machine.write(host.HOOK, HOOK, 0o644)
    one(host.hook(facts), "error", "not executable", "chmod 755")
    machine.path(host.HOOK).unlink()
    one(host.hook(facts), "warning", "not installed", "orion-virt hook install")


def test_shared_memory(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_of(facts)
    room = {"total": 2000 << 20, "free": 1000 << 20}
    monkeypatch.setattr(host, "_statvfs", lambda *_: (room["total"], room["free"]))
    assert levels(list(host.shared_memory(facts))) == ["ok"]
    one(host.shared_memory(status_with(facts, shm_budget_mib=3000)), "error", "shm_budget is 3000 MiB", "remount,size=")
    one(host.shared_memory(status_with(facts, shm_used_mib=900)), "warning", "900 of 1000", "shm_budget")
    room["free"] = 1 << 20
    one(host.shared_memory(facts), "error", "1 MiB left of 2000", "remount")
    machine.write("/proc/mounts", "/dev/sda1 /dev/shm ext4 rw 0 0\n")
    one(host.shared_memory(facts), "error", "a ext4", "mount -t tmpfs")
    machine.write("/proc/mounts", "")
    one(host.shared_memory(facts), "error", "no mount of its own")
    machine.write("/proc/mounts", "tmpfs /mnt tmpfs rw 0 0\n")
    room["free"] = 1000 << 20
    one(host.shared_memory(replace(facts, config=ServerConfig(shm_path_base="/mnt"))), "error", "knows /dev/shm only")


def test_huge_pages(facts: Facts) -> None:
    machine_of(facts).write(host.THP, "always within_size advise [never] deny force")
    one(host.huge_pages(facts), "info", "echo within_size >")
    machine_of(facts).path(host.THP).unlink()
    assert list(host.huge_pages(facts)) == [], "a kernel without them"


def test_confinement(facts: Facts) -> None:
    assert list(host.confinement(facts)) == [], "the simulated GPU's workers are not"
    facts.status["simulated"] = False  # type: ignore[index]
    assert [f.text for f in host.confinement(facts)] == ["workers are confined (Landlock 4, seccomp)"]
    settings = facts.settings
    facts.config = replace(settings, confine=False)
    one(host.confinement(facts), "info", "workers are not confined", "confine = auto")
    facts.config = settings
    machine = machine_of(facts)
    machine.landlock_version = 0
    one(host.confinement(facts), "warning", "this kernel has no Landlock")
    machine.landlock_version = 4
    machine.write("/dev/nvidia0", "", 0o600)
    found = list(host.confinement(facts))
    assert levels(found) == ["ok", "warning"] and "workers keep root" in found[1].text
    machine.path("/dev/nvidia0").chmod(0o666)
    assert levels(list(host.confinement(facts))) == ["ok"]


def test_qemu_group(facts: Facts) -> None:
    machine, gid = machine_of(facts), os.getegid()
    machine.write("/etc/group", f"kvm:x:{gid}:libvirt-qemu,bob\n")
    machine.write("/etc/passwd", f"carol:x:1001:{gid}:::\n")
    one(
        files.qemu_group(facts),
        "warning",
        "bob, carol are members of group kvm",
        "gpasswd -d bob kvm; gpasswd -d carol kvm",
    )
    machine.write("/etc/passwd", "")
    machine.write("/etc/group", f"kvm:x:{gid}:\n")
    machine.write("/proc/77/status", "Name:\tqemu-system-x86\nUid:\t9\t9\t9\t9\nGid:\t9\t9\t9\t9\nGroups:\t9 8\n")
    one(files.qemu_group(facts), "error", "pid 77", "not in group kvm", "usermod -aG kvm")
    machine.write("/etc/group", "")
    one(files.qemu_group(facts), "error", "group kvm", "does not exist", "supgrp")


def test_qemu_group_that_is_found(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the hook finds it for itself; so do we."""
    found = replace(facts, config=ServerConfig())
    monkeypatch.setattr(owner, "USERS", ("no-such-user",))
    monkeypatch.setattr(owner, "QEMU_CONF", "/nowhere/qemu.conf")
    one(files.qemu_group(found), "error", "QEMU's user is unknown", "set shm_group_name")
    assert levels(list(files.region_files(found))) == ["ok"]
    monkeypatch.setattr(owner, "_qemu_conf", lambda: {"group": "+0"})
    machine_of(facts).write("/proc/77/status", "")
    assert [(f.level, f.text) for f in files.qemu_group(found)] == [("ok", "group root of the regions has no members but QEMU")]


@pytest.mark.skipif(os.geteuid() != 0, reason="region files are root's")
def test_region_files(facts: Facts) -> None:
    machine = machine_of(facts)
    path = machine.path(f"/dev/shm/orion-{UUID}")
    path.chmod(0o664)
    one(files.region_files(facts), "error", "has mode 0664", "chmod 0660")
    path.chmod(0o660)
    os.chown(path, 64055, os.getegid())
    one(files.region_files(facts), "error", "belongs to uid 64055")
    os.chown(path, 0, 12345)
    one(files.region_files(facts), "error", "group 12345", "chgrp")
    path.unlink()
    path.symlink_to("/etc/passwd")
    one(files.region_files(facts), "error", "planted", "rm -r")
    path.unlink()
    other = machine.write(f"/dev/shm/orion-{UUID[:-1]}6", "", 0o660)
    one(files.region_files(facts), "warning", other.name, "fuser")
    machine.write("/dev/shm/orion-notes", "").chmod(0o600)
    other.unlink()
    assert levels(list(files.region_files(facts))) == ["ok"], "not ours by its name"


def test_apparmor(facts: Facts) -> None:
    machine = machine_of(facts)
    assert list(files.apparmor(facts)) == []
    machine.write(files.PROFILES, f"libvirtd (enforce)\nlibvirt-{UUID} (enforce)\n")
    machine.write(f"/etc/apparmor.d/libvirt/libvirt-{UUID}.files", f'  "/dev/shm/orion-{UUID[:-1]}6" rw,\n')
    found = one(files.apparmor(facts), "error", f"does not cover /dev/shm/orion-{UUID}", "apparmor_parser -r")
    assert found.domain == "vm1"
    machine.write(f"/etc/apparmor.d/libvirt/libvirt-{UUID}.files", f'  "/dev/shm/orion-{UUID}" rw,\n')
    assert levels(list(files.apparmor(facts))) == ["ok"]


def test_selinux(facts: Facts) -> None:
    machine = machine_of(facts)
    assert list(files.selinux(facts)) == []
    machine.write(files.SELINUX, "1")
    one(files.selinux(facts), "error", "unknown", f"chcon -t svirt_image_t -l s0 /dev/shm/orion-{UUID}")
    machine.labels[f"/dev/shm/orion-{UUID}"] = "system_u:object_r:svirt_tmpfs_t:s0"
    assert levels(list(files.selinux(facts))) == ["ok"]


def test_problems(facts: Facts) -> None:
    found = one(
        guests.problems(replace(facts, domains=[domain(state="shut off", problems=["memory='x' is not valid"])])),
        "warning",
    )
    assert (found.domain, found.text) == ("vm1", "memory='x' is not valid")


@pytest.mark.parametrize(
    ("changes", "machine", "devices", "level", "words"),
    [
        ({"wanted": False, "reason": "its metadata says enabled='no'"}, "pc", "", "info", "enabled='no'"),
        ({"device": "defined"}, "pc-q35-7.2", "", "error", "q35 without a PCI bridge"),
        ({"device": "none"}, "pc-q35-7.2", "", "error", "orion-virt attach vm1, then shut it down"),
        (
            {"device": "defined"},
            "pc-q35-7.2",
            "<controller type='pci' model='pcie-to-pci-bridge'/>",
            "error",
            "plugged in now",
        ),
        (
            {"device": "none"},
            "pc",
            "".join(f"<x><address type='pci' bus='0x00' slot='{i:#04x}'/></x>" for i in range(1, 32)),
            "error",
            "no free PCI slot",
        ),
        (
            {"device": "none"},
            "pc",
            "<x><address type='pci' bus='0x00' slot='0x01'/></x>",
            "error",
            "orion-virt attach vm1",
        ),
    ],
)
def test_device(facts: Facts, changes: dict[str, Any], machine: str, devices: str, level: str, words: str) -> None:
    broken = replace(facts, domains=[domain(**changes)], xml={UUID: xml(machine, devices=devices)})
    one(guests.device(broken), level, words)


@pytest.mark.parametrize(
    "os_", ["<loader secure='yes'/>", "<firmware><feature enabled='yes' name='secure-boot'/></firmware>"]
)
def test_mapping(facts: Facts, os_: str) -> None:
    one(guests.mapping(replace(facts, xml={UUID: xml(os_=os_)})), "warning", "Secure Boot", "virsh edit vm1")
    assert list(guests.mapping(replace(facts, xml={UUID: xml(os_="<loader secure='no'/>")}))) == []
    machine_of(facts).write("/proc/cpuinfo", "vendor_id : AuthenticAMD\n")
    one(guests.mapping(facts), "info", "uncached", "ORION_BAR=wc")
    assert list(guests.mapping(replace(facts, xml={UUID: xml(kind="qemu")}))) == []


def test_processes(facts: Facts) -> None:
    channel = {"comm": "python3", "pid": 9, "domain": UUID, "peer": "10.0.0.5", "transport": "shm", "build": BUILD}
    assert list(guests.processes(status_with(facts, channels=[channel]))) == []
    old = channel | {"build": "1234567-20240101_000000"}
    one(guests.processes(status_with(facts, channels=[old])), "warning", "1234567", "install-client")
    one(
        guests.processes(status_with(facts, channels=[channel | {"transport": "tcp"}])),
        "warning",
        "over TCP although",
        "group orion",
    )


def invoke(facts: Facts, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(command, "gather", lambda: facts)
    return CliRunner().invoke(main, ["doctor", *words])


def test_the_command(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = status_with(
        replace(facts, domains=[domain(problems=["p1"]), domain(name="vm2", uuid="u2", problems=["p2"])]),
        registered=False,
    )
    done = invoke(broken, monkeypatch)
    assert done.exit_code == 1 and "WARNING vm1: p1\n" in done.output and "WARNING vm2: p2\n" in done.output
    assert "ERROR   oriond is not registered" in done.output and "        fix: start orion-controller" in done.output
    one_domain = invoke(broken, monkeypatch, "vm2")
    assert "p1" not in one_domain.output and "p2" in one_domain.output
    assert "p1" in invoke(broken, monkeypatch, UUID).output, "by UUID too"
    found = json.loads(invoke(broken, monkeypatch, "--json").output)
    assert found["healthy"] is False
    assert {"check": "controller", "level": "error", "domain": ""}.items() <= next(
        f for f in found["findings"] if f["level"] == "error"
    ).items()
    assert invoke(broken, monkeypatch, "vm9").exit_code == 3


def test_warnings_alone_are_no_failure(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (guests.problems,))
    assert invoke(replace(facts, domains=[domain(problems=["p"])]), monkeypatch).exit_code == 0


def test_gathered_without_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No oriond, no libvirt: facts are errors, and nothing but findings is printed."""
    for name in ("RUN", "ETC", "LOG", "STATE"):
        monkeypatch.setenv(f"ORION_{name}", str(tmp_path))
    monkeypatch.setenv("ORION_LIBVIRT_URI", "test:///default")
    facts = command.gather()
    assert isinstance(facts.status, OrionError) and isinstance(facts.domains, OrionError) and facts.xml, (
        "the test driver's domain"
    )
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 1 and "Traceback" not in done.output and "systemctl start oriond" in done.output
    (tmp_path / "server.conf").write_text("[server]\nlisten_port = x\n")
    assert "listen_port" in CliRunner().invoke(main, ["doctor"]).output


def test_the_build_is_that_of_the_library() -> None:
    library = paths.lib() / "guest" / "libcuda.so.1"
    if not library.exists():
        pytest.skip("the guest library is not built: make build")
    assert paths.build_id().encode() in library.read_bytes() and paths.build_id()[7:8] == "-"
