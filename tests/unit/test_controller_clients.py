# SPDX-License-Identifier: Apache-2.0
"""What guests may and may not do to a controller: others' allocations, the queue, addresses of the local network."""

from __future__ import annotations

import socket
import threading

import pytest
from click.testing import CliRunner
from controllers import MIB, ON, Client, Process, serving
from host import wait_for

from orion_virt.cli.controller import main
from orion_virt.controller import doors
from orion_virt.controller import pool as pools
from orion_virt.controller.sqlite_store import SqliteStore

A, B = "127.0.0.5", "127.0.0.6"  # two guests
ANN = {"uuid": "ann", "owner": "a" * 64}
NEAR = ON | {"addresses": ["127.0.0.1"], "domains": [ANN]}


@pytest.fixture
def call(tmp_path):
    with serving(lambda: SqliteStore(tmp_path / "controller.db"), gateways=("127.0.0.2",)) as port:
        client = Client(port)
        assert client("/heartbeat/127.0.0.1?status=on", NEAR)[0] == 200
        yield client


def granted(guest, query="nvidia_vgpu=1&memory=100"):
    status, text = guest(f"/service?{query}")
    assert status == 200, text
    return text.split(",")[0]


def test_a_guest_reaches_nothing_of_hosts_or_others(call):
    theirs = granted(call.guest(B))
    before = call.json("/allocations")
    guest = call.guest(A)
    tries = [
        (f"/service/release/{theirs}", {}, "POST"), (f"/service/confirm/{theirs}?server=127.0.0.1", {"client": B}, "POST"),
        ("/heartbeat/127.0.0.1?status=off", {}, "POST"), ("/heartbeat/127.0.0.1?status=on", NEAR | {"boot": "x"}, "POST"),
        ("/allocations", None, "GET"), ("/v1/reservations", None, "GET"), ("/v1/reservations/ann", None, "DELETE"),
        ("/v1/reservations/mine", {"vgpus": 8}, "PUT"),
    ]  # fmt: skip
    for path, body, method in tries:
        for prefix in ("", "/v1") if not path.startswith("/v1") else ("",):
            status, text = guest(prefix + path, body, method=method)
            assert status == 403 and theirs not in text.replace(path, ""), (path, text)
    assert call.json("/allocations") == before and call.json("/devices")["total"] == 8


@pytest.mark.parametrize(("asker", "query", "shower", "status"), [
    (A, "", {"client": A}, 200), (A, "", {"client": B}, 403),
    (A, "&owner=" + "a" * 64, {"client": B, "owner": "a" * 64, "domain": "ann"}, 200),
    (A, "&owner=" + "a" * 64, {"client": A, "owner": "b" * 64, "domain": "bob"}, 403),
    (A, "&owner=" + "a" * 64, {"client": A}, 403),
    (A, "&domain=ann", {"client": B, "domain": "ann"}, 403),  # only servers say for whom they ask
])  # fmt: skip
def test_an_allocation_is_of_who_asked_for_it(call, asker, query, shower, status):
    uuid = granted(call.guest(asker), "nvidia_vgpu=1" + query)
    got, text = call(f"/service/confirm/{uuid}?server=127.0.0.1", shower)
    assert got == status and (status == 200 or "was granted to another client" in text)
    found = call.json("/allocations")["allocations"][0]
    assert found["state"] == ("confirmed" if status == 200 else "granted")


def test_a_thief_does_not_spoil_it_for_the_owner(call):
    uuid = granted(call.guest(A))
    assert call(f"/service/confirm/{uuid}", {"client": B})[0] == 403
    assert call(f"/service/confirm/{uuid}", {"client": A})[0] == 200


def test_a_server_asks_for_a_domain(call):
    uuid = granted(call, "nvidia_vgpu=1&domain=ann")
    assert call(f"/service/confirm/{uuid}", {"client": "x", "domain": "bob", "owner": "b"})[0] == 403
    assert call(f"/service/confirm/{uuid}", {"client": "x", "domain": "ann", "owner": "a"})[0] == 200


