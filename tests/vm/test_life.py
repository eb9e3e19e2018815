# SPDX-License-Identifier: Apache-2.0
"""A domain's life while it computes: suspended, saved, migrated, reset, crashed, killed, and libvirtd restarted under it.

One guest serves most of these, in the order of the file: each test leaves it running and able to compute.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orion_virt.domain import definition
from vm import life
from vm.conftest import CACHE, SETTINGS
from vm.harness import Guest, Oriond, PrivateHost, PrivateLibvirt
from vm.harness.recorder import Recorder
from vm.stage import Setup, eventually
from vm.test_domain import read_header

pytestmark = [pytest.mark.vm, pytest.mark.root]

NAME = "life"
GOLDEN = Path(__file__).parents[1] / "unit" / "golden" / "hook"
START = ["prepare", "start", "started"]
END = ["stopped", "release"]


@pytest.fixture(scope="module")
def recorder(setup: Setup) -> Iterator[Recorder]:
    made = Recorder(setup.host)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def guest(setup: Setup, recorder: Recorder) -> Iterator[Guest]:
    disk = life.disk(setup.libvirt, f"{NAME}.qcow2")
    made = life.carried(setup.libvirt, setup.host.state, NAME, on_reboot="restart", devices=disk)
    try:
        yield life.up(setup, made)
    finally:
        made.destroy()
    eventually(lambda: setup.regions() == [], "the region's file is left")


@pytest.fixture
def busy(setup: Setup, guest: Guest) -> Iterator[Guest]:
    """The guest, running and with a program that computes."""
    if setup.oriond.domain(NAME)["state"] != "running":
        guest.close()
        guest.start()
        life.ready(setup, guest)
    life.begin(guest)
    yield guest
    with contextlib.suppress(Exception):
        guest.run("killall steady", user="root")


def generation(setup: Setup, guest: Guest) -> int:
    found = read_header(setup, guest)
    return found.generation if found is not None else 0


def channels(setup: Setup) -> list[object]:
    return list(setup.oriond.ask("status")["channels"])


def works_again(setup: Setup, guest: Guest) -> None:
    life.ready(setup, guest)
    life.compute(guest)
    eventually(lambda: channels(setup) == [], "a channel is left")


def test_an_ordinary_user_computes_and_proves_the_device(setup: Setup, guest: Guest) -> None:
    assert setup.oriond.domain(NAME)["proven"] is False
    assert "not yet" in setup.oriond.command("show", NAME).stdout
    life.compute(guest)
    assert setup.oriond.domain(NAME)["proven"] is True
    assert "by a handshake of the guest" in setup.oriond.command("show", NAME).stdout


def test_suspended_for_a_while(setup: Setup, busy: Guest) -> None:
    """A guest that is silent is not dead; its program never learns of it."""
    before, reached = generation(setup, busy), life.rounds(busy)
    setup.libvirt.virsh("suspend", NAME)
    time.sleep(7)  # longer than any timeout of a handshake
    assert len(channels(setup)) == 1
    setup.libvirt.virsh("resume", NAME)
    life.goes_on(busy)
    assert life.rounds(busy) > reached and generation(setup, busy) == before


def test_libvirtd_restarts_while_it_computes(setup: Setup, busy: Guest, recorder: Recorder) -> None:
    before, calls, fds = generation(setup, busy), len(recorder.calls(NAME)), setup.oriond.ask("status")["fds"]
    setup.libvirt.kill()
    life.goes_on(busy)
    setup.libvirt.launch()
    eventually(lambda: setup.oriond.domain(NAME).get("state") == "running", "oriond does not come back to libvirt")
    life.goes_on(busy)
    assert generation(setup, busy) == before and len(channels(setup)) == 1
    assert recorder.operations(NAME)[calls:] == ["reconnect"]
    eventually(lambda: setup.oriond.ask("status")["fds"] <= fds, "something of the former connection is left")


def test_save_and_restore(setup: Setup, busy: Guest, recorder: Recorder) -> None:
    """The saved program is of a life that is over; a new one computes."""
    before, calls = generation(setup, busy), len(recorder.calls(NAME))
    image = setup.host.state / "vm" / "saved.image"
    setup.libvirt.virsh("save", NAME, str(image))
    eventually(lambda: setup.regions() == [] and channels(setup) == [], "a saved domain's worker or region is left")
    setup.libvirt.virsh("restore", str(image))
    image.unlink()
    busy.reconnect()
    life.ends(busy)
    works_again(setup, busy)
    assert generation(setup, busy) != before
    assert recorder.operations(NAME)[calls:] == [*END, "restore", *START]


def test_managed_save(setup: Setup, busy: Guest, recorder: Recorder) -> None:
    before, calls = generation(setup, busy), len(recorder.calls(NAME))
    setup.libvirt.virsh("managedsave", NAME)
    eventually(lambda: setup.regions() == [], "the region is left")
    setup.libvirt.virsh("start", NAME)
    busy.reconnect()
    life.ends(busy)
    works_again(setup, busy)
    assert generation(setup, busy) != before
    assert recorder.operations(NAME)[calls:] == [*END, "restore", *START]


def test_an_internal_snapshot(setup: Setup, busy: Guest, recorder: Recorder) -> None:
    """Making one does not disturb. To revert is a start, by libvirt 9.0 with a new QEMU, of a program whose channel is gone."""
    setup.libvirt.virsh("snapshot-create-as", NAME, "inside")
    life.goes_on(busy)
    before, calls = generation(setup, busy), len(recorder.calls(NAME))
    setup.libvirt.virsh("snapshot-revert", NAME, "inside")
    busy.reconnect()
    life.ends(busy)
    works_again(setup, busy)
    assert generation(setup, busy) != before
    setup.libvirt.virsh("snapshot-delete", NAME, "inside")
    assert recorder.operations(NAME)[calls:] == [*END, *START]


def test_an_external_snapshot_with_memory(setup: Setup, busy: Guest) -> None:
    """libvirt 9.0 reverts to none of these, but what it saved can be restored."""
    image = setup.host.state / "vm" / "snapshot.image"
    overlay = life.qcow2(setup.libvirt, "snapshot.overlay")
    before = setup.libvirt.virsh("dumpxml", "--inactive", NAME).stdout
    setup.libvirt.virsh("snapshot-create-as", NAME, "outside", "--memspec", str(image), "--diskspec",
                        f"vda,snapshot=external,file={overlay}", "--reuse-external")
    life.goes_on(busy)
    setup.libvirt.virsh("snapshot-delete", NAME, "outside", "--metadata")
    setup.libvirt.virsh("destroy", NAME)
    eventually(lambda: setup.regions() == [], "the region is left")
    setup.libvirt.virsh("restore", str(image))
    image.unlink()
    busy.reconnect()
    life.ends(busy)
    works_again(setup, busy)
    setup.libvirt.define(before)


@pytest.mark.parametrize("how", ["echo b >/proc/sysrq-trigger", "echo c >/proc/sysrq-trigger"], ids=["reset", "panic"])
def test_reset_from_inside(setup: Setup, busy: Guest, how: str) -> None:
    """The guest's programs end without a word on their connections; nothing of them stays."""
    before = generation(setup, busy)
    busy.run(f"(sleep 0.2; {how}) >/dev/null 2>&1 &", user="root")
    busy.close()
    eventually(lambda: channels(setup) == [], "the workers of a guest that was reset are left")
    eventually(lambda: generation(setup, busy) not in (0, before), "the region has its old secret")
    busy.wait_ready()
    works_again(setup, busy)


