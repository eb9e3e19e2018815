# SPDX-License-Identifier: Apache-2.0
"""A machine that boots with systemd as its first process and has the host's package: its services are there by themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from host import ROOT

from packages.roots import opened
from vm.harness import Guest, Share
from vm.stage import Setup

pytestmark = [pytest.mark.vm, pytest.mark.skipif(not Path("/lib/systemd/systemd").exists(), reason="systemd is not installed")]
REGION = "11111111-2222-3333-4444-555555555555"
CONF = "[server]\nbind_addr = 127.0.0.1\ndriver = simulated\n[libvirt]\nattach = off\n"
CLIENT = f"""
orion-virt region create --uuid {REGION} --size 64
LD_LIBRARY_PATH=/opt/client ORION_REGION=/dev/shm/orion-{REGION} /opt/client/demo/orion-demo /opt/client/demo/kernels.ptx 32
"""


def must(guest: Guest, command: str, timeout: float = 180) -> str:
    done = guest.run(f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C; {command}", user="root", timeout=timeout)
    assert done.status == 0, f"{command}: {done.status}\n{done.output}\n{guest.run('/usr/bin/journalctl --no-pager -n 60', user='root').output}"
    return done.output


def test_services_come_up_with_the_machine(setup: Setup, guests: Callable[..., Guest], tmp_path: Path) -> None:
    """This machine's files, which it forgets, with no other service than those of the system and ours."""
    share = setup.host.state / "installed"
    share.mkdir()
    subprocess.run([sys.executable, str(ROOT / "packaging" / "build.py"), str(tmp_path), "--plain"], check=True, timeout=600, stdout=subprocess.DEVNULL)
    with opened(Path("/"), tmp_path / "mount") as root:  # here, since dpkg takes minutes where the processor is emulated
        root.put(next(tmp_path.glob("orion-virt_*.deb")), "/var/host.deb")
        root.must("dpkg", "-i", "/var/host.deb")
        (root.path / "etc/orion/server.conf").write_text(CONF)
        root.must("sh", "-c", "rm /var/host.deb; orion-virt build-client -o /var/client && sh /var/client -q -d /opt/client && rm /var/client")
        root.changes(share / "installed.tar")
    # Without what is mounted below: directories of /proc change under the guest, which then loses what it has mounted on them.
    files = setup.host.state / "files"
    files.mkdir()
    setup.host.run(["sh", "-c", f"mount --bind / {files} && mount -o remount,bind,ro {files}"], check=True)
    guest = guests("host", root=files, shares=(Share(share, "/run/share"),), network=False, memory_mib=2048, vcpus=2)
    guest.define()
    guest.start(timeout=180)
    must(guest, "mount -t tmpfs home /root; rm -rf /etc/systemd/system/*.wants /etc/fstab; tar -C / -xf /run/share/installed.tar", timeout=120)
    guest.boot_systemd(timeout=300)
    must(guest, "until systemctl is-system-running --wait 2>/dev/null | grep -qE 'running|degraded'; do sleep 1; done", timeout=400)
    assert must(guest, "systemctl is-active oriond orion-controller").split() == ["active", "active"]
    assert "PASSED" in must(guest, CLIENT, timeout=300)
    assert "Service oriond enabled" in must(guest, "orion-check install all", timeout=120)
    assert "oriond is ready" in must(guest, "journalctl --no-pager -b -u oriond")
