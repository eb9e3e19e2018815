# SPDX-License-Identifier: Apache-2.0
"""What oriond and its controller export, against what real clients on the simulated GPU did; and what the dashboard asks for."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import host
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

MIB = 1 << 20
CLIENT = [sys.executable, str(Path(__file__).parent / "client.py")]
MONITORING = host.ROOT / "monitoring"
PORT = host.free_port()


SERVED = f"[server]\nmetrics = 127.0.0.1:{PORT}\ncompute_limits = on\n"


@pytest.fixture(scope="module")
def oriond_env(tmp_path_factory):
    """One for all: each test looks at what its own clients changed."""
    with host.running(tmp_path_factory.mktemp("metrics"), config=SERVED) as env:
        yield env


@pytest.fixture(autouse=True)
def settled(oriond_env):
    """The last test's processes are gone."""
    assert host.wait_for(oriond_env.idle)


def fetch(env, port=PORT, token=None, path="/metrics"):
    token = (env.dir / "state" / "monitor.token").read_text().strip() if token is None else token
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert path != "/metrics" or answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return answer.read().decode()


def families(env, port=PORT):
    """The library's own parser is the judge of the format."""
    return list(text_string_to_metric_families(fetch(env, port)))


def samples(env, port=PORT):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families(env, port) for s in f.samples}


def one(found, series, /, **labels):
    return found[series, tuple(sorted(labels.items()))]


def grown(env, before, series, /, **labels):
    """Since then; what was not there was 0."""
    key = series, tuple(sorted(labels.items()))
    return samples(env).get(key, 0) - before.get(key, 0)


