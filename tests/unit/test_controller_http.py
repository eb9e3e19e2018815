# SPDX-License-Identifier: Apache-2.0
"""Every call of the controller over real HTTP, and its clock by hand."""

import json
import re
import socket
import stat
import threading
import time

import jsonschema
import openapi_spec_validator
import pytest
from controllers import GPU, MIB, ON, SECRET, Client, serving

from orion_virt import credential
from orion_virt.controller.calls import CALLS
from orion_virt.controller.http import Controller
from orion_virt.controller.pool import Pool
from orion_virt.controller.sqlite_store import SqliteStore
from orion_virt.errors import ConfigError


REPORT = {"gpus": [{"index": 0, "busy_percent": 40, "used_bytes": 5 * MIB, "temperature_celsius": None, "power_watts": 10.5}],
          "processes": [], "names": {"d-1": "vm1"}}


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def call(clock, tmp_path):
    with serving(lambda: SqliteStore(tmp_path / "controller.db", lambda: clock[0])) as port:
        yield Client(port)


def test_info_and_devices(call):
    assert call("/info?data_version&api_version") == (200, "data_version=0.1,api_version=0.1")
    assert call("/devices?res=nvidia_cuda")[1].rsplit("=", 1)[1] == "0"
    assert call.on() == (200, "ok")
    assert call("/devices?res=nvidia_cuda")[1].rsplit("=", 1)[1] == "8"
    call("/service?nvidia_vgpu=3&memory=100")
    assert call("/devices?res=nvidia_cuda&used=true")[1].rsplit("=", 1)[1] == "5"
    assert json.loads(call("/v1/devices")[1])["free"] == 5


def test_service_text_confirm_release(call):
    call.on()
    status, text = call("/service?nvidia_vgpu=2&memory=5000")
    uuid, first, second = text.split(",")
    assert status == 200 and (first, second) == ("127.0.0.1:9960/0/0", "127.0.0.1:9960/1/0")
    assert call(f"/service/confirm/{uuid}", secret="")[0] == 403
    assert call(f"/service/release/{uuid}", secret="x")[0] == 403
    status, text = call(f"/v1/service/confirm/{uuid}?server=10.0.0.1", {})
    assert status == 200 and json.loads(text)["vgpus"][1] == {
        "card": 1, "slot": 0, "memory_bytes": 5000 * MIB, "booked_bytes": 5000 * MIB
    }  # fmt: skip
    assert call(f"/service/confirm/{uuid}")[0] == 409
    assert call(f"/service/release/{uuid}") == (200, f"{uuid} released")
    assert call(f"/service/release/{uuid}")[0] == 404


def test_refusals_are_409_with_the_reason(call):
    status, text = call("/service?nvidia_vgpu=1&memory=100")
    assert status == 409 and "no server is registered" in text
    call.on()
    status, text = call("/service?nvidia_vgpu=1&memory=9000")
    assert status == 409 and "even when idle" in text and "8000 of 8000 MiB free" in text
    assert call("/service?nvidia_vgpu=33")[0] == 409 and call("/service?nvidia_vgpu=0")[0] == 409
    assert call("/service?nvidia_vgpu=x")[0] == 400 and call("/service?nvidia_vgpu=-1")[0] == 400


def test_a_release_on_its_way_is_waited_for(call):
    call.on()
    uuid = call("/service?nvidia_vgpu=8&memory=2000")[1].split(",")[0]
    timer = threading.Timer(0.2, call, [f"/service/release/{uuid}"])
    timer.start()
    assert call("/service?nvidia_vgpu=8&memory=2000")[0] == 200
    timer.join()
    assert call("/service?nvidia_vgpu=1")[0] == 409