def test_who_holds_what(call):
    uuid = granted(call.guest(A), "nvidia_vgpu=2&memory=700&owner=" + "a" * 64)
    call(f"/service/confirm/{uuid}", {"client": A, "owner": "a" * 64, "domain": "ann", "process": "python3", "pid": 77})
    found = call.json("/allocations")["allocations"][0]
    assert (found["domain"], found["process"], found["pid"], found["client"]) == ("ann", "python3", 77, A)
    assert [v["memory_bytes"] for v in found["vgpus"]] == [700 * MIB] * 2 and found["since"] > 1e9


def test_a_reservation_is_kept(call):
    call.json("/reservations/ann", {"vgpus": 6, "memory_mib": 100}, "PUT")
    guest = call.guest(B)
    granted(guest, "nvidia_vgpu=2")
    assert "6 vGPU are reserved for other domains" in guest("/service?nvidia_vgpu=1")[1]
    granted(call.guest(A), "nvidia_vgpu=4&memory=100&owner=" + "a" * 64)
    assert call.json("/reservations")["reservations"] == [{"domain": "ann", "vgpus": 6, "memory_mib": 100, "taken": 4,
                                                           "server": "127.0.0.1"}]
    call.json("/reservations/ann", method="DELETE")
    granted(guest, "nvidia_vgpu=2&memory=100")


def test_a_group_shares_until_its_last_process_ends(call):
    guest, query = call.guest(A), "nvidia_vgpu=2&memory=100&group=job"
    uuid = granted(guest, query)
    assert call(f"/service/confirm/{uuid}", {"client": A, "pid": 1})[0] == 200
    assert granted(guest, query) == uuid and granted(call.guest(B), query) != uuid
    call(f"/service/release/{uuid}", {})  # the first ends while the second is on its way
    assert granted(guest, query) == uuid
    assert [call(f"/service/confirm/{uuid}", {"client": A, "pid": pid})[0] for pid in (2, 3, 4)] == [200, 200, 409]
    call(f"/service/release/{uuid}", {})
    assert call(f"/service/release/{uuid}", {})[0] == 404 and granted(guest, query) != uuid
    assert guest("/service?nvidia_vgpu=1&group=a-b")[0] == 400 and guest("/service?nvidia_vgpu=1&group=job")[0] == 409


# ---- the queue ----


class Waiting:
    """A guest that waits in a thread."""

    def __init__(self, call, query, done, name):
        self.answer = None

        def ask():
            self.answer = call(f"/service?{query}")
            done.append(name)

        self.thread = threading.Thread(target=ask)
        before = call.json("/devices")["waiting"]
        self.thread.start()
        assert wait_for(lambda: call.json("/devices")["waiting"] == before + 1), "it does not wait"


def test_first_come_first_served(call):
    whole, done = granted(call, "nvidia_vgpu=8&memory=100"), []
    first = Waiting(call, "nvidia_vgpu=8&memory=100&wait=60", done, "first")
    second = Waiting(call, "nvidia_vgpu=1&memory=100&wait=60", done, "second")
    call(f"/service/release/{whole}", {})
    first.thread.join(20)
    assert done == ["first"] and first.answer[0] == 200 and call.json("/devices")["waiting"] == 1
    call(f"/service/release/{first.answer[1].split(',')[0]}", {})
    second.thread.join(20)
    assert second.answer[0] == 200 and call.json("/devices") | {"servers": 0} == {"total": 8, "free": 7, "waiting": 0, "servers": 0}


def test_a_crowd_of_one_client_does_not_fill_the_queue(call, monkeypatch):
    monkeypatch.setattr(pools, "WAITERS_MAX", 2)
    granted(call.guest(B), "nvidia_vgpu=8&memory=100")
    done = []
    crowd = [Waiting(call.guest(A), "nvidia_vgpu=1&wait=2", done, number) for number in range(2)]
    assert call.guest(A)("/service?nvidia_vgpu=1&wait=60") == (409, "2 processes of this client wait for vGPUs already")
    assert call.guest(B)("/service?nvidia_vgpu=1&wait=1")[0] == 409 and call.json("/devices")["total"] == 8
    for waiting in crowd:
        waiting.thread.join(20)
    assert [waiting.answer[0] for waiting in crowd] == [409, 409]


def test_who_waits_in_vain_gets_the_reason(call):
    granted(call, "nvidia_vgpu=8&memory=100")
    status, text = call("/service?nvidia_vgpu=1&memory=100&wait=1")
    assert status == 409 and "0 of 4 vGPU" in text and call.json("/devices")["waiting"] == 0


