# SPDX-License-Identifier: Apache-2.0
"""Settings of a real domain reach programs in its running guest, from our command and from virsh alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orion_virt import paths
from orion_virt.domain import metadata
from vm.conftest import CACHE
from vm.harness import Guest, GuestConfig, Share
from vm.stage import Setup, eventually
from vm.test_cuda import PERMIT

pytestmark = [pytest.mark.vm, pytest.mark.root]

WHERE = "/opt/orion"
NAME = "settings"
PROGRAM = """
import ctypes, sys, time
cuda = ctypes.CDLL("/opt/orion/libcuda.so.1")
def must(status):
    if status: sys.exit(f"status {status}")
count, size, context = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_void_p()
must(cuda.cuInit(0))
must(cuda.cuDeviceGetCount(ctypes.byref(count)))
must(cuda.cuDeviceTotalMem_v2(ctypes.byref(size), 0))
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
print("has", count.value, size.value >> 20, flush=True)
time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


@pytest.fixture(scope="module")
def guest(setup: Setup) -> Iterator[Guest]:
    directory = setup.host.state / "settings"
    directory.mkdir()
    if not (paths.lib() / "guest" / "libcuda.so.1").exists() or not Path("/usr/bin/python3").exists():
        pytest.skip("the guest library is not built, or this host (the guest's root) has no /usr/bin/python3")
    for name in ("libcuda.so.1", "libnvidia-ml.so.1", "orion-smi"):
        shutil.copy(paths.lib() / "guest" / name, directory)
    (directory / "program.py").write_text(PROGRAM)
    made = Guest(
        setup.libvirt, GuestConfig(NAME, root=Path("/"), memory_mib=768, shares=(Share(directory, WHERE),)), CACHE
    )
    made.define()
    eventually(lambda: setup.oriond.domain(NAME).get("device") == "defined", "no device")
    made.start()
    assert made.run(PERMIT, user="root").status == 0
    eventually(lambda: bool(setup.oriond.domain(NAME).get("server_addrs")), "no header")
    yield made
    made.destroy()
    eventually(lambda: setup.regions() == [], "the region's file is left")


def program(guest: Guest, variables: str = "") -> tuple[int, str]:
    done = guest.run(f"{variables} python3 {WHERE}/program.py")
    return done.status, done.output


def test_set_takes_effect_in_the_running_guest(setup: Setup, guest: Guest) -> None:
    done = setup.oriond.command("set", NAME, "--vgpus", "2", "--memory", "700")
    assert done.returncode == 0 and "processes that start from now on" in done.stdout, done.stdout + done.stderr
    status, output = program(guest)
    assert status == 0 and "has 2 700" in output, output
    shown = json.loads(guest.run(f"LD_LIBRARY_PATH={WHERE} {WHERE}/orion-smi --json").output)["vgpus"]
    assert [vgpu["total_bytes"] >> 20 for vgpu in shown] == [700, 700]
    status, output = program(guest, "ORION_VGPU=3")
    assert status == 1 and "may have 2 each" in output and "ORION_VGPU=2 or less" in output, output


def test_virsh_has_the_same_effect(setup: Setup, guest: Guest) -> None:
    setup.libvirt.virsh(
        "metadata", NAME, metadata.URI, "--key", metadata.PREFIX, "--set", "<vgpu vgpus='1' memory='300'/>", "--live"
    )
    eventually(lambda: "has 1 300" in program(guest)[1], "the event of virsh metadata has no effect")
    shown = setup.oriond.domain(NAME)
    assert (shown["settings"], shown["next_settings"]) == (
        {"vgpus": "1", "memory": "300"},
        {"vgpus": "2", "memory": "700"},
    )
    status, output = program(guest, "ORION_GMEM=301")
    assert status == 1 and "300 MiB each" in output, output


def test_over_tcp_the_same_ceilings_hold(setup: Setup, guest: Guest) -> None:
    """A guest that avoids its region is known by its NIC."""
    avoid = f"ORION_REGION=/nonexistent ORION_SERVER={setup.libvirt.gateway} ORION_CONTROLLER={setup.libvirt.gateway}"
    status, output = program(guest, f"{avoid} ORION_VGPU=2 ORION_GMEM=100")
    assert status == 1 and "may have 1 each" in output, output
    status, output = program(guest, f"{avoid} ORION_GMEM=100")
    assert status == 0 and "has 1 100" in output, output


