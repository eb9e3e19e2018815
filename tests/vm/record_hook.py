# SPDX-License-Identifier: Apache-2.0
"""Records tests/unit/golden/hook anew from a live libvirt: `PYTHONPATH=.:tests python3 tests/vm/record_hook.py`, as root.

libvirt 9.0 calls no hook for `attach` (virsh qemu-attach), although it has the name: that fixture is `reconnect`'s.
"""

from __future__ import annotations

from pathlib import Path

from vm.conftest import CACHE, SETTINGS
from vm.harness import Guest, GuestConfig, Oriond, PrivateHost, PrivateLibvirt
from vm.harness.recorder import Call, Recorder, write_fixtures
from vm.stage import Setup, eventually
from vm.test_life import migrate

TARGET = Path(__file__).parents[1] / "unit" / "golden" / "hook"
NAME = "recorded"


def host(name: str, uuid: str) -> Setup:
    made = PrivateHost(shm_mib=512, cache=CACHE)
    made.start()
    made.run(["hostname", name], check=True)
    libvirt = PrivateLibvirt(made, host_uuid=uuid)
    libvirt.start()
    oriond = Oriond(made, SETTINGS)
    oriond.start()
    return Setup(made, libvirt, oriond)


def record(here: Setup, there: Setup) -> list[Call]:
    """Every operation that libvirt calls a hook for."""
    recorders = Recorder(here.host), Recorder(there.host)
    guest = Guest(here.libvirt, GuestConfig(NAME, domain_uuid="6d4c1f0a-58c3-4e0b-9a51-7c2f6a0d9e33",
                                            metadata="<orion:vgpu xmlns:orion='https://orion-virt/domain/1' region='128'/>"), CACHE)
    guest.define()
    eventually(lambda: here.oriond.domain(NAME).get("device") == "defined", "no device")
    guest.start()
    guest.close()
    image = str(here.host.state / "vm" / "image")
    here.libvirt.virsh("save", NAME, image)
    here.libvirt.virsh("restore", image)
    here.libvirt.kill()
    here.libvirt.launch()
    eventually(lambda: "reconnect" in recorders[0].operations(NAME), "no reconnect")
    migrate(here, there, NAME)
    there.libvirt.virsh("destroy", NAME)
    return [call for recorder in recorders for call in recorder.calls(NAME)]


def main() -> None:
    here = there = None
    try:
        here = host("here", "5f1d7c1a-2a0e-4c55-8d8a-0e6a3b5c9d21")
        there = host("there", "0b6c1a2e-7d54-4f0a-9a53-3f3d1c7b5e10")
        calls = record(here, there)
        replaced = {str(here.host.state): "/srv/here", str(there.host.state): "/srv/there", str(CACHE): "/srv/cache"}
        write_fixtures(calls, TARGET, replaced)
    finally:
        for setup in (here, there):
            if setup is not None:
                setup.host.stop()
    for suffix in ("args", "xml"):
        text = (TARGET / f"reconnect.{suffix}").read_text()
        (TARGET / f"attach.{suffix}").write_text(text.replace(" reconnect ", " attach "))


if __name__ == "__main__":
    main()
