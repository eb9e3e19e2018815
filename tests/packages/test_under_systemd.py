# SPDX-License-Identifier: Apache-2.0
"""The host's package under a real systemd: hardened units, reload, upgrade and removal while a guest's program runs."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packages.roots import Root, booted

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("systemctl"), reason="systemd is not installed")]

CONF = "[server]\nbind_addr = 127.0.0.1\ndriver = simulated\n[libvirt]\nattach = off\n"
REGION = "11111111-2222-3333-4444-555555555555"
HOLD = """
import ctypes, time
cu = ctypes.CDLL("/opt/client/libcuda.so.1")
def check(result): assert result == 0, result
context, device = ctypes.c_void_p(), ctypes.c_int()
check(cu.cuInit(0)); check(cu.cuDeviceGet(ctypes.byref(device), 0))
check(cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)); check(cu.cuCtxSetCurrent(context))
open("/tmp/ready", "w").close()
while True: check(cu.cuCtxSynchronize()); time.sleep(0.02)
"""


@pytest.fixture
def machine(tmp_path: Path, packages: dict[str, Path]) -> Iterator[Root]:
    """With the package installed, its services started by that, and a client."""
    with booted(tmp_path / "mount") as root:
        for version in ("1.0", "1.1"):
            root.put(packages[f"orion-virt {version} deb"], f"/var/{version}.deb")
        (root.path / "etc/orion").mkdir(exist_ok=True)
        (root.path / "etc/orion/server.conf").write_text(CONF)
        done = root.run("dpkg", "-i", "/var/1.0.deb")
        assert done.returncode == 0, done.stdout + done.stderr + journal(root)
        root.must("sh", "-c", f"orion-virt build-client -o /var/c && sh /var/c -q -d /opt/client && orion-virt region create --uuid {REGION} --size 64")
        yield root


def journal(root: Root) -> str:
    return root.run("journalctl", "--no-pager", "-o", "cat", "-u", "oriond", "-u", "orion-controller").stdout


def value(root: Root, name: str, unit: str = "oriond") -> str:
    return root.must("systemctl", "show", "-P", name, unit).strip()


def wait(what: Callable[[], bool], root: Root) -> None:
    for _ in range(200):
        if what():
            return
        time.sleep(0.1)
    pytest.fail(journal(root))


def start_program(root: Root) -> None:
    (root.path / "opt/client/hold.py").write_text(HOLD)
    root.must("systemd-run", "--unit=program", f"--setenv=ORION_REGION=/dev/shm/orion-{REGION}", "/usr/bin/python3", "/opt/client/hold.py")
    wait(lambda: (root.path / "tmp/ready").exists(), root)


def worker_of(root: Root) -> str:
    (worker,) = root.must("sh", "-c", "for p in $(cat /sys/fs/cgroup/system.slice/oriond.service/cgroup.procs); do "
                          "grep -qs 'libexecutor' /proc/$p/maps && grep -qs orion-11111111 /proc/$p/maps && echo $p; done; true").split()
    return worker


def program_runs(root: Root) -> bool:
    return root.run("systemctl", "is-active", "--quiet", "program").returncode == 0


def programs(root: Root) -> int:
    """How many oriond serves."""
    ask = "import socket; s = socket.socket(1); s.connect('/run/orion/control.sock'); s.send(b'{\"cmd\": \"status\"}\\n'); print(s.makefile().readline())"
    return int(json.loads(root.must("python3", "-c", ask))["workers"])


def test_the_units_run_and_compute(machine: Root) -> None:
    assert [value(machine, "ActiveState", unit) for unit in ("oriond", "orion-controller")] == ["active", "active"]
    assert [value(machine, "UnitFileState", unit) for unit in ("oriond", "orion-controller")] == ["enabled", "enabled"]
    said = journal(machine)
    assert re.search(r"^oriond is ready: \d+ simulated GPU", said, re.M) and "<6>" not in said, said
    assert machine.must("journalctl", "-p", "warning", "-o", "cat", "-u", "oriond") in ("", "-- No entries --\n"), said
    env = {"LD_LIBRARY_PATH": "/opt/client", "ORION_REGION": f"/dev/shm/orion-{REGION}"}
    assert "PASSED" in machine.must("/opt/client/demo/orion-demo", "/opt/client/demo/kernels.ptx", "32", **env)
    checked = machine.must("orion-check", "runtime", "server")
    assert "Linux user   : root\nOrion Server is running with command line : /usr/bin/oriond \n" in checked
    assert "Service oriond enabled" in machine.must("orion-check", "install", "all")


def test_a_worker_has_its_layout_and_the_units_limits(machine: Root) -> None:
    start_program(machine)
    worker = worker_of(machine)
    assert int(machine.must("cat", f"/proc/{worker}/personality").strip(), 16) & 0x0200000
    assert value(machine, "LimitMEMLOCK") == "infinity"  # a container's own limit may be below it
    status = machine.must("cat", f"/proc/{worker}/status")
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M) and re.search(r"^Seccomp:\t2$", status, re.M)
    logs = machine.must("sh", "-c", "cat /var/log/orion/session/*.log")
    assert "layout is refused" not in logs


def test_workers_are_confined_as_installed(machine: Root) -> None:
    """The unit forbids nothing that confining needs, as it is by default with NVIDIA's driver: a user of its own, no capability, both filters."""
    (machine.path / "etc/orion/server.conf").write_text(CONF.replace("driver", "confine = true\ndriver"))
    machine.must("systemctl", "restart", "oriond")
    start_program(machine)
    worker = worker_of(machine)
    status = dict(line.split(":\t", 1) for line in machine.must("cat", f"/proc/{worker}/status").splitlines())
    uids = set(status["Uid"].split())
    assert len(uids) == 1 and int(uids.pop()) > 0x70000000 and status["Uid"] == status["Gid"]
    assert (status["CapPrm"], status["CapEff"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    assert int(status["Seccomp_filters"]) >= int(machine.must("sh", "-c", "grep Seccomp_filters /proc/" + value(machine, "MainPID")
                                                              + "/status").split()[1]) + 2
    assert "no Landlock" not in journal(machine) and "serves nobody" not in journal(machine)


def test_reload(machine: Root) -> None:
    pid = value(machine, "MainPID")
    (machine.path / "etc/orion/server.conf").write_text(CONF.replace("driver", "vgpu_count = 7\ndriver") + "[server-shm]\nshm_budget = 99\n")
    machine.must("systemctl", "reload", "oriond")
    wait(lambda: "server.conf is reloaded: [server-shm] shm_budget" in journal(machine), machine)
    assert "is needed for [server] vgpu_count" in journal(machine) and value(machine, "MainPID") == pid
    (machine.path / "etc/orion/server.conf").write_text("[server]\nvgpu_count = 0\n")
    assert machine.run("systemctl", "restart", "oriond").returncode != 0
    assert (value(machine, "Result"), value(machine, "ExecMainStatus"), value(machine, "NRestarts")) == ("exit-code", "2", "0")


def test_upgrade_and_removal_while_a_program_runs(machine: Root) -> None:
    start_program(machine)
    pid = value(machine, "MainPID")
    done = machine.run("dpkg", "-i", "/var/1.1.deb")
    assert done.returncode == 0 and "error 46" not in done.stderr, done.stdout + done.stderr
    assert value(machine, "MainPID") not in (pid, "0") and program_runs(machine) and programs(machine) == 1
    machine.must("systemctl", "restart", "oriond")
    assert program_runs(machine) and programs(machine) == 1
    pid = value(machine, "MainPID")
    refused = machine.run("dpkg", "-r", "orion-virt")
    assert refused.returncode != 0 and "1 CUDA programs of guests use oriond. End them first" in refused.stderr.replace(".\n", ". ")
    assert value(machine, "MainPID") == pid and program_runs(machine)
    machine.must("systemctl", "stop", "program")
    machine.must("dpkg", "-i", "/var/1.1.deb")
    assert value(machine, "MainPID") not in (pid, "0") and (machine.path / f"dev/shm/orion-{REGION}").exists()
    machine.must("dpkg", "-r", "orion-virt")
    assert machine.run("systemctl", "cat", "oriond").returncode != 0
    assert "oriond" not in machine.must("ps", "-eo", "args")


def test_a_killed_oriond_comes_back_and_programs_go_on(machine: Root) -> None:
    start_program(machine)
    pid = value(machine, "MainPID")
    machine.must("kill", "-9", pid)
    wait(lambda: value(machine, "MainPID") not in (pid, "0") and value(machine, "ActiveState") == "active", machine)
    assert (machine.path / f"dev/shm/orion-{REGION}").exists() and value(machine, "NRestarts") == "1"
    wait(lambda: machine.run("orion-check", "runtime", "server").returncode == 0, machine)
    assert program_runs(machine) and programs(machine) == 1
    machine.must("systemctl", "stop", "oriond")
    assert program_runs(machine)
    machine.must("systemctl", "start", "oriond")
    assert program_runs(machine) and programs(machine) == 1
    machine.must("systemctl", "kill", "--kill-who=main", "-s", "INT", "oriond")
    wait(lambda: not program_runs(machine), machine)
    wait(lambda: value(machine, "ActiveState") == "inactive", machine)
