# SPDX-License-Identifier: Apache-2.0
"""What an administrator does to a host: no hook, other settings, files left behind, several networks, uninstalling."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from vm import life
from vm.conftest import SETTINGS
from vm.harness import Guest, GuestConfig
from vm.conftest import CACHE
from vm.stage import Setup, eventually
from vm.test_attach import inactive, orion
from vm.test_domain import config_device, live_device, read_header

pytestmark = [pytest.mark.vm, pytest.mark.root]

ORPHAN = "99999999-2222-3333-4444-555555555555"
CONTAINER = "88888888-2222-3333-4444-555555555555"


@pytest.fixture
def no_hook(setup: Setup) -> Iterator[None]:
    orion(setup, "hook", "remove")
    yield
    orion(setup, "hook", "install")


def test_without_the_hook(setup: Setup, no_hook: None) -> None:
    """oriond makes the region ahead, the domain computes in it, and the next start has a new one."""
    guest = life.carried(setup.libvirt, setup.host.state, "hookless")
    name = f"orion-{guest.uuid}"
    try:
        guest.define()
        eventually(lambda: setup.regions() == [name], "no region is made ahead")
        first = (setup.shm / name).stat()
        assert (first.st_uid, first.st_mode & 0o777, first.st_size) == (0, 0o660, 128 << 20)
        guest.start()
        life.ready(setup, guest)
        life.compute(guest)
        setup.libvirt.virsh("destroy", "hookless")
        eventually(lambda: setup.regions() == [name] and (setup.shm / name).stat().st_ino != first.st_ino, "no new one waits")
        _and_a_file_that_qemu_made(setup, guest)
    finally:
        guest.destroy()
    eventually(lambda: setup.regions() == [], f"left: {setup.regions()}")


def _and_a_file_that_qemu_made(setup: Setup, guest: Guest) -> None:
    setup.oriond.stop()
    (setup.shm / f"orion-{guest.uuid}").unlink()
    setup.libvirt.virsh("start", "hookless")
    setup.oriond.start()
    eventually(lambda: any("needs a power cycle" in p for p in setup.oriond.domain("hookless").get("problems", [])), "not said")
    shown = setup.oriond.domain("hookless")
    assert shown["server_addrs"] == [] and read_header(setup, guest) is None, "oriond uses a file that it did not make"
    assert "hook install" in orion(setup, "show", "hookless")


def test_orphans_go_when_oriond_starts(setup: Setup) -> None:
    """A region that a container has stays, also over a kill of oriond."""
    assert setup.oriond.ask("region-create", uuid=CONTAINER, size_mib=2)["ok"]
    setup.oriond.stop(signal.SIGKILL)
    (setup.shm / f"orion-{ORPHAN}").write_bytes(bytes(1 << 20))
    setup.oriond.start()
    eventually(lambda: setup.regions() == [f"orion-{CONTAINER}"], f"found {setup.regions()}")
    assert setup.oriond.ask("region-remove", uuid=CONTAINER)["ok"]


def test_a_domain_that_ended_while_oriond_was_down(setup: Setup, no_hook: None) -> None:
    """Nobody removed its region: the hook was not there either."""
    guest = Guest(setup.libvirt, GuestConfig("ended"), CACHE)
    try:
        guest.define()
        eventually(lambda: len(setup.regions()) == 1, "no region is made ahead")
        setup.libvirt.virsh("start", "ended")
        eventually(lambda: bool(setup.oriond.domain("ended").get("server_addrs")), "no header")
        inode = (setup.shm / f"orion-{guest.uuid}").stat().st_ino
        setup.oriond.stop(signal.SIGKILL)
        setup.libvirt.virsh("destroy", "ended")
        setup.libvirt.virsh("undefine", "ended")
        assert (setup.shm / f"orion-{guest.uuid}").stat().st_ino == inode
        setup.oriond.start()
        eventually(lambda: setup.regions() == [], "the region of a domain that is gone is left")
    finally:
        guest.destroy()


@pytest.fixture
def settings(setup: Setup) -> Iterator[Callable[[str], None]]:
    """Runs oriond with other settings, until the test's end."""

    def apply(text: str) -> None:
        setup.oriond.stop()
        setup.oriond.configure(text)
        setup.oriond.start()

    yield apply
    apply(SETTINGS)


