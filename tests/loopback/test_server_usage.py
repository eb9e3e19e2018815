# SPDX-License-Identifier: Apache-2.0
"""USAGE as a guest speaks it, honest and not: nobody learns of processes that are not its own."""

import hashlib
import hmac
import os
import uuid

import host
import pytest
from test_server_handshake import CODES, Guest, greet, header

MACHINE, OTHER = "ab" * 16, "cd" * 16


@pytest.fixture(scope="module")
def oriond_env(tmp_path_factory):
    """One for all: who asks leaves nothing behind."""
    with host.running(tmp_path_factory.mktemp("usage")) as env:
        yield env


@pytest.fixture(autouse=True)
def settled(oriond_env):
    """The last test's processes are gone."""
    assert host.wait_for(oriond_env.idle)


def question(env, **changes):
    _, generation = header(env)
    return {"transport": "shm", "domain": env.uuid, "generation": generation, "machine": "-", "want": "live"} | changes


def usage(env, token=None, **changes):
    """The server's last answer to a USAGE, None where it hung up."""
    with Guest(env.server) as guest:
        asked = guest.send("USAGE", **question(env, **changes))
        answer = guest.receive()
        if answer is None or answer[0] != "CHALLENGE":
            return answer
        proof = hmac.new(token or header(env)[0], bytes.fromhex(answer[1]["nonce"]) + asked, hashlib.sha256).hexdigest()
        guest.send("AUTH", hmac=proof)
        return guest.receive()


def processes(answer):
    verb, fields = answer
    assert verb == "USAGE", answer
    return [value.split()[:3] for key, value in fields.items() if key.startswith("process.")]


def test_live_and_all(oriond_env):
    verb, live = usage(oriond_env)
    assert verb == "USAGE" and set(live) == {"live", "card.0"}
    assert " 60=30 " in f" {live['card.0']} "
    verb, everything = usage(oriond_env, want="all")
    assert {"driver", "nvml", "live", "card.0"} <= set(everything)
    assert set(live["card.0"].split()) < set(everything["card.0"].split())


def test_a_process_shows_to_its_own_domain(oriond_env):
    with Guest(oriond_env.server) as guest:
        assert greet(oriond_env, guest, vgpus="5", pid=os.getpid())[0] == "WELCOME"
        assert processes(usage(oriond_env)) == [[str(os.getpid()), "5", "0"]]
        assert processes(usage(oriond_env, transport="tcp", machine=MACHINE)) == []


def test_a_process_over_tcp_shows_to_its_own_machine(oriond_env):
    with Guest(oriond_env.server) as guest:
        assert greet(oriond_env, guest, transport="tcp", domain="-", machine=MACHINE, pid=77)[0] == "WELCOME"
        assert processes(usage(oriond_env, transport="tcp", machine=MACHINE)) == [["77", "0", "0"]]
        assert processes(usage(oriond_env, transport="tcp", machine=OTHER)) == []
        assert processes(usage(oriond_env, transport="tcp", machine="-")) == []
        assert processes(usage(oriond_env)) == []


def test_a_machine_without_an_id_shows_nothing(oriond_env):
    with Guest(oriond_env.server) as guest:
        assert greet(oriond_env, guest, transport="tcp", domain="-", machine="-")[0] == "WELCOME"
        assert processes(usage(oriond_env, transport="tcp", machine="-")) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": b"x" * 16}, "NOT_PERMITTED"),
        ({"generation": 1}, "NO_DEVICE"),
        ({"domain": "00000000-0000-0000-0000-000000000001"}, "NO_DEVICE"),
        ({"domain": "nonsense"}, "UNKNOWN"),
        ({"transport": "pigeon"}, "UNKNOWN"),
        ({"transport": "tcp", "machine": "zz" * 16}, "UNKNOWN"),
        ({"transport": "tcp", "machine": "ab"}, "UNKNOWN"),
    ],
    ids=lambda value: str(value),
)
def test_who_proves_nothing_learns_nothing(oriond_env, changes, code):
    verb, fields = usage(oriond_env, **changes)
    assert verb == "REFUSED" and fields["code"] == CODES[code], fields


@pytest.mark.parametrize("vgpus", ["32", "-1", "a", "0,,1", ",".join(["0"] * 33)])
def test_bad_vgpus_are_refused(oriond_env, vgpus):
    with Guest(oriond_env.server) as guest:
        verb, fields = greet(oriond_env, guest, vgpus=vgpus, allocation=str(uuid.uuid4()))
    assert verb == "REFUSED" and fields["code"] == CODES["UNKNOWN"] and fields["reason"] == "vgpus is not a list of numbers"
