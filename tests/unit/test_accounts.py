# SPDX-License-Identifier: Apache-2.0
"""oriond's side of the controller, against one whose answers come when the test wants."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from orion_virt.server.accounts import Accounts


class Controller:
    """Knows what the last registration told of, less what was released since. `order`: in which it does what it was asked."""

    def __init__(self, order: list[str]) -> None:
        self.live: set[str] = set()
        self.nr_told = 0
        self._order, self._next = order, asyncio.Condition()

    async def _turn(self, what: str) -> None:
        async with self._next:
            await self._next.wait_for(lambda: not self._order or self._order[0] == what)
            if self._order:
                self._order.pop(0)
            self._next.notify_all()

    async def heartbeat(self, request: web.Request) -> web.Response:
        if request.query["status"] == "on":
            body = await request.json()
            await self._turn("register")
            self.live = {allocation["uuid"] for allocation in body["allocations"]}
            self.nr_told += 1
            await self._turn("answer register")
        return web.json_response({})

    async def release(self, request: web.Request) -> web.Response:
        await self._turn("release")
        self.live.discard(request.match_info["uuid"])
        await self._turn("answer release")
        return web.json_response({})


async def _released_meanwhile(order: list[str]) -> Controller:
    controller, ours = Controller(order), {"one", "two"}
    app = web.Application()
    app.router.add_post("/v1/heartbeat/{name}", controller.heartbeat)
    app.router.add_post("/v1/service/release/{uuid}", controller.release)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]

    def describe() -> dict[str, Any]:
        return {"name": "here", "allocations": [{"uuid": uuid} for uuid in sorted(ours)]}

    accounts = Accounts(f"127.0.0.1:{port}", "secret", describe)
    accounts.start()
    try:
        await asyncio.sleep(0)  # the registration is on its way, with both
        await accounts.release("one")
        ours.discard("one")
        for _ in range(3000):
            if accounts.is_registered and controller.live == ours:
                break
            await asyncio.sleep(0.01)
        return controller
    finally:
        await accounts.stop(for_good=False)
        await runner.cleanup()


@pytest.mark.parametrize("order", [
    ["release", "answer release", "register", "answer register"],
    ["release", "register", "answer register", "answer release"],
    ["register", "release", "answer release", "answer register"],
])  # fmt: skip
def test_what_is_released_while_a_registration_tells_of_it_is_free(order: list[str]) -> None:
    controller = asyncio.run(_released_meanwhile(order))
    assert controller.live == {"two"} and controller.nr_told == 2
