# SPDX-License-Identifier: Apache-2.0
"""What oriond's metrics are made of: sums over channels, time on cards from samples, waiting turns, names of domains."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from orion_virt import errors, layout
from orion_virt.config import parse_server
from orion_virt.errors import ConfigError, OrionError, Unavailable
from orion_virt.server import tally as tallies
from orion_virt.server import turns, usage
from orion_virt.server.names import Names
from orion_virt.server.sensors import Look
from orion_virt.server.tally import Tally


def channel(owner: str = "ann", card: int = 0, slot: int = 0, calls: int = 5, copied: int = 7, seconds: float = 0.5, **more: Any) -> Any:
    return SimpleNamespace(owner=owner, allocation={"vgpus": [{"card": card, "slot": slot}, {"card": card, "slot": slot + 1}]},
                           rate=SimpleNamespace(counts=(calls, copied)), gpu_seconds={card: seconds}, closed=layout.CLOSED_BY_GUEST,
                           worker=SimpleNamespace(pid=100 + slot), **more)


# ---- sums ----


def test_sums_do_not_go_back_when_a_channel_ends() -> None:
    tally, one, other = Tally(), channel(), channel("bob", 1, 2, calls=11)
    live = [one, other]
    for _ in range(2):
        assert tally.domains(live)["ann"].calls == 5 and tally.domains(live)["bob"].calls == 11
        assert tally.places(live)[0, 0].copied_bytes == 7 and tally.gpu_seconds(live) == {0: 0.5, 1: 0.5}
        if one in live:
            live.remove(one)
            tally.ended(one)
    assert tally.domains([one])["ann"].calls == 10 and tally.ends["guest"] == 1


def test_domains_are_bounded() -> None:
    tally = Tally()
    for n in range(tallies.MAX_DOMAINS + 10):
        tally.ended(channel(f"d{n}"))
        tally.ended(channel("always"))
    assert len(tally.domains([])) == tallies.MAX_DOMAINS
    assert "always" in tally.domains([]) and "d0" not in tally.domains([])


def test_nothing_proven_is_nobody() -> None:
    tally = Tally()
    tally.ended(channel(owner="", domain="made-up"))
    assert set(tally.domains([])) == {tallies.NOBODY}


def test_every_error_and_end_has_its_word() -> None:
    tally = Tally()
    kinds = [kind for kind in OrionError.__subclasses__() if kind.__module__ == errors.__name__]
    for kind in kinds:
        tally.refused(kind)
    assert tally.refusals["other"] == 0 and set(tally.refusals.values()) == {0, 1} and len(kinds) == len(tally.refusals) - 1
    tally.refused(errors.OrionError)
    tally.refused(type("Busy", (Unavailable,), {}))
    assert tally.refusals["other"] == 1 and tally.refusals["unavailable"] == 2
    assert set(tallies.ENDS) == set(layout.CLOSE_WORDS) - {0}


# ---- time on cards ----


class Channels:
    def __init__(self, *live: Any) -> None:
        self.live = list(live)

    def of(self, uuid: None) -> list[Any]:
        return self.live


class Sensors:
    """Load of process 100 on card 0 as given."""

    def __init__(self, percent: int) -> None:
        self.last, self.percent = Look(), percent

    async def look(self, pids: Any) -> Look:
        return self.last

    def anew(self) -> None:
        self.last = Look([{}], [{100: (self.percent, 0)}])


def test_each_sample_counts_once_and_for_no_longer_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now, sensors, busy, idle = [100.0], Sensors(40), channel(seconds=0.0), channel(slot=4, seconds=0.0)
    monkeypatch.setattr(usage.time, "monotonic", lambda: now[0])
    made = usage.Usage(SimpleNamespace(gpus=(), version_text="", nvml_version="", pairs={}), Channels(busy, idle), sensors)  # type: ignore[arg-type]

    async def run() -> None:
        sensors.anew()
        await made.look()  # the first one says nothing of the time before it
        for wait in (2.0, 0.0, 1000.0):
            now[0] += wait
            if wait:
                sensors.anew()
            await made.look()
            await made.look()  # whoever asks again

    asyncio.run(run())
    assert busy.gpu_seconds == {0: pytest.approx(0.4 * (2.0 + usage.LONGEST_SAMPLE_SECONDS))} and idle.gpu_seconds == {0: 0.0}


def test_who_is_idle_is_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(usage, "SAMPLE_SECONDS", 0.001)
    sensors, one = Sensors(0), channel(id=1)
    made = usage.Usage(SimpleNamespace(gpus=(), version_text="", nvml_version="", pairs={}), Channels(one), sensors)  # type: ignore[arg-type]

    async def look() -> Look:
        looks.append(one.rate.counts)
        return Look()

    async def run() -> None:
        monkeypatch.setattr(made, "look", look)
        task = asyncio.create_task(made._sample_forever())
        await asyncio.sleep(0.1)
        one.rate.counts = (6, 7)
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(run())
    assert looks == [(5, 7), (6, 7)]


# ---- turns ----


def test_waiting_for_turns_is_counted() -> None:
    async def run() -> None:
        cards = turns.CardTurns("on", 2)
        holders = [SimpleNamespace(id=n, allocation={"vgpus": [{"card": 0}]}, turn=lambda *_: None) for n in (1, 2)]
        for holder in holders:
            cards.join(holder, 0)
        cards.want(1, 0)
        assert cards.waiting(0) == 0  # it was free
        cards.want(2, 0)
        assert cards.waiting(0) == 1 and cards.waiting(1) == 0
        await asyncio.sleep(0.01)
        cards.done(1, 0)
        assert cards.waiting(0) == 0 and cards.waited_seconds[0] > 0
        cards.want(1, 0)
        cards.leave(1)
        assert cards.waiting(0) == 0
        cards.leave(2)

    asyncio.run(run())


# ---- names ----


def test_names_are_asked_for_when_they_are_needed() -> None:
    now, asked, answer = [0.0], [], {"by_uuid": {"u": "vm"}}

    async def command(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(now[0])
        if isinstance(answer["by_uuid"], Exception):
            raise answer["by_uuid"]
        return answer

    async def known(at: float, *uuids: str) -> dict[str, str]:
        now[0] = at
        return await names.known(uuids)

    names = Names(lambda: command, lambda: now[0])
    assert asyncio.run(known(0, "u")) == {"u": "vm"} and asyncio.run(known(29, "u")) == {"u": "vm"} and asked == [0]
    assert asyncio.run(known(29.5, "new")) == {"u": "vm"} and asyncio.run(known(30, "new")) == {"u": "vm"} and asked == [0, 29.5]
    answer["by_uuid"] = Unavailable("libvirt is down")  # type: ignore[assignment]
    assert asyncio.run(known(100, "u")) == {"u": "vm"} and asked == [0, 29.5, 100]
    assert asyncio.run(Names(lambda: None).known(["u"])) == {}


def test_a_libvirt_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orion_virt.server.names._ANSWER_SECONDS", 0.01)

    async def command(request: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(3600)
        return {}

    assert asyncio.run(Names(lambda: command).known(["u"])) == {}


# ---- server.conf ----


@pytest.mark.parametrize(("value", "addr"), [("off", ""), ("127.0.0.1", "127.0.0.1:9464"), ("127.0.0.1:1", "127.0.0.1:1"), ("[::1]:9", "[::1]:9"),
                                             ("::1", "[::1]:9464"), ('"192.0.2.1:9464"', "192.0.2.1:9464")])
def test_where_metrics_are_served(value: str, addr: str) -> None:
    assert parse_server(f"[server]\nmetrics = {value}\n", "server.conf", {}).metrics_addr == addr


@pytest.mark.parametrize("value", ["on", "host:9464", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", ""])
def test_where_they_cannot(value: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.conf:2: \[server\] metrics = .* is not valid\. Accepted: off, or IP address:port"):
        parse_server(f"[server]\nmetrics = {value}\n", "server.conf", {})


def test_certificate_and_key_belong_together() -> None:
    for key in ("metrics_tls_cert", "metrics_tls_key"):
        with pytest.raises(ConfigError, match=r"server\.conf:3: .*belong together"):
            parse_server(f"[server]\nmetrics = 127.0.0.1\n{key} = /x.pem\n", "server.conf", {})
