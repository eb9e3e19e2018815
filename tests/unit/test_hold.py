# SPDX-License-Identifier: Apache-2.0
"""While a domain is held for a save or migration nothing of it begins, whatever was on its way already."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orion_virt.config import ServerConfig
from orion_virt.errors import Conflict
from orion_virt.model.ceiling import Ceiling
from orion_virt.server.ceilings import Ceilings
from orion_virt.server.channels import Channels

ALLOCATION: dict[str, Any] = {"uuid": "a", "vgpus": [{"memory_bytes": 1}]}


@pytest.fixture
def channels(tmp_path: Path) -> Channels:
    ceilings = Ceilings(tmp_path / "ceilings.json")
    ceilings.put("u1", Ceiling(total=1), [])
    return Channels(ServerConfig(), None, None, None, tmp_path, ceilings)  # type: ignore[arg-type]


def test_what_was_on_its_way_is_refused(channels: Channels) -> None:
    asyncio.run(channels._permit("u1", ALLOCATION))
    assert channels.hold("u1", 30) == []
    with pytest.raises(Conflict, match="saved or migrated"):
        asyncio.run(channels._permit("u1", ALLOCATION))
    asyncio.run(channels._permit("u2", ALLOCATION))
    channels.hold("u1", 0)
    asyncio.run(channels._permit("u1", ALLOCATION))


def test_a_hold_runs_out(channels: Channels) -> None:
    channels.hold("u1", 0.05)

    async def later() -> None:
        await asyncio.sleep(0.1)
        await channels._permit("u1", ALLOCATION)

    asyncio.run(later())


def test_who_waits_for_a_vgpu_that_comes_back_is_refused_too(channels: Channels) -> None:
    async def scene() -> None:
        ended = asyncio.Event()
        channel = SimpleNamespace(
            owner="u1", allocation=ALLOCATION, is_ending=True, ended=ended, stop=lambda reason: None
        )
        channels._live[1] = channel  # type: ignore[assignment]
        waiting = asyncio.create_task(channels._permit("u1", ALLOCATION))
        await asyncio.sleep(0)
        channels.hold("u1", 30)
        del channels._live[1]
        ended.set()
        with pytest.raises(Conflict, match="saved or migrated"):
            await waiting

    asyncio.run(scene())