class Running:
    """A client that holds a vGPU until it is ended."""

    def __init__(self, env, mode="hold", **variables):
        full = env.env | {key: str(value) for key, value in variables.items()}
        self.process = subprocess.Popen([*CLIENT, mode, "60"], env=full, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline() == "READY True\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()


def test_a_process_in_figures(oriond_env):
    before = samples(oriond_env)
    assert one(before, "orion_channels") == 0 and one(before, "orion_registered") == 1 and one(before, "orion_workers_warm") == 1
    assert one(before, "orion_gpu_memory_size_bytes", gpu="0") == 8192 * MIB and one(before, "orion_gpu_vgpus", gpu="0") == 4
    assert one(before, "orion_regions_memory_bytes") == 128 * MIB == one(before, "orion_domain_region_bytes", domain=oriond_env.uuid)
    mine = {"domain": oriond_env.uuid}
    with Running(oriond_env, ORION_VGPU=2, ORION_GMEM=500):
        assert host.wait_for(lambda: one(samples(oriond_env), "orion_domain_memory_used_bytes", **mine) == MIB)
        found = samples(oriond_env)
        assert one(found, "orion_channels") == 1 and grown(oriond_env, before, "orion_channels_opened_total", transport=way()) == 1
        assert one(found, "orion_gpu_vgpus_used", gpu="0") == 2 and one(found, "orion_gpu_memory_limit_bytes", gpu="0") == 1000 * MIB
        assert one(found, "orion_gpu_memory_used_bytes", gpu="0") == MIB
        assert one(found, "orion_domain_processes", **mine) == 1 and one(found, "orion_domain_vgpus", **mine) == 2
        assert one(found, "orion_domain_memory_limit_bytes", **mine) == 1000 * MIB
        assert one(found, "orion_vgpu_memory_used_bytes", gpu="0", slot="0") == MIB
        assert one(found, "orion_vgpu_memory_used_bytes", gpu="0", slot="1") == 0
        for slot in "01":
            assert one(found, "orion_vgpu_info", gpu="0", slot=slot, **mine, first_gpu="0", first_slot="0") == 1
    assert host.wait_for(oriond_env.idle)
    after = samples(oriond_env)
    assert one(after, "orion_channels") == 0 and one(after, "orion_gpu_memory_used_bytes", gpu="0") == 0
    assert grown(oriond_env, before, "orion_channels_ended_total", reason="guest") == 1
    assert ("orion_vgpu_memory_used_bytes", (("gpu", "0"), ("slot", "0"))) not in after


def way():
    """How clients of this run reach the host."""
    return "shared memory" if host.os.environ.get("ORION_TEST_NETWORK") != "no" else "shared memory alone"


def test_calls_and_bytes_are_those_of_ended_processes_too(oriond_env):
    """A process that ended within a second counts whole: its worker tells its last counts."""
    mine = {"domain": oriond_env.uuid}
    for _ in range(3):
        before = samples(oriond_env)
        assert oriond_env.run([*CLIENT, "once"]).stdout == "READY True\nDONE\n"
        assert host.wait_for(oriond_env.idle)
        calls = grown(oriond_env, before, "orion_domain_calls_total", **mine)
        assert calls >= 3  # an allocation, a memset and a copy, and what each process does around them
        assert calls == grown(oriond_env, before, "orion_allocation_calls_total", gpu="0", slot="0")
        assert grown(oriond_env, before, "orion_domain_copied_bytes_total", **mine) == MIB  # read back; a memset is no copy
        assert grown(oriond_env, before, "orion_channels_ended_total", reason="guest") == 1


def test_time_on_the_card_grows_while_one_works(oriond_env):
    mine, before = {"domain": oriond_env.uuid}, samples(oriond_env)
    with Running(oriond_env, "loop"):
        assert host.wait_for(lambda: grown(oriond_env, before, "orion_domain_gpu_seconds_total", **mine) > 0)
        found = samples(oriond_env)
        assert 0 < one(found, "orion_gpu_busy_ratio", gpu="0") <= 1
    assert host.wait_for(oriond_env.idle)
    found = samples(oriond_env)
    worked = one(found, "orion_domain_gpu_seconds_total", **mine)
    assert worked == pytest.approx(one(found, "orion_gpu_busy_seconds_total", gpu="0")) and worked > 0
    assert worked == pytest.approx(one(found, "orion_allocation_gpu_seconds_total", gpu="0", slot="0"))
    assert one(found, "orion_gpu_turn_wait_seconds_total", gpu="0") >= 0 == one(found, "orion_gpu_turns_waiting", gpu="0")


def test_errors_are_counted(oriond_env):
    before = samples(oriond_env)
    with Running(oriond_env):
        (channel,) = oriond_env.status()["channels"]
        host.os.kill(channel["worker"], host.signal.SIGKILL)
        assert host.wait_for(lambda: grown(oriond_env, before, "orion_channels_ended_total", reason="worker") == 1)
    with host.socket.create_connection(("127.0.0.1", oriond_env.port), 10) as sock:
        sock.sendall(b"NONSENSE\n\n")
        sock.recv(100)
    assert host.wait_for(lambda: grown(oriond_env, before, "orion_handshakes_refused_total", reason="malformed") == 1)


def test_a_client_over_tcp_makes_no_label(oriond_env):
    """What it calls its domain nobody proved."""
    before = samples(oriond_env)
    done = subprocess.run([*CLIENT, "once"], env=oriond_env.tcp_env, capture_output=True, text=True, timeout=180, check=False)
    assert "READY True" in done.stdout, done
    assert host.wait_for(oriond_env.idle)
    domains = {dict(labels)["domain"] for name, labels in samples(oriond_env) if name == "orion_domain_calls_total"}
    assert domains <= {"none", oriond_env.uuid} and grown(oriond_env, before, "orion_domain_calls_total", domain="none") > 0


@pytest.mark.parametrize("token", ["", "x" * 64])
def test_no_figures_without_the_token(oriond_env, token):
    """On loopback too: guests behind user-mode networking reach it."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        fetch(oriond_env, token=token)
    text = raised.value.read().decode()
    raised.value.close()
    assert raised.value.code == 401 and raised.value.headers["WWW-Authenticate"] == "Bearer" and "monitor.token" in text and "orion_" not in text


def test_names_follow_the_conventions(oriond_env):
    with Running(oriond_env):
        for family in [*families(oriond_env), *families(oriond_env, oriond_env.controller_port)]:
            assert re.fullmatch(r"(orion|process)_[a-z0-9_]+", family.name) and family.documentation, family
            assert family.type == "histogram" or all(s.name.endswith("_total") == (family.type == "counter") for s in family.samples), family
            if family.type == "gauge" and family.name.startswith("orion"):
                assert not family.name.endswith(("_total", "_count", "_sum")), family.name
            assert not re.search(r"(_ms|_mib|_mb|_percent|_kib|milli)", family.name), family.name


# ---- what asks for them ----


def asked():
    """(where, expression) of every query of dashboard and alerts."""
    board = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def names_of(expression):
    """(metrics, labels) of a query: what stands in braces, behind by and on, and what an allowed function has as its label."""
    text = re.sub(r'"[^"]*"', '""', expression)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", text))
    for listed in re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", text):
        labels |= {label.strip() for label in listed.split(",") if label.strip()}
    if (values := re.match(r"label_values\((\w+), (\w+)\)", text)) is not None:
        labels.add(values[2])
    return set(re.findall(r"\b(?:orion|process|up)(?:_\w+)?\b", text)), labels


def test_the_dashboard_asks_for_what_there_is(oriond_env):
    """Every metric is exported, and every label is one of the metrics of its query, or Prometheus's own."""
    with Running(oriond_env):
        oriond_env.run([*CLIENT, "once"])
        put = urllib.request.Request(f"http://{oriond_env.controller}/v1/reservations/{oriond_env.uuid}", b'{"vgpus": 1}', method="PUT", headers={
            "Orion-Credential": (oriond_env.dir / "state" / "server.credential").read_text().strip()})
        urllib.request.urlopen(put, timeout=10).close()
        exported = {}
        for name, labels in [*samples(oriond_env), *samples(oriond_env, oriond_env.controller_port)]:
            exported.setdefault(name, set()).update(dict(labels))
    exported["up"] = set()
    queries = list(asked())
    assert len(queries) > 40
    for where, expression in queries:
        metrics, labels = names_of(expression)
        assert metrics and metrics <= exported.keys(), (where, metrics - exported.keys())
        known = {"instance", "job"}.union(*(exported[name] for name in metrics))
        assert labels <= known, (where, labels - known)


# ---- where it is served ----


def configure(env, text):
    """server.conf with this in it, read again."""
    env._config = text
    env.write_config()
    env.process.send_signal(host.signal.SIGHUP)


def answers(env, port):
    try:
        return bool(fetch(env, port))
    except OSError:
        return False


@pytest.fixture
def as_before(oriond_env):
    yield
    configure(oriond_env, SERVED)
    assert host.wait_for(lambda: answers(oriond_env, PORT))


def test_a_reload_moves_it_and_ends_it(oriond_env, as_before):
    other = host.free_port()
    configure(oriond_env, SERVED.replace(str(PORT), str(other)))
    assert host.wait_for(lambda: answers(oriond_env, other)) and not answers(oriond_env, PORT)
    configure(oriond_env, "[server]\ncompute_limits = on\n")
    assert host.wait_for(lambda: not answers(oriond_env, other))


def test_a_taken_port_is_said_and_keeps_nobody_from_being_served(oriond_env, as_before):
    with host.socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configure(oriond_env, SERVED.replace(str(PORT), str(port)))
        problem = host.wait_for(lambda: oriond_env.status()["metrics"]["problem"])
        assert problem.startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use") and "[server] metrics" in problem
        assert f"metrics are not served, the next try is in 10 s: {problem}" in oriond_env.output()
        assert oriond_env.run([*CLIENT, "once"]).returncode == 0


def test_over_tls(oriond_env, as_before, tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=host",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    configure(oriond_env, f"{SERVED}metrics_tls_cert = {cert}\nmetrics_tls_key = {key}\n")
    token = (oriond_env.dir / "state" / "monitor.token").read_text().strip()
    request = urllib.request.Request(f"https://127.0.0.1:{PORT}/metrics", headers={"Authorization": f"Bearer {token}"})

    def read():
        try:
            with urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cafile=str(cert))) as answer:
                return answer.read()
        except OSError:
            return b""

    assert host.wait_for(lambda: b"orion_registered 1.0" in read())
