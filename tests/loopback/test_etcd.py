# SPDX-License-Identifier: Apache-2.0
"""Controllers that share a real etcd: they agree, one may die, and what a dead host had comes back."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import etcds
import pytest
from controllers import ON, Client, Process, serving
from host import free_port, wait_for

from orion_virt.controller import store as stores
from orion_virt.controller.etcd_store import EtcdStore

DEAD_SECONDS = 60  # at most, until what a silent one had is seen to be gone


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with etcds.running(tmp_path_factory.mktemp("etcd")) as made:
        yield made


@pytest.fixture
def prefix(request):
    return f"/{request.node.name}/"


@pytest.fixture
def two(etcd, prefix):
    """Two controllers, by their clients."""
    with serving(lambda: EtcdStore([etcd.url], prefix)) as one, serving(lambda: EtcdStore([etcd.url], prefix), host="there") as other:
        yield Client(one), Client(other)


def on(client, name, **changes):
    """A server that listens for other hosts too."""
    assert client.on(name, addresses=["127.0.0.1", "192.168.122.1", name], **changes)[0] == 200


def configured(home, etcd, prefix):
    (home / "etc").mkdir(parents=True)
    (home / "etc" / "controller.conf").write_text(f"[store]\nkind = etcd\netcd = {etcd.url}\netcd_prefix = {prefix}\n")
    return home


def slots(client):
    """Of all allocations; fails where the invariant does not hold."""
    found, devices = client.json("/allocations")["allocations"], client.json("/devices")
    taken = [(a["server"], v["card"], v["slot"]) for a in found for v in a["vgpus"]]
    assert len(taken) == len(set(taken)) and len(taken) + devices["free"] == devices["total"]
    return taken


def test_both_know_the_same(two):
    one, other = two
    on(one, "10.0.0.1")
    on(other, "10.0.0.2")
    assert one.json("/devices")["total"] == other.json("/devices")["total"] == 16
    uuid = one.json("/service?nvidia_vgpu=3&memory=10")["uuid"]
    assert other.json(f"/service/confirm/{uuid}", {"client": "127.0.0.1"})["state"] == "confirmed"
    assert one.json("/allocations") == other.json("/allocations")
    other.json("/reservations/d", {"vgpus": 2}, "PUT")
    assert one.json("/reservations")["reservations"][0]["vgpus"] == 2
    one.json(f"/service/release/{uuid}", {})
    assert other.json("/allocations") == {"allocations": []}


def test_two_who_grant_at_once_double_nothing(two):
    """24 ask two controllers for 16 slots at the same moment."""
    on(two[0], "10.0.0.1")
    on(two[1], "10.0.0.2")
    start = threading.Barrier(24)

    def ask(number):
        start.wait(30)
        return two[number % 2]("/service?nvidia_vgpu=1&memory=10&wait=0")[0]

    with ThreadPoolExecutor(24) as crowd:
        answers = list(crowd.map(ask, range(24)))
    assert sorted(answers) == [200] * 16 + [409] * 8
    assert len(slots(two[0])) == 16 and two[0].json("/allocations") == two[1].json("/allocations")


def test_who_waits_at_one_gets_what_is_released_at_the_other(two):
    one, other = two
    one.on()
    uuid = one.json("/service?nvidia_vgpu=8&memory=10")["uuid"]
    with ThreadPoolExecutor(1) as waiter:
        asked = waiter.submit(one, "/service?nvidia_vgpu=8&memory=10&wait=60")
        assert wait_for(lambda: other.json("/devices")["waiting"] == 1)
        other.json(f"/service/release/{uuid}", {})
        assert asked.result(60)[0] == 200
    assert len(slots(other)) == 8 and other.json("/devices")["waiting"] == 0


def test_one_controller_is_killed(etcd, prefix, tmp_path):
    """The other goes on with all that both knew; when the first is back, its host is too."""
    first = Process(configured(tmp_path / "a", etcd, prefix))
    second = Process(configured(tmp_path / "b", etcd, prefix))
    one, other = first.client(), second.client()
    on(one, "10.0.0.1")
    on(other, "10.0.0.2")
    kept = one.json("/service?nvidia_vgpu=8&memory=10")["uuid"]
    one.json(f"/service/confirm/{kept}", {"client": "127.0.0.1"})
    first.kill()
    assert [a["uuid"] for a in other.json("/allocations")["allocations"]] == [kept]
    assert other.json("/service?nvidia_vgpu=8&memory=10")["server"] == "10.0.0.2"
    assert len(slots(other)) == 16
    again = Process(tmp_path / "a")
    client = again.client()
    assert client("/heartbeat/10.0.0.1?status=continue", {"boot": "b1"})[0] == 200 and len(slots(client)) == 16
    again.kill()
    second.kill()


def test_what_a_dead_host_had_comes_back(two):
    """Its lease ends with its heartbeat; the other host's does not, and its own return brings what it still serves."""
    one, other = two
    on(one, "10.0.0.1")
    on(other, "10.0.0.2")
    granted = [one.json("/service?nvidia_vgpu=8&memory=10") for _ in range(2)]
    for allocation in granted:
        one.json(f"/service/confirm/{allocation['uuid']}", {"client": "127.0.0.1"})
    dead = next(a for a in granted if a["server"] == "10.0.0.1")

    def is_gone():
        assert other("/heartbeat/10.0.0.2?status=continue", {"boot": "b1"})[0] == 200
        return other.json("/devices")["total"] == 8

    assert wait_for(is_gone, DEAD_SECONDS, 1)
    assert [a["server"] for a in other.json("/allocations")["allocations"]] == ["10.0.0.2"] and len(slots(other)) == 8
    assert one("/heartbeat/10.0.0.1?status=continue", {"boot": "b1"})[0] == 404
    on(one, "10.0.0.1", allocations=[dead])
    assert len(slots(one)) == 16 and one.json("/devices")["free"] == 0