@pytest.mark.parametrize("libvirtd", [True, False], ids=["libvirtd", "no-libvirtd"])
def test_killed_qemu(setup: Setup, busy: Guest, libvirtd: bool) -> None:
    """Noticed by its process, whether libvirt is there or not."""
    if not libvirtd:
        setup.libvirt.kill()
    try:
        pid = setup.host.run(["cat", f"/run/libvirt/qemu/{NAME}.pid"]).stdout.strip()
        setup.host.run(["kill", "-KILL", pid], check=True)
        eventually(lambda: channels(setup) == [] and setup.regions() == [], "a dead domain's worker or region is left")
    finally:
        if not libvirtd:
            setup.libvirt.launch()
    eventually(lambda: setup.oriond.domain(NAME).get("state") == "shut off", "it is taken for alive")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_oriond_restarts_and_takes_it_up(setup: Setup, busy: Guest, number: int) -> None:
    """Its program computes on meanwhile and after; worker, region, device and address are as before, a new program works."""
    before, (worker,) = generation(setup, busy), [channel["worker"] for channel in channels(setup)]
    setup.oriond.stop(number)
    life.goes_on(busy)
    setup.oriond.start()
    eventually(lambda: setup.oriond.domain(NAME).get("proven") is True, "a proof is forgotten")
    life.goes_on(busy)
    assert [channel["worker"] for channel in channels(setup)] == [worker] and generation(setup, busy) == before
    life.compute(busy)
    busy.run("killall -9 steady", user="root")
    eventually(lambda: channels(setup) == [], "a killed program's worker is left")
    life.begin(busy)
    setup.oriond.stop(number)
    setup.libvirt.virsh("destroy", NAME)
    setup.oriond.start()
    eventually(lambda: channels(setup) == [] and setup.regions() == [], "worker or region of a domain that ended meanwhile is left")


