# SPDX-License-Identifier: Apache-2.0
"""`orion-virt install DOMAIN` through QEMU's own guest agent in a real guest."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.conftest import CACHE
from vm.harness import Guest, GuestConfig, Share
from vm.harness.root import guest_root
from vm.stage import Setup, eventually
from vm.test_compute import DEMO, must

pytestmark = [pytest.mark.vm, pytest.mark.root]

CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
START = """
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat "$name")" != org.qemu.guest_agent.0 ] || port=/dev/$(basename "$(dirname "$name")")
done
mkdir -p /run/qga
LD_LIBRARY_PATH=/agent /agent/qemu-ga --daemonize -m virtio-serial -p "$port" -t /run/qga -f /run/qga/pid -l /run/qga/log $OPTIONS
"""


@pytest.fixture(scope="module")
def agent(setup: Setup) -> Path:
    """qemu-ga of this machine with its libraries: the guest's root is of the same release."""
    program = shutil.which("qemu-ga", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("qemu-ga is not installed: apt-get install qemu-guest-agent")
    directory = setup.host.state / "agent"
    directory.mkdir()
    shutil.copy(program, directory)
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"=> (/\S+)", linked):
        if not re.search(r"/(libc|libm|ld-linux\S*)\.so", library):
            shutil.copy(library, directory)
    return directory


@pytest.fixture(scope="module")
def guest(setup: Setup, agent: Path) -> Iterator[Guest]:
    config = GuestConfig("agented", root=guest_root(CACHE), memory_mib=768, shares=(Share(agent, "/agent"),), devices=CHANNEL)
    made = Guest(setup.libvirt, config, CACHE)
    try:
        made.define()
        eventually(lambda: setup.oriond.domain("agented").get("device") == "defined", "no device")
        made.start()
        eventually(lambda: bool(setup.oriond.domain("agented").get("server_addrs")), "no header")
        yield made
    finally:
        made.destroy()


PING = ("qemu-agent-command", "agented", '{"execute":"guest-ping"}')


def start_agent(setup: Setup, guest: Guest, options: str = "") -> None:
    must(guest.run(f"OPTIONS='{options}'{START}", user="root"))
    # libvirt hears from QEMU that it is there, and only then asks it
    eventually(lambda: setup.libvirt.virsh(*PING, check=False).returncode == 0, "the agent does not answer", 60)


def stop_agent(setup: Setup, guest: Guest) -> None:
    must(guest.run("kill $(cat /run/qga/pid); while [ -e /run/qga/pid ]; do sleep 0.1; done", user="root"))
    eventually(lambda: "state='disconnected'" in setup.libvirt.virsh("dumpxml", "agented").stdout, "libvirt sees an agent", 60)


def test_no_channel(setup: Setup, agent: Path) -> None:
    made = Guest(setup.libvirt, GuestConfig("channelless", memory_mib=256), CACHE)
    try:
        made.define()
        stopped = setup.oriond.command("install", "channelless")
        assert stopped.returncode == 4 and "does not run" in stopped.stderr and "virsh start channelless" in stopped.stderr
        made.start()
        done = setup.oriond.command("install", "channelless")
        assert done.returncode == 4 and "has no channel for a guest agent" in done.stderr and "org.qemu.guest_agent.0" in done.stderr
    finally:
        made.destroy()
    assert setup.oriond.command("install", "no-such-vm").returncode == 3


def test_no_agent_and_a_forbidding_one(setup: Setup, guest: Guest) -> None:
    done = setup.oriond.command("install", "agented")
    assert done.returncode == 6 and "does not answer" in done.stderr and "apt-get install qemu-guest-agent" in done.stderr
    start_agent(setup, guest, "-b guest-exec")
    done = setup.oriond.command("install", "agented")
    assert done.returncode == 7 and "forbids what is needed: guest-exec" in done.stderr, done.stderr
    stop_agent(setup, guest)
    assert guest.run("ls /usr/lib/orion").status != 0


def test_install_use_and_remove(setup: Setup, guest: Guest) -> None:
    start_agent(setup, guest)
    done = setup.oriond.command("install", "agented", "--user", "guest")
    assert done.returncode == 0, done.stderr
    assert "Orion vGPU client environment has been installed in agented\n" in done.stdout
    assert f"{'Access to the device':<40} [Yes]\n" in done.stdout and " vGPU are free now." in done.stdout
    assert "PASSED" in must(guest.run(f"{DEMO} /usr/lib/orion/demo/kernels.ptx 32"))
    assert must(guest.run("ls /tmp", user="root")) == ""
    wrong = setup.oriond.command("install", "agented", "--user", "nobody-at-all")
    assert wrong.returncode == 1 and "cannot add nobody-at-all to the group orion" in wrong.stderr
    again = setup.oriond.command("install", "agented")
    assert again.returncode == 0, again.stderr
    removed = setup.oriond.command("install", "agented", "--uninstall")
    assert removed.returncode == 0 and "has been removed from agented" in removed.stdout
    assert guest.run("ls /usr/lib/orion").status != 0