def test_the_size_of_the_region_waits_for_the_next_start(setup: Setup, guest: Guest) -> None:
    done = setup.oriond.command("set", NAME, "--region", "64")
    assert "at the next start; the running domain keeps 128 MiB until it is shut down" in done.stdout, (
        done.stdout + done.stderr
    )
    assert "<size unit='M'>64</size>" in setup.libvirt.virsh("dumpxml", "--inactive", NAME).stdout
    done = setup.oriond.command("set", NAME, "--unset", "region", "--unset", "vgpus", "--unset", "memory")
    assert done.returncode == 0 and f"{NAME}: none" in done.stdout, done.stdout + done.stderr
    assert "has 1 " in program(guest, "ORION_GMEM=301")[1]


def doctor(setup: Setup) -> list[dict[str, str]]:
    """What is not in order, with the domain or the host."""
    done = setup.oriond.command("doctor", NAME, "--json")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads(done.stdout)["findings"]
    assert {"device", "firewall", "hook", "region_files"} <= {f["check"] for f in found}, found
    return [f for f in found if f["level"] == "error"]


@pytest.mark.skipif(not shutil.which("nft"), reason="nft is not installed: apt-get install nftables")
def test_doctor_finds_what_is_broken_and_its_fix_works(setup: Setup, guest: Guest) -> None:
    dial = f"python3 -c 'import socket; socket.create_connection((\"{setup.libvirt.gateway}\", 9960), 2)'"
    assert doctor(setup) == [] and guest.run(dial).status == 0
    rules = (
        "table inet guard { chain input { type filter hook input priority 0; policy accept; tcp dport 9960 drop; }; }"
    )
    try:
        setup.host.run(["nft", rules])
        setup.host.run(["chmod", "0666", f"/dev/shm/orion-{guest.uuid}"])
        found = doctor(setup)
        assert [f["check"] for f in found] == ["region_files", "firewall"], found
        assert "TimeoutError" in guest.run(dial).output, "the rule does not stop the guest"
        for finding in found:
            fixed = setup.host.run(["sh", "-c", finding["fix"]])
            assert fixed.returncode == 0, fixed.stderr
        assert doctor(setup) == [] and guest.run(dial).status == 0
    finally:
        setup.host.run(["nft", "delete", "table", "inet", "guard"])


def test_list_top_and_logs_show_a_running_program(setup: Setup, guest: Guest) -> None:
    guest.run(f"python3 {WHERE}/program.py 300 >/tmp/out 2>&1 & echo $! >/tmp/pid")
    eventually(lambda: "has 1" in guest.run("cat /tmp/out").output, "the program does not come up", 120)
    usage = setup.oriond.domain(NAME)["usage"]
    assert (usage["processes"], usage["vgpus"]) == (1, 1) and usage["memory_bytes"] > 0
    top = json.loads(setup.oriond.command("top", "--once", "--json").stdout)
    assert [p["name"] for p in top["processes"]] == [NAME] and top["total"]["processes"] == 1
    assert NAME in setup.oriond.command("list").stdout
    watched = json.loads(setup.oriond.command("web", "--json").stdout)
    ask = f"import urllib.request as u; print(u.urlopen(u.Request('%s', headers={{'Authorization': 'Bearer {watched['token']}'}})).read().decode())"

    def overview() -> dict[str, Any]:
        return dict(json.loads(setup.host.run(["python3", "-c", ask % f"{watched['url']}v1/overview"]).stdout))

    eventually(lambda: [a["domain_name"] for a in overview()["allocations"]] == [NAME], "the page does not show the domain's name", 120)
    assert 'orion_controller_domain_vgpus{domain="' + guest.uuid in setup.host.run(["python3", "-c", ask % watched["metrics"]]).stdout
    for path in ("metrics", "v1/overview"):  # its guest reaches the controller, and is told nothing of that
        dial = f"python3 -c \"import urllib.request as u; u.urlopen('http://{setup.libvirt.gateway}:9123/{path}')\""
        assert "HTTP Error 403" in guest.run(dial).output
    lines = setup.oriond.command("logs", NAME).stdout
    assert f"of domain {guest.uuid}" in lines and f"domain {NAME}: region of 128 MiB ready" in lines
    guest.run("kill $(cat /tmp/pid)")
    eventually(lambda: setup.oriond.domain(NAME)["usage"]["processes"] == 0, "the process is left")