def test_a_place_in_the_queue_ends_with_its_controller(etcd, prefix, tmp_path):
    first = Process(configured(tmp_path / "a", etcd, prefix))
    one = first.client()
    with serving(lambda: EtcdStore([etcd.url], prefix)) as port:
        other = Client(port)
        other.on()
        uuid = other.json("/service?nvidia_vgpu=8&memory=10")["uuid"]
        with ThreadPoolExecutor(1) as waiter:
            asked = waiter.submit(one, "/service?nvidia_vgpu=8&memory=10&wait=600")
            assert wait_for(lambda: other.json("/devices")["waiting"] == 1)
            first.kill()
            assert isinstance(asked.exception(30), OSError)
        other.json(f"/service/release/{uuid}", {})

        def is_gone():
            assert other("/heartbeat/10.0.0.1?status=continue", {"boot": "b1"})[0] == 200
            return other.json("/devices")["waiting"] == 0

        assert wait_for(is_gone, DEAD_SECONDS, 1)
        assert other("/service?nvidia_vgpu=8&memory=10&wait=0")[0] == 200


def test_an_unused_grant_ends(etcd, prefix, monkeypatch):
    monkeypatch.setitem(stores.SECONDS, "grant", 2)
    with serving(lambda: EtcdStore([etcd.url], prefix)) as port:
        client = Client(port)
        client.on()
        uuid = client.json("/service?nvidia_vgpu=8&memory=10")["uuid"]
        assert wait_for(lambda: client.json("/devices")["free"] == 8, DEAD_SECONDS)
        assert client(f"/service/confirm/{uuid}", {})[0] == 404


def test_a_member_that_does_not_answer_is_passed_over(etcd, prefix):
    with serving(lambda: EtcdStore([f"http://127.0.0.1:{free_port()}", etcd.url], prefix)) as port:
        assert Client(port).on()[0] == 200 and Client(port).json("/devices")["total"] == 8


def test_each_grants_from_its_own_host_first(two):
    """Both hosts have a gateway of the same address, as libvirt gives it to all."""
    for client, name in zip(two, ("10.0.0.2", "10.0.0.1")):
        on(client, name)
    assert [c("/service?nvidia_vgpu=6&memory=10")[1].split(",")[1] for c in two] == ["127.0.0.1:9960/0/0"] * 2
    held = {a["server"]: a for a in two[0].json("/allocations")["allocations"]}
    assert sorted(held) == ["10.0.0.1", "10.0.0.2"]
    # only when it has no room; then the other is named by what it is reached under
    assert two[0]("/service?nvidia_vgpu=2&memory=10")[0] == 200
    assert two[0]("/service?nvidia_vgpu=1&memory=10")[1].split(",")[1] == "10.0.0.1:9960/1/2"


def test_a_host_without_an_address_of_its_own_is_told(two):
    status, text = two[0].on("127.0.0.1")
    assert status == 400 and "cannot know this one as 127.0.0.1. Set [server] pool_addr" in text


class Swallower(http.server.BaseHTTPRequestHandler):
    """A member that does what it is asked, and loses the answers to changes."""

    url = ""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with urllib.request.urlopen(urllib.request.Request(self.url + self.path, body), timeout=10) as real:
            answer = real.read()
        if self.path.endswith("/txn"):
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


def test_a_change_whose_answer_got_lost_is_made_once(etcd, prefix):
    swallower = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Of", (Swallower,), {"url": etcd.url}))
    thread = threading.Thread(target=swallower.serve_forever, args=(0.05,))
    thread.start()
    members = [f"http://127.0.0.1:{swallower.server_address[1]}", etcd.url]
    try:
        with serving(lambda: EtcdStore(members, prefix)) as port, serving(lambda: EtcdStore([etcd.url], prefix)) as plain:
            Client(plain).on()
            uuid = Client(port).json("/service?nvidia_vgpu=2&memory=10")["uuid"]
            assert [a["uuid"] for a in Client(plain).json("/allocations")["allocations"]] == [uuid]
    finally:
        swallower.shutdown()
        thread.join(10)
        swallower.server_close()


def test_etcd_is_away_for_a_while(tmp_path):
    """One clear answer meanwhile; nothing is forgotten."""
    with etcds.running(tmp_path) as etcd, serving(lambda: EtcdStore([etcd.url])) as port:
        client = Client(port)
        client.on(**ON)
        uuid = client.json("/service?nvidia_vgpu=1")["uuid"]
        etcd.stop()
        status, text = client("/service?nvidia_vgpu=1")
        assert status == 503 and f"does not answer ({etcd.url}" in text and "[store] etcd" in text
        etcd.start()
        assert [a["uuid"] for a in client.json("/allocations")["allocations"]] == [uuid]
