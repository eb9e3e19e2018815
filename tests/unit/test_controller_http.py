# SPDX-License-Identifier: Apache-2.0
"""Every call of the controller over real HTTP, and its clock by hand."""

import http.client
import json
import stat
import threading

import pytest

from orion_virt import credential
from orion_virt.controller.http import ControllerServer
from orion_virt.controller.pool import Pool
from orion_virt.errors import ConfigError

MIB = 1 << 20
GPU = {"index": 0, "name": "Sim", "total_bytes": 8000 * MIB, "slots": 4}
ON = {"port": 9960, "boot": "b1", "addresses": ["127.0.0.1"], "gpus": [GPU, GPU | {"index": 1}]}


class Client:
    def __init__(self, port, secret):
        self.port, self.secret = port, secret

    def __call__(self, path, body=None, secret=None, method=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        headers = {credential.HEADER: self.secret if secret is None else secret}
        data = None if body is None else json.dumps(body)
        connection.request(method or ("GET" if body is None else "POST"), path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def on(self, **changes):
        return self("/heartbeat/10.0.0.1?res=nvidia_cuda&status=on", ON | changes)


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def call(clock):
    server = ControllerServer(("127.0.0.1", 0), Pool(lambda: clock[0]), "s" * 64)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Client(server.server_address[1], "s" * 64)
    server.shutdown()
    thread.join(5)
    server.server_close()


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
