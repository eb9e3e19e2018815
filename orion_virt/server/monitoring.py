# SPDX-License-Identifier: Apache-2.0
"""Serves oriond's metrics over HTTP at [server] metrics, to who shows the monitoring token, on loopback too.

A guest behind user-mode networking reaches this host's loopback, and the figures are those of all domains.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from aiohttp import web

from orion_virt import config as configs
from orion_virt import credential, paths, tls
from orion_virt.config import ServerConfig
from orion_virt.errors import OrionError, Unavailable
from orion_virt.server.metrics import Exporter

AGAIN_SECONDS = 10.0
_log = logging.getLogger("orion.metrics")


class Monitoring:
    """For the event loop. What fails here is said, tried again, and keeps no guest from being served."""

    def __init__(self, config: ServerConfig, exporter: Exporter) -> None:
        self._config = config
        self._exporter = exporter
        self._runner: web.AppRunner | None = None
        self._opening: asyncio.Task[None] | None = None
        self.problem = ""

    def start(self) -> None:
        if self._config.metrics_addr:
            self._opening = asyncio.create_task(self._open_at_last(), name="metrics")

    async def stop(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = self._opening = None
        self.problem = ""

    async def reconfigure(self, config: ServerConfig) -> None:
        before, self._config = self._config, config
        if any(getattr(before, key) != getattr(config, key) for key in ("metrics_addr", "metrics_tls_cert", "metrics_tls_key")):
            await self.stop()
            self.start()

    async def _open_at_last(self) -> None:
        while True:
            try:
                await self._open()
                return
            except OrionError as error:
                if str(error) != self.problem:
                    _log.error("metrics are not served, the next try is in %.0f s: %s", AGAIN_SECONDS, error)
                self.problem = str(error)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _open(self) -> None:
        """Raises Unavailable, ConfigError."""
        pair = configs.split_addr(self._config.metrics_addr, configs.DEFAULT_METRICS_PORT)
        assert pair is not None, "config has checked it"
        context = tls.serving("metrics_", self._config.metrics_tls_cert, self._config.metrics_tls_key)
        app = web.Application()
        app.router.add_get("/metrics", self._handler(credential.load(paths.monitor_token())))
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=10, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, *pair, ssl_context=context).start()
        except OSError as error:
            await runner.cleanup()
            raise Unavailable(f"cannot listen on {self._config.metrics_addr}: {os.strerror(error.errno or 0)}",
                              hint="Choose another [server] metrics, or make the address one of this host's") from error
        self._runner, self.problem = runner, ""
        _log.info("metrics are served at http%s://%s/metrics", "s" if context else "", self._config.metrics_addr)

    def _handler(self, token: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def metrics(request: web.Request) -> web.Response:
            if not credential.matches(credential.bearer(request.headers), token):
                return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"},
                                    text=f"Send the token of {paths.monitor_token()}: Authorization: Bearer TOKEN\n")
            body, content_type = await self._exporter.text(request.headers.get("Accept", ""))
            return web.Response(body=body, headers={"Content-Type": content_type})

        return metrics