def test_unconfirmed_expires_confirmed_stays(call, clock):
    call.on()
    kept = call("/service?nvidia_vgpu=1")[1].split(",")[0]
    lost = call("/service?nvidia_vgpu=1")[1].split(",")[0]
    call(f"/service/confirm/{kept}")
    for _ in range(5):
        clock[0] += 7
        assert call("/heartbeat/10.0.0.1?status=continue", {"boot": "b1"})[0] == 200
    assert call(f"/service/confirm/{lost}")[0] == 404
    assert [a["uuid"] for a in json.loads(call("/v1/allocations")[1])["allocations"]] == [kept]


def test_silent_server_is_taken_out(call, clock):
    call.on()
    clock[0] += 17
    assert call("/devices")[1].endswith("=0")
    assert call("/heartbeat/10.0.0.1?status=continue", {"boot": "b1"})[0] == 404


def test_restart_of_either_side(call):
    call.on()
    uuid = call("/service?nvidia_vgpu=1&memory=10")[1].split(",")[0]
    live = json.loads(call(f"/v1/service/confirm/{uuid}")[1])
    assert call("/heartbeat/10.0.0.1?status=continue", {"boot": "b2"})[0] == 404
    call.on(boot="b2", allocations=[live])
    assert call("/devices?used=true")[1].endswith("=7")
    call.on(boot="b3")
    assert call("/devices?used=true")[1].endswith("=8")
    call("/service?nvidia_vgpu=1")  # its program waits for the server
    call.on(boot="b4")
    assert call("/devices?used=true")[1].endswith("=7")
    call.on(boot="b5", gpus=[GPU])
    assert call("/devices?used=true")[1].endswith("=4"), "of cards that are there no more"
    call("/heartbeat/10.0.0.1?status=off", {})
    assert call("/devices")[1].endswith("=0")


@pytest.mark.parametrize("body", [{}, [], {"gpus": [{}]}, ON | {"port": -1}, ON | {"gpus": 5}, ON | {"gpus": [GPU | {"slots": 0}]}])
def test_bad_heartbeats(call, body):
    assert call("/heartbeat/10.0.0.1?status=on", body)[0] == 400


def test_bad_requests(call):
    assert call("/nothing")[0] == 404 and call("/heartbeat/")[0] == 404
    assert call("/heartbeat/1.1.1.1?status=on")[0] == 400  # GET
    assert call("/heartbeat/1.1.1.1?status=dance", {})[0] == 400
    assert call("/devices?res=amd")[0] == 404


def test_credential_file(tmp_path):
    path = tmp_path / "s" / "server.credential"
    secret = credential.load(path)
    assert credential.load(path) == secret and len(secret) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="not a private file"):
        credential.load(path)


# ---- the JSON face and its description ----


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    home = tmp_path_factory.mktemp("document")
    with serving(lambda: SqliteStore(home / "controller.db")) as port:
        yield Client(port).json("/openapi.json")


def test_the_description_is_valid(document):
    openapi_spec_validator.validate(document)
    assert document["openapi"].startswith("3.1")


def test_the_description_has_the_routes_and_no_others(document):
    routes = {(call.path, method) for call in CALLS for method in call.methods[:1]} | {("/openapi.json", "GET")}
    told = {(path.removeprefix("/v1"), method.upper()) for path, at in document["paths"].items() for method in at}
    assert told == routes
    served = Controller(Pool(SqliteStore.__new__(SqliteStore)), SECRET)._application().router.routes()
    known = {(route.resource.canonical, route.method) for route in served if route.resource.canonical.startswith("/v1")}
    assert {(f"/v1{path}", method) for path, method in told} <= known
    assert {path for path, _ in known} == set(document["paths"])