@pytest.fixture(scope="module")
def elsewhere(setup: Setup) -> Iterator[Setup]:
    """Another host with a libvirtd and an oriond of its own: libvirt knows hosts by name and UUID."""
    host = PrivateHost(shm_mib=512, cache=CACHE)
    host.start()
    try:
        host.run(["hostname", "elsewhere"], check=True)
        libvirt = PrivateLibvirt(host, host_uuid="0b6c1a2e-7d54-4f0a-9a53-3f3d1c7b5e10")
        libvirt.start()
        oriond = Oriond(host, SETTINGS)
        oriond.start()
        yield Setup(host, libvirt, oriond)
    finally:
        host.stop()


def migrate(source: Setup, target: Setup, name: str, *flags: str) -> None:
    """Over a unix socket. What QEMU makes on its host (log, command port) is the target's there. The guest rests meanwhile:
    after live ones under load the kernel of an emulated guest has been seen to jump into data; at rest 15 of 15 went well."""
    xml = source.libvirt.virsh("dumpxml", "--migratable", name).stdout
    for kind in ("log", "sock"):
        xml = xml.replace(f"{source.host.state}/vm/{name}.{kind}", f"{target.host.state}/vm/{name}.{kind}")
    path = source.host.state / "vm" / "target.xml"
    path.write_text(xml)
    source.libvirt.virsh("migrate", name, "--desturi", f"qemu+unix:///system?socket={target.libvirt.socket}",
                         "--migrateuri", f"unix://{target.host.state}/vm/migrate.sock", "--xml", str(path), *flags)


def test_migration(setup: Setup, elsewhere: Setup, busy: Guest, recorder: Recorder) -> None:
    """The region moves empty of meaning: here it is gone, there it is new, and what waited for an answer gets error 46."""
    there, calls = Recorder(elsewhere.host), len(recorder.calls(NAME))
    migrate(setup, elsewhere, NAME, "--unsafe")  # its disk is on no storage that libvirt knows to be shared
    eventually(lambda: channels(setup) == [] and setup.regions() == [], "worker or region is left at the source")
    moved = life.carried(elsewhere.libvirt, elsewhere.host.state, NAME, domain_uuid=busy.uuid)
    try:
        moved.reconnect()
        life.ends(moved)
        works_again(elsewhere, moved)
        assert elsewhere.oriond.domain(NAME)["proven"] is True
        assert recorder.operations(NAME)[calls:] == END
        assert there.operations(NAME) == ["migrate", *START]
    finally:
        moved.destroy()
    eventually(lambda: elsewhere.regions() == [], "the region is left at the target")
    assert setup.oriond.domain(NAME)["device"] == "defined"


def shape(text: str) -> dict[str, object]:
    """What of a domain is known by then."""
    domain = definition.parse(text)
    return {"id": domain.get("id") is not None,
            "aliases": domain.find("devices/interface/alias") is not None,
            "tap": domain.find("devices/interface/target") is not None,
            "region": [e.get("name") for e in domain.iterfind("devices/shmem")] == [f"orion-{domain.findtext('uuid')}"]}


def test_what_libvirt_told_the_hook(guest: Guest, recorder: Recorder) -> None:
    """Every call carries the domain on stdin, nothing of an environment, and the directory /."""
    for call in recorder.calls(NAME):
        assert call.argv[0] == NAME and call.argv[3:] == ("-",), call.argv
        assert call.argv[2] == ("end" if call.argv[1] in END else "begin")
        assert definition.parse(call.stdin).findtext("uuid") == guest.uuid
        assert shape(call.stdin) == shape((GOLDEN / f"{call.argv[1]}.xml").read_text()), call.argv
        assert call.cwd == "/" and set(call.environ) <= {"LC_ALL", "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LC_CTYPE"}
