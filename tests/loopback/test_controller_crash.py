# SPDX-License-Identifier: Apache-2.0
"""A controller that is killed at any named point, or restarted, loses no allocation and doubles none."""

from __future__ import annotations

import http.client
import signal

import etcds
import pytest
from controllers import MIB, Client, Process, serving
from host import wait_for

from orion_virt.controller import crash
from orion_virt.controller.etcd_store import EtcdStore
from orion_virt.controller.sqlite_store import SqliteStore

HELD = "11111111-1111-1111-1111-111111111111"


class Story:
    """Calls in an order in which every kind of change occurs, and what must be known after each."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.allocations: dict[str, str] = {}
        self.served: set[str] = set()  # what oriond has, which lives on
        self.servers = self.reservations = 0

    def tell(self) -> str:
        """Until the controller dies; the change that it died in."""
        for step in (self.register, self.grant, self.confirm, self.grant, self.reserve, self.wait, self.release, self.unregister):
            try:
                step()
            except (OSError, http.client.HTTPException):
                return step.__name__
        return ""

    def register(self) -> None:
        assert self.client.on()[0] == 200
        self.servers = 1

    def grant(self) -> None:
        uuid = self.client.json("/service?nvidia_vgpu=2&memory=100")["uuid"]
        self.allocations[uuid] = "granted"

    def confirm(self) -> None:
        uuid = next(iter(self.allocations))
        self.client.json(f"/service/confirm/{uuid}", {"client": "127.0.0.1"})
        self.allocations[uuid] = "confirmed"
        self.served.add(uuid)

    def reserve(self) -> None:
        self.client.json(f"/reservations/{HELD}", {"vgpus": 1}, method="PUT")
        self.reservations = 1

    def wait(self) -> None:
        assert self.client("/service?nvidia_vgpu=8&memory=100&wait=1")[0] == 409

    def release(self) -> None:
        uuid = next(iter(self.allocations))
        self.served.discard(uuid)
        assert self.client(f"/service/release/{uuid}", {})[0] == 200
        del self.allocations[uuid]

    def unregister(self) -> None:
        assert self.client("/heartbeat/10.0.0.1?status=off", {})[0] == 200
        self.servers, self.allocations = 0, {}

    def effect(self, change: str) -> None:
        """What was kept, although nobody was told."""
        first = next(iter(self.allocations), "")
        if change == "grant":
            self.allocations["?"] = "granted"
        elif change == "confirm":
            self.allocations[first] = "confirmed"
        elif change == "release":
            del self.allocations[first]
        elif change == "unregister":
            self.servers, self.allocations = 0, {}
        self.servers |= change == "register"
        self.reservations |= change == "reserve"


def invariant(client: Client) -> list[dict]:
    """Slots granted and slots free are all slots, none is granted twice, no id is there twice; the allocations."""
    devices, found = client.json("/devices"), client.json("/allocations")["allocations"]
    slots = [(a["server"], v["card"], v["slot"]) for a in found for v in a["vgpus"]]
    assert len(slots) + devices["free"] == devices["total"], (devices, found)
    assert len(slots) == len(set(slots)) and len({a["uuid"] for a in found}) == len(found)
    return found


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with etcds.running(tmp_path_factory.mktemp("etcd")) as made:
        yield made


@pytest.fixture(params=["sqlite", "etcd"])
def make_store(request, tmp_path):
    """Of this test; controllers below `tmp_path` are configured for the same."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "state" / "controller.db")
    url, prefix = request.getfixturevalue("etcd").url, f"/{request.node.name}/"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "controller.conf").write_text(f"[store]\nkind = etcd\netcd = {url}\netcd_prefix = {prefix}\n")
    return lambda: EtcdStore([url], prefix)


def nobody_waits(client: Client, story: Story) -> bool:
    """The dead controller's place in the queue goes; the server, which lives, beats meanwhile."""
    if story.servers:
        assert client("/heartbeat/10.0.0.1?status=continue", {"boot": "b1"})[0] == 200
    return client.json("/devices")["waiting"] == 0


@pytest.mark.parametrize("point", crash.POINTS)
def test_killed_at(tmp_path, make_store, point):
    process = Process(tmp_path, ORION_CRASH=point)
    story = Story(process.client())
    died_in = story.tell()
    assert process.ended() == -signal.SIGKILL, f"{point} was never passed:\n{process.log}"
    change, stage = point.split(".")
    assert died_in == change
    if stage == "kept":
        story.effect(change)
    with serving(make_store) as port:
        client = Client(port)
        found = invariant(client)
        known = {a["uuid"]: a["state"] for a in found}
        assert sorted(known.values()) == sorted(story.allocations.values())
        assert set(story.allocations) - {"?"} <= set(known)
        assert len(client.json("/devices")["servers"]) == story.servers
        assert len(client.json("/reservations")["reservations"]) == story.reservations
        assert wait_for(lambda: nobody_waits(client, story), 60)
        goes_on(client, story)


def goes_on(client: Client, story: Story) -> None:
    """oriond registers again with what it serves: grants that nobody has shown stay, what it did not hear of ends."""
    live = [{"uuid": u, "vgpus": [{"card": 0, "slot": i, "memory_bytes": 100 * MIB, "booked_bytes": 100 * MIB} for i in (0, 1)]}
            for u in story.served]
    assert client.on(allocations=live)[0] == 200
    found = invariant(client)
    assert [a["uuid"] for a in found if a["state"] == "confirmed"] == [a["uuid"] for a in live]
    while client("/service?nvidia_vgpu=1&memory=100&wait=0")[0] == 200:
        invariant(client)
    assert client.json("/devices")["free"] == (1 if story.reservations else 0)
    invariant(client)


def test_a_restart_keeps_everything(tmp_path):
    first = Process(tmp_path)
    story = Story(first.client())
    for step in (story.register, story.grant, story.confirm, story.grant, story.reserve):
        step()
    before = (story.client.json("/allocations"), story.client.json("/devices"), story.client.json("/reservations"))
    first.process.terminate()
    assert first.ended() == 0, first.log
    second = Process(tmp_path)
    client = second.client()
    assert (client.json("/allocations"), client.json("/devices"), client.json("/reservations")) == before
    assert client("/heartbeat/10.0.0.1?status=continue", {"boot": "b1"})[0] == 200
    second.kill()


def test_two_on_one_file_is_one_clear_error(tmp_path):
    first = Process(tmp_path)
    first.client()
    second = Process(tmp_path)
    assert second.ended() == 4
    assert "another orion-controller uses" in second.log and "Traceback" not in second.log and len(second.log.splitlines()) == 1
    first.kill()


def test_a_broken_file_is_one_clear_error(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "controller.db").write_bytes(b"no database" * 1000)
    process = Process(tmp_path)
    assert process.ended() == 6
    assert "controller.db cannot be used" in process.log and "can be moved away" in process.log and "Traceback" not in process.log