def test_nobody_waits_for_what_can_never_be(call):
    status, text = call("/service?nvidia_vgpu=1&memory=99999&wait=3600")
    assert status == 409 and "even when idle" in text


def test_who_leaves_the_queue_keeps_nobody_waiting(call):
    whole = granted(call, "nvidia_vgpu=8&memory=100")
    with socket.create_connection(("127.0.0.1", call.port)) as sock:
        sock.sendall(b"GET /service?nvidia_vgpu=8&wait=600 HTTP/1.0\r\n\r\n")
        assert wait_for(lambda: call.json("/devices")["waiting"] == 1)
    assert wait_for(lambda: call.json("/devices")["waiting"] == 0), "its place is still taken"
    call(f"/service/release/{whole}", {})
    assert call("/service?nvidia_vgpu=8&memory=100&wait=0")[0] == 200


# ---- addresses ----


def test_an_address_of_the_local_network_wants_a_token(tmp_path):
    token = tmp_path / "token"
    token.write_text("correct-horse-battery\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "controller.conf").write_text(f"[controller]\ntoken_file = {token}\n")
    token.chmod(0o644)
    assert "can be read by others. chmod 600" in ended(Process(tmp_path), 2)
    token.chmod(0o600)
    process = Process(tmp_path)
    process.client()
    process.kill()


def ended(process, status):
    assert process.ended() == status and "Traceback" not in process.log
    return process.log


def test_the_guard(tmp_path, monkeypatch):
    """Any loopback address stands for one of the local network here."""
    monkeypatch.setattr(doors, "is_loopback", lambda ip: ip == "127.0.0.1")
    with serving(lambda: SqliteStore(tmp_path / "c.db"), token="t" * 20, gateways=("127.0.0.2",), others=("127.0.0.3",)) as port:
        for ip, token, secret, status in [
            ("127.0.0.1", "", "", 200), ("127.0.0.2", "", "", 200), ("127.0.0.3", "", "", 403), ("127.0.0.3", "t" * 20, "", 200),
            ("127.0.0.3", "t" * 19, "", 403), ("127.0.0.3", "", "s" * 64, 200),
        ]:  # fmt: skip
            for path in ("/info", "/v1/devices", "/v1/openapi.json"):
                assert Client(port, secret, ip, token=token)(path)[0] == status, (ip, token, secret, path)
        assert "ORION_TOKEN" in Client(port, "", "127.0.0.3")("/info")[1]


@pytest.mark.parametrize(("conf", "message"), [
    ("[controller]\nlisten = 0.0.0.0:9123\n", "listening on 0.0.0.0:9123 lets the local network ask for vGPUs, and there is no token"),
    ("[controller]\nlisten = 10.0.0.1, 127.0.0.1\n", "listening on 10.0.0.1:9123 lets the local network"),
    ("[controller]\nlisten = here\ntoken_file = x\n", "controller.conf:3: [controller] token_file = 'x' is not valid"),
    ("[controller]\nlisten = 1:2:3,,:\n", "controller.conf:2: [controller] listen"),
    ("[controller]\ntls_cert = /nowhere\n", "tls_cert and tls_key belong together"),
    ("[controller]\ntls_cert = /c\ntls_key = /k\nlisten = 0.0.0.0\ntoken_file = /t\n", "TLS with a wildcard address"),
    ("[controller]\ntoken_file = /nowhere\n", "token_file /nowhere cannot be read"),
    ("[store]\nkind = mysql\n", "controller.conf:2: [store] kind = 'mysql' is not valid. Accepted: sqlite, etcd"),
    ("[store]\netcd = localhost:2379\n", "controller.conf:2: [store] etcd = 'localhost:2379' is not valid"),
])  # fmt: skip
def test_bad_configuration(tmp_path, capsys, conf, message):
    file = tmp_path / "controller.conf"
    file.write_text(conf)
    done = CliRunner().invoke(main, ["--config", str(file)], env={"ORION_STATE": str(tmp_path / "state")})
    assert done.exit_code == 2 and message in done.output and len(done.output.splitlines()) == 1, done.output