def test_attach_marked_and_exclude(setup: Setup, settings: Callable[[str], None], guests: Callable[..., Guest]) -> None:
    settings(SETTINGS + "[libvirt]\nattach = marked\nexclude = barred\n")
    mark = "<o:vgpu xmlns:o='https://orion-virt/domain/1' region='16'/>"
    made = {name: guests(name, metadata=text) for name, text in (("plain", ""), ("marked", mark), ("barred", mark))}
    for guest in made.values():
        guest.define()
    eventually(lambda: config_device(setup, "marked") is not None, "a marked domain gets no device")
    assert setup.oriond.ask("reconcile")["domains"] == 3
    found = {name: setup.oriond.domain(name) for name in made}
    assert [found[n]["device"] for n in ("plain", "marked", "barred")] == ["none", "defined", "none"]
    assert found["marked"]["size_mib"] == 16
    assert "attach = marked" in found["plain"]["reason"] and "exclude names it" in found["barred"]["reason"]
    assert "exclude names it" in orion(setup, "attach", "barred", status=4)
    setup.libvirt.virsh("metadata", "plain", "https://orion-virt/domain/1", "--key", "orion", "--set", "<vgpu/>", "--config")
    eventually(lambda: config_device(setup, "plain") is not None, "a domain that is marked later gets no device")
    setup.libvirt.virsh("metadata", "plain", "https://orion-virt/domain/1", "--key", "orion", "--remove", "--config")
    eventually(lambda: config_device(setup, "plain") is None, "a domain that is marked no more keeps the device")
    orion(setup, "attach", "plain")  # marks it
    settings(SETTINGS + "[libvirt]\nattach = marked\nexclude = plain, barred\n")
    eventually(lambda: config_device(setup, "plain") is None, "a domain that is excluded later keeps the device")


NETWORK = """<network><name>{name}</name><bridge name='{name}' stp='off' delay='0'/><forward mode='open'/>
<ip address='{prefix}.1' netmask='255.255.255.0'><dhcp><range start='{prefix}.10' end='{prefix}.200'/></dhcp></ip></network>"""


def test_several_guests_with_networks_of_their_own(setup: Setup) -> None:
    """Each reaches oriond at its own gateway, computes at the same time, and the end of one is no other's."""
    networks = {"orionbr1": "10.213.78", "orionbr2": "10.213.79"}
    made = []
    try:
        for network, prefix in networks.items():
            path = setup.host.state / "vm" / f"{network}.xml"
            path.write_text(NETWORK.format(name=network, prefix=prefix))
            setup.libvirt.virsh("net-create", str(path))
            made.append(life.carried(setup.libvirt, setup.host.state, f"on-{network}", networks=(network,)))
            made[-1].define()
            eventually(lambda: life.device(setup, made[-1]) == "defined", "no device")
        for guest in made:
            setup.libvirt.virsh("start", guest.config.name)
        for guest, prefix in zip(made, networks.values()):
            guest.wait_ready(120)
            life.ready(setup, guest)
            assert setup.oriond.domain(guest.config.name)["server_addrs"] == [f"{prefix}.1:9960"]
            life.begin(guest)
        assert len({c["domain"] for c in setup.oriond.ask("status")["channels"]}) == 2
        for guest in made:
            life.goes_on(guest)
        made[0].destroy()
        life.goes_on(made[1])
        eventually(lambda: setup.regions() == [f"orion-{made[1].uuid}"], "the wrong region went")
        assert len(setup.oriond.ask("status")["channels"]) == 1
    finally:
        for guest in made:
            guest.destroy()
        for network in networks:
            setup.libvirt.virsh("net-destroy", network, check=False)


@pytest.mark.parametrize("oriond", [True, False], ids=["with-oriond", "without-oriond"])
def test_uninstall(setup: Setup, oriond: bool) -> None:
    """Definitions are as before, a running guest goes on, and libvirt starts, saves and restores without us."""
    setup.oriond.stop()
    plain = Guest(setup.libvirt, GuestConfig("plain", machine="q35"), CACHE)
    ran = life.carried(setup.libvirt, setup.host.state, "ran")
    plain.define()
    ran.define()
    before = {name: inactive(setup, name) for name in ("plain", "ran")}
    setup.oriond.start()
    try:
        eventually(lambda: bool(config_device(setup, "plain") and config_device(setup, "ran")), "no device")
        ran.start()
        life.ready(setup, ran)
        life.begin(ran)
        if not oriond:
            setup.oriond.stop()
        said = orion(setup, "uninstall")
        assert said.count("definition: restored") == 2 and "running:    unplugged" in said and "The hook is removed" in said
        assert ("oriond is stopped" in said) is oriond
        if oriond:
            setup.oriond.wait()
        assert {name: inactive(setup, name) for name in before} == before
        assert live_device(setup, "ran") is None and setup.regions() == []
        life.ends(ran)
        image = str(setup.host.state / "vm" / "gone.image")
        for step in (("save", "ran", image), ("restore", image), ("destroy", "ran"), ("start", "plain")):
            setup.libvirt.virsh(*step)
        assert setup.regions() == []
    finally:
        plain.destroy()
        ran.destroy()
        orion(setup, "hook", "install")
        setup.oriond.stop()
        setup.oriond.start()
