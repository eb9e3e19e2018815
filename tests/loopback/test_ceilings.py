# SPDX-License-Identifier: Apache-2.0
"""A domain's vGPUs and memory: defaults that its processes find, ceilings that no guest gets past."""

import json
import socket
import subprocess
import sys
import uuid

import host
import pytest
from test_server_handshake import Guest, allocate, greet

LIMITS = {"vgpus": 2, "memory": 500, "total": 3}
# Counts and sizes before and after the first context, which takes the allocation; then waits for its input to end.
PROGRAM = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def must(status):
    if status: sys.exit(f"status {status}")
def look():
    count, size = ctypes.c_int(), ctypes.c_size_t()
    must(cuda.cuDeviceGetCount(ctypes.byref(count)))
    must(cuda.cuDeviceTotalMem_v2(ctypes.byref(size), 0))
    print(count.value, size.value >> 20, flush=True)
must(cuda.cuInit(0))
look()
context = ctypes.c_void_p()
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
look()
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """One host for all; its region has ceilings."""
    with host.running(tmp_path_factory.mktemp("ceilings"), **LIMITS) as env:
        yield env


@pytest.fixture(autouse=True)
def settled(limited):
    assert host.wait_for(limited.idle)


def program(env, **variables):
    return env.run([sys.executable, "-c", PROGRAM], **variables)


def smi(env, **variables):
    done = env.run([str(host.LIB / "guest" / "orion-smi"), "--json"], **variables)
    assert done.returncode == 0, done.stderr
    return [(vgpu["index"], vgpu["total_bytes"] >> 20) for vgpu in json.loads(done.stdout)["vgpus"]]


def test_who_asks_for_nothing_has_the_defaults(limited):
    done = program(limited)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["2 500", "2 500"]), done.stderr


def test_nvml_and_orion_smi_show_the_defaults(limited):
    assert smi(limited) == [(0, 500), (1, 500)]
    assert smi(limited, ORION_VGPU=1) == [(0, 500)]


def test_less_is_allowed(limited):
    done = program(limited, ORION_VGPU=1, ORION_GMEM=100)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["1 100", "1 100"]), done.stderr


@pytest.mark.parametrize(
    ("variables", "reason", "remedy"),
    [
        ({"ORION_VGPU": 3}, "3 vGPU asked for, this domain's processes may have 2 each", "Set ORION_VGPU=2 or less"),
        (
            {"ORION_GMEM": 501},
            "501 MiB of a vGPU asked for, this domain's vGPUs may have 500 MiB each",
            "Set ORION_GMEM=500 or less",
        ),
    ],
)
def test_more_is_refused_with_the_remedy(limited, variables, reason, remedy):
    done = program(limited, **variables)
    assert done.returncode == 1 and "status 2" in done.stderr
    assert reason in done.stderr and remedy in done.stderr and "orion-virt set DOMAIN" in done.stderr


def test_a_client_that_ignores_the_defaults_is_refused(limited):
    """One of before, or a hostile one: it asks the controller for more and comes with that."""
    with Guest(limited.server) as guest:
        verb, fields = greet(limited, guest, allocation=allocate(limited, "nvidia_vgpu=3&memory=100"))
        assert (verb, fields["code"]) == ("REFUSED", "2")
    with Guest(limited.server) as guest:
        verb, fields = greet(limited, guest, allocation=allocate(limited, "nvidia_vgpu=1"))
        assert verb == "REFUSED" and "ORION_GMEM=500" in fields["hint"]


def test_the_total_of_a_domain(limited):
    first = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=limited.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert [first.stdout.readline() for _ in range(2)] == ["2 500\n"] * 2
    second = program(limited)
    assert second.returncode == 1 and "2 of the 3 that this domain may have are in use" in second.stderr
    assert program(limited, ORION_VGPU=1).returncode == 0
    first.communicate()
    assert program(limited).returncode == 0, "vGPUs of a process that has just ended are free"


def test_ceilings_survive_a_restart_of_oriond(limited):
    limited.process.kill()
    limited.kill()
    limited.start()
    done = program(limited, ORION_VGPU=3)
    assert "may have 2 each" in done.stderr
    assert program(limited).stdout.splitlines() == ["2 500", "2 500"]


def test_bad_ceilings_are_refused(limited):
    answer = limited.command("region-create", uuid=str(uuid.uuid4()), size_mib=2, vgpus=33)
    assert not answer["ok"] and answer["exit_code"] == 2 and "1 to 32" in answer["error"]
    assert len(limited.status()["regions"]) == 1


def test_a_domain_is_known_over_tcp_by_its_nic(tmp_path, monkeypatch):
    """A guest that avoids its region gets no more: what the neighbour table says of its address counts."""
    import asyncio

    from orion_virt.model.ceiling import Ceiling
    from orion_virt.server import ceilings, hello

    said = hello.Hello(False, "", 0, 0, 1, "", "", "", (), b"")
    table = ceilings.Ceilings(tmp_path / "ceilings.json")
    monkeypatch.setattr(ceilings, "neighbour", {"10.0.0.5": "52:54:00:aa:bb:cc"}.get)
    assert asyncio.run(table.owner(said, "10.0.0.5")) == ""
    table.put("u1", Ceiling(vgpus=1), ["52:54:00:AA:BB:CC"])
    again = ceilings.Ceilings(tmp_path / "ceilings.json")
    assert again.of("u1") == Ceiling(vgpus=1)
    assert asyncio.run(again.owner(said, "10.0.0.5")) == "u1"
    assert asyncio.run(again.owner(said, "10.0.0.6")) == ""
    again.put("u2", Ceiling(), ["52:54:00:aa:bb:cc"])
    assert asyncio.run(again.owner(said, "10.0.0.5")) == "u2", "a NIC is whose it was last"
    again.drop("u1")
    assert ceilings.Ceilings(tmp_path / "ceilings.json").of("u1") == Ceiling()


def test_the_neighbour_table_is_read_as_it_is():
    from orion_virt.server.ceilings import neighbour

    assert neighbour(socket.gethostbyname("localhost")) == ""