def test_answers_are_as_described(call, document):
    call.on()
    uuid = call.json("/service?nvidia_vgpu=2&memory=5")["uuid"]
    holder = {"client": "127.0.0.1", "process": "python3", "pid": 7}
    made = [
        ("/info", "get", None), ("/devices", "get", None), ("/service?nvidia_vgpu=1", "get", None),
        (f"/service/confirm/{uuid}", "post", holder), ("/allocations", "get", None),
        (f"/service/release/{uuid}", "post", {}), ("/heartbeat/10.0.0.1?status=continue", "post", ON),
        ("/reservations/d-1", "put", {"vgpus": 2, "memory_mib": 100}), ("/reservations", "get", None),
        ("/reservations/d-1", "delete", None), ("/openapi.json", "get", None), ("/usage/10.0.0.1", "post", REPORT),
        ("/overview", "get", None),
    ]  # fmt: skip
    seen = set()
    for path, method, body in made:
        data = call.json(path, body, method.upper())
        operation = operation_of(document, path.split("?")[0], method)
        seen.add(operation["operationId"])
        check(document, operation, "200", data)
    assert seen == {op["operationId"] for at in document["paths"].values() for op in at.values()}


@pytest.mark.parametrize(("path", "method", "body", "status"), [
    ("/service?nvidia_vgpu=0", "get", None, 409), ("/service?wait=1e9", "get", None, 400), ("/devices?res=amd", "get", None, 404),
    ("/service/release/none", "post", {}, 404), ("/reservations/d", "put", {"vgpus": 99}, 409),
    ("/reservations/d", "put", {"vgpus": True, "memory_mib": "x"}, 400), ("/reservations/d", "delete", None, 404),
    ("/heartbeat/1.1.1.1?status=on", "post", {}, 400), ("/service/confirm/none", "post", {"pid": "x"}, 400),
])  # fmt: skip
def test_refusals_are_as_described(call, document, path, method, body, status):
    got, text = call(f"/v1{path}", body, method=method.upper())
    assert got == status
    check(document, operation_of(document, path.split("?")[0], method), str(status), json.loads(text))


def operation_of(document, path, method):
    for known, at in document["paths"].items():
        if re.fullmatch(known.replace("{name}", "[^/]+"), f"/v1{path}"):
            return at[method]
    raise AssertionError(path)


def check(document, operation, status, data):
    schema = operation["responses"][status]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(schema | {"components": document["components"]}).validate(data)


def test_old_and_strange_requests(call):
    """A client of HTTP/1.0 reads to the end of the connection; what is no HTTP ends its connection alone."""
    call.on()
    with socket.create_connection(("127.0.0.1", call.port), 10) as sock:
        sock.sendall(b"GET /service?nvidia_vgpu=1 HTTP/1.0\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert re.match(rb"HTTP/1\.[01] 200 .*\r\n\r\n[0-9a-f-]{36},127\.0\.0\.1:9960/0/0$", answer, re.S), answer
    for rubbish in (b"\x00\xff" * 100 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70000):
        with socket.create_connection(("127.0.0.1", call.port), 10) as sock:
            sock.sendall(rubbish)
            sock.shutdown(socket.SHUT_WR)
            assert b"Traceback" not in b"".join(iter(lambda: sock.recv(4096), b""))
    assert call("/info")[0] == 200


_POST = b"POST /v1/heartbeat/a?res=nvidia_cuda&status=on HTTP/1.1\r\nHost: x\r\n" + credential.HEADER.encode() + b": " + SECRET.encode() + b"\r\n"


@pytest.mark.parametrize("rubbish", [
    _POST + b"Content-Length: 100\r\n\r\nhalf", _POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
    _POST + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf",
    b"\x00\xff" * 100 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70000])
def test_what_is_no_http_is_no_error_of_ours(call, caplog, rubbish):
    """Anybody can send it: neither a traceback nor more than a line in the log."""
    caplog.set_level("INFO")
    with socket.create_connection(("127.0.0.1", call.port), 10) as sock:
        sock.sendall(rubbish)
        if rubbish.startswith(b"POST"):
            time.sleep(0.2)  # the head is read, the body waited for
        else:
            sock.shutdown(socket.SHUT_WR)
            sock.recv(4096)
    assert call("/info")[0] == 200
    assert not [r for r in caplog.records if r.exc_info or r.levelname in ("WARNING", "ERROR")], caplog.text
    assert all(len(r.getMessage().splitlines()) == 1 and len(r.getMessage()) < 300 for r in caplog.records)
