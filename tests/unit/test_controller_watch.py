# SPDX-License-Identifier: Apache-2.0
"""The controller for who watches: metrics, overview and page; what the monitoring token opens, and what it does not."""

from __future__ import annotations

import http.client
import json
import math
import threading

import pytest
from controllers import GPU, MIB, Client, Process, serving
from host import wait_for
from prometheus_client.parser import text_string_to_metric_families

from orion_virt.controller import doors, reports
from orion_virt.controller.sqlite_store import SqliteStore
from orion_virt.errors import ProtocolError
from orion_virt.model.placement import KINDS

TOKEN, LAN_TOKEN = "w" * 64, "l" * 32
LAN = "127.0.0.9"
ANN = {"uuid": "ann", "owner": "a" * 64}
REPORT = {
    "gpus": [{"index": 0, "busy_percent": 40, "used_bytes": 30 * MIB, "temperature_celsius": 50, "power_watts": 99.5},
             {"index": 1, "busy_percent": 0, "used_bytes": 0}],
    "processes": [], "names": {"ann": "vm <b>1</b>"},
}  # fmt: skip


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Any other loopback address stands for one of the local network here."""
    monkeypatch.setattr(doors, "is_loopback", lambda ip: ip == "127.0.0.1")
    make = lambda: SqliteStore(tmp_path / "controller.db")  # noqa: E731
    with serving(make, token=LAN_TOKEN, others=(LAN,), watch_token=TOKEN) as port:
        client = Client(port)
        assert client.on("127.0.0.1", domains=[ANN])[0] == 200
        yield client


def watcher(call, ip="127.0.0.1"):
    return Client(call.port, "", ip, token=TOKEN)


def samples(call):
    """(name, labels) -> value of /metrics, as the library reads them."""
    status, text = watcher(call)("/metrics")
    assert status == 200, text
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in text_string_to_metric_families(text) for s in f.samples}


def one(found, series, /, **labels):
    return found[series, tuple(sorted(labels.items()))]


def ask(call, query, domain="ann"):
    status, text = call(f"/service?{query}&domain={domain}")
    assert status == 200, text
    return text.split(",")[0]


# ---- who may ----


@pytest.mark.parametrize("path", ["/metrics", "/v1/overview"])
def test_figures_are_for_who_watches(call, path):
    uuid = ask(call, "nvidia_vgpu=1")
    for who in (call, watcher(call), watcher(call, LAN)):
        assert who(path)[0] == 200
    for who in (call.guest(), Client(call.port, "", token="x" * 64), Client(call.port, "", LAN, token=LAN_TOKEN), Client(call.port, "", LAN)):
        status, text = who(path)
        assert status == 403 and "ann" not in text and uuid[:8] not in text


def test_the_token_changes_nothing_and_takes_nothing(call):
    uuid = ask(call, "nvidia_vgpu=1")
    before = call.json("/devices"), call.json("/allocations")
    tries = [("/allocations", None, "GET"), (f"/service/release/{uuid}", {}, "POST"), (f"/service/confirm/{uuid}", {}, "POST"),
             ("/heartbeat/127.0.0.1?status=off", {}, "POST"), ("/usage/127.0.0.1", REPORT, "POST"), ("/reservations/ann", {"vgpus": 1}, "PUT"),
             ("/reservations", None, "GET")]
    for path, body, method in tries:
        assert watcher(call)(f"/v1{path}", body, method=method)[0] == 403, path
    assert watcher(call, LAN)("/service?nvidia_vgpu=1")[0] == 403  # the local network's own token is for that
    assert (call.json("/devices"), call.json("/allocations")) == before


def test_without_a_token_nobody_but_servers(tmp_path):
    with serving(lambda: SqliteStore(tmp_path / "c.db")) as port:
        assert Client(port, "")("/metrics")[0] == 403 and Client(port, "", token="")("/v1/overview")[0] == 403
        assert Client(port)("/metrics")[0] == 200


def test_a_token_that_others_can_read_lets_nobody_watch_and_keeps_nobody_from_being_served(tmp_path):
    token = tmp_path / "state" / "monitor.token"
    token.parent.mkdir()
    token.write_text(TOKEN)
    token.chmod(0o644)
    started = Process(tmp_path)
    try:
        client = started.client()
        assert client("/devices")[0] == 200 and Client(started.port, "", token=TOKEN)("/metrics")[0] == 403
    finally:
        started.process.terminate()
        assert started.ended() == 0
    assert "nobody can see the web page and the metrics" in started.log and "is not a private file" in started.log


def test_the_overview_has_no_id_that_could_be_shown(call):
    uuid = ask(call, "nvidia_vgpu=1")
    text = watcher(call)("/v1/overview")[1]
    assert uuid[:8] in text and uuid not in text


# ---- what they see ----


def test_metrics_follow_what_happens(call):
    held = ask(call, "nvidia_vgpu=3&memory=1000")
    call(f"/service/confirm/{held}?server=127.0.0.1", {"domain": "ann", "owner": "a" * 64, "client": "x"})
    call.json("/reservations/bob", {"vgpus": 2}, method="PUT")
    found = samples(call)
    card = {"host": "127.0.0.1", "gpu": "0"}
    assert one(found, "orion_controller_hosts") == 1
    assert one(found, "orion_controller_gpu_info", **card, name="Sim") == 1
    assert one(found, "orion_controller_gpu_vgpus", **card) == GPU["slots"]
    assert one(found, "orion_controller_gpu_vgpus_used", **card) == 3
    assert one(found, "orion_controller_gpu_memory_size_bytes", **card) == GPU["total_bytes"]
    assert one(found, "orion_controller_gpu_memory_granted_bytes", **card) == 3000 * MIB
    assert one(found, "orion_controller_allocations", state="confirmed") == 1
    assert one(found, "orion_controller_domain_vgpus", domain="ann") == 3
    assert one(found, "orion_controller_domain_memory_bytes", domain="ann") == 3000 * MIB
    assert one(found, "orion_controller_reserved_vgpus", domain="bob") == 2
    assert one(found, "orion_controller_reserved_vgpus_free", domain="bob") == 2
    assert one(found, "orion_controller_requests_total", outcome="granted") == 1
    assert one(found, "orion_controller_request_wait_seconds_count", outcome="granted") == 1
    assert one(found, "orion_controller_http_requests_total", call="/service", status="200") == 1
    call(f"/service/release/{held}")
    found = samples(call)
    assert one(found, "orion_controller_gpu_vgpus_used", **card) == 0
    assert ("orion_controller_domain_vgpus", (("domain", "ann"),)) not in found


def test_refusals_by_reason(call):
    def refused(kind, query, **who):
        before = one(samples(call), "orion_controller_refusals_total", reason=kind)
        assert call(f"/service?{query}", **who)[0] == 409
        return one(samples(call), "orion_controller_refusals_total", reason=kind) - before

    assert refused("invalid", "nvidia_vgpu=33") == 1
    assert refused("too_large", "memory=9000") == 1
    ask(call, "nvidia_vgpu=1&memory=10&group=g")
    assert refused("group", "nvidia_vgpu=2&group=g&domain=ann") == 1
    ask(call, "nvidia_vgpu=1&memory=6000")
    ask(call, "nvidia_vgpu=1&memory=6000")
    assert refused("memory", "nvidia_vgpu=1&memory=6000") == 1
    call.json("/reservations/bob", {"vgpus": 5, "memory_mib": 100}, method="PUT")
    assert refused("reserved", "nvidia_vgpu=1&memory=10") == 1
    call("/v1/reservations/bob", method="DELETE")
    ask(call, "nvidia_vgpu=5&memory=10")
    assert refused("vgpus", "nvidia_vgpu=1&memory=10") == 1
    assert call.json("/heartbeat/127.0.0.1?status=off", {}) == {}
    assert refused("no_server", "nvidia_vgpu=1") == 1
    assert {dict(labels)["reason"] for name, labels in samples(call) if name == "orion_controller_refusals_total"} == {*KINDS, "too_many_waiting"}


def test_the_queue(call):
    held = ask(call, "nvidia_vgpu=8&memory=10")
    waiting = threading.Thread(target=call, args=("/service?nvidia_vgpu=2&memory=10&wait=60",))
    waiting.start()
    try:
        assert wait_for(lambda: one(samples(call), "orion_controller_queue_requests") == 1)
        assert one(samples(call), "orion_controller_queue_vgpus") == 2
    finally:
        call(f"/service/release/{held}")
        waiting.join(10)
    found = samples(call)
    assert one(found, "orion_controller_queue_requests") == 0 and one(found, "orion_controller_request_wait_seconds_sum", outcome="granted") > 0


def test_paths_that_nobody_knows_make_one_series(call):
    for n in range(20):
        call(f"/nothing/{n}")
        call(f"/service/release/{n}", {})
    calls = {dict(labels)["call"] for name, labels in samples(call) if name == "orion_controller_http_requests_total"}
    assert calls <= {"unknown", "/service/release/{name}", "/heartbeat/{name}", "/metrics"}
    assert one(samples(call), "orion_controller_http_requests_total", call="unknown", status="404") == 20


def test_openmetrics_is_served_to_who_accepts_it(call):
    connection = http.client.HTTPConnection("127.0.0.1", call.port, timeout=10)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}", "Accept": "application/openmetrics-text;version=1.0.0"})
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text") and answer.read().endswith(b"# EOF\n")
    connection.close()


def test_overview_joins_grants_and_reports(call):
    uuid = ask(call, "nvidia_vgpu=2&memory=100")
    call(f"/service/confirm/{uuid}?server=127.0.0.1", {"domain": "ann", "owner": "a" * 64, "client": "x", "process": "python3", "pid": 7})
    load = {"allocation": uuid, "pid": 7, "comm": "python3", "transport": "shm", "used_bytes": 30 * MIB, "busy_percent": 40,
            "calls_per_second": 5, "bytes_per_second": 6}
    before = json.loads(watcher(call)("/v1/overview")[1])
    assert before["hosts"][0]["reports"] is False and before["allocations"][0]["used_bytes"] is None
    for _ in range(2):
        assert call.json("/usage/127.0.0.1", REPORT | {"processes": [load]}) == {}
    found = json.loads(watcher(call)("/v1/overview")[1])
    (host,), (domain,), (allocation,) = found["hosts"], found["domains"], found["allocations"]
    assert (found["total"], found["free"], found["waiting"]) == (8, 6, 0)
    first, second = host["gpus"]
    assert (first["busy_percent"], first["used_bytes"], first["temperature_celsius"], first["power_watts"]) == (40, 30 * MIB, 50, 99.5)
    assert first["history"]["busy_percent"] == [40, 40] and first["used_slots"] == 2 and first["granted_bytes"] == 200 * MIB
    assert second["temperature_celsius"] is None
    assert domain["name"] == "vm <b>1</b>" and (domain["vgpus"], domain["used_bytes"], domain["calls_per_second"]) == (2, 30 * MIB, 5)
    assert (allocation["process"], allocation["pid"], allocation["bytes_per_second"], allocation["domain_name"]) == ("python3", 7, 6, domain["name"])


@pytest.mark.parametrize("body", [{}, [], REPORT | {"gpus": 5}, REPORT | {"names": []}, REPORT | {"processes": [{}]},
                                  REPORT | {"gpus": [{"index": 0, "busy_percent": -1, "used_bytes": 0}]}])
def test_bad_reports(call, body):
    assert call("/v1/usage/127.0.0.1", body)[0] == 400


def test_reports_of_strangers(call):
    assert call("/v1/usage/10.9.9.9", REPORT)[0] == 404


def test_numbers_that_are_none_are_refused():
    for bad in (math.nan, math.inf, "x", None):
        with pytest.raises(ProtocolError):
            reports.parse({"gpus": [{"index": 0, "busy_percent": bad, "used_bytes": 0}], "processes": [], "names": {}})
    with pytest.raises(ProtocolError):  # JSON has no such number, and the page could not read it
        reports.parse({"gpus": [{"index": 0, "busy_percent": 1, "used_bytes": 0, "power_watts": math.nan}], "processes": [], "names": {}})


def test_reports_grow_old_and_are_bounded():
    now = [0.0]
    kept = reports.Reports(clock=lambda: now[0])
    for _ in range(3 * reports.HISTORY_SAMPLES):
        kept.add("h", reports.parse(REPORT))
        now[0] += 5
    assert kept.of("h") is not None and len(kept.history("h", 0)["busy_percent"]) == reports.HISTORY_SAMPLES
    now[0] += 60
    assert kept.of("h") is None and kept.history("h", 0)["seconds_ago"][-1] == 65
    kept.keep({})
    assert kept.history("h", 0)["seconds_ago"] == []


# ---- the page ----


def test_the_page_is_served_with_nothing_in_it(call):
    ask(call, "nvidia_vgpu=1")
    for path, kind in {"/": "text/html", "/web/page.js": "text/javascript", "/web/plot.js": "text/javascript", "/web/style.css": "text/css",
                       "/web/icon.svg": "image/svg+xml"}.items():
        connection = http.client.HTTPConnection(LAN, call.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200 and answer.headers["Content-Type"] == f"{kind}; charset=utf-8" and "ann" not in text.split()
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'") and "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Referrer-Policy"] == "no-referrer"
        without = text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in without and "https:" not in without and "innerHTML" not in text and "eval" not in text
        connection.close()
    assert call("/web/../calls.py")[0] == 404 and call("/web/%2e%2e/calls.py")[0] == 404
