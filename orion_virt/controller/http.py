# SPDX-License-Identifier: Apache-2.0
"""The controller's HTTP face: the plain-text calls that clients and scripts know, and the same as JSON under /v1/."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import http_exceptions, web

from orion_virt import credential
from orion_virt.config import join_addr
from orion_virt.controller import openapi, page
from orion_virt.controller.calls import CALLS, Answer, Call, Question, respond
from orion_virt.controller.doors import Doors, is_loopback
from orion_virt.controller.pool import Pool
from orion_virt.errors import Forbidden, NotFound, OrionError, ProtocolError, QuotaExceeded

_BODY_MAX = 1 << 20
_BODY_SECONDS = 10
_WILDCARDS = ("0.0.0.0", "::")
_log = logging.getLogger("orion.controller")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_FINAL = "Orion-Final"  # of a refusal that no waiting changes; the guest's client looks for it
_DOCUMENT = "/v1/openapi.json"


def _plain_ip(ip: str) -> str:
    """A v4 address that came over a v6 socket, as v4."""
    return ip[7:] if ip.startswith("::ffff:") else ip


def _address(request: web.Request, which: str) -> str:
    found = request.transport.get_extra_info(which) if request.transport is not None else None
    return _plain_ip(str(found[0])) if found else ""


def _reply(request: web.Request, status: int, text: str, data: dict[str, Any]) -> web.Response:
    if request.path.startswith("/v1/"):
        return web.json_response(data, status=status)
    return web.Response(text=text, status=status)


async def _body(request: web.Request) -> bytes:
    if (request.content_length or 0) > _BODY_MAX:
        raise ProtocolError("Content-Length is not acceptable")
    try:
        return await asyncio.wait_for(request.read(), _BODY_SECONDS)
    except asyncio.TimeoutError:
        raise ProtocolError(f"the body did not come within {_BODY_SECONDS} s") from None


def _translated(request: web.Request, error: web.HTTPException) -> OrionError:
    """What the framework refuses, in our words."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        what = request.path.removeprefix("/v1").strip("/").split("/")[0]
        return ProtocolError(f"{what} is sent with {' or '.join(sorted(error.allowed_methods - {'HEAD'}))}")
    if error.status == 404:
        return NotFound(f"{request.path.removeprefix('/v1')} is unknown", hint="See /info, /devices, /service")
    return ProtocolError(f"the request is not acceptable: {error.reason}")


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """A call that fails answers its status and one line."""
    try:
        answer = await handler(request)
    except (OrionError, web.HTTPException) as raised:
        error = raised if isinstance(raised, OrionError) else _translated(request, raised)
        answer = _reply(request, error.http_status, str(error), {"error": error.message, "hint": error.hint})
        if isinstance(error, QuotaExceeded) and error.final:
            answer.headers[_FINAL] = "1"
    _log.debug("%s %s %s: %d", request.remote, request.method, request.path, answer.status)
    return answer


class _Refusals(logging.Filter):
    """What is no HTTP is its sender's mistake, and anybody can send it: a line at INFO, without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, http_exceptions.HttpProcessingError):
            why = " ".join(error.message.split())
            record.msg, record.args = "refused a request of %s: %.200s", (*(record.args or ("?",)), why)
            record.levelno, record.levelname, record.exc_info = logging.INFO, "INFO", None
        return True


_http_log = logging.getLogger("orion.controller.http")
_http_log.addFilter(_Refusals())


class Controller:
    """Serves one pool at every address that `doors` opens."""

    def __init__(self, pool: Pool, secret: str, token: str = "", watch_token: str = "") -> None:
        """``secret``: of servers. ``token``: what callers from the local network must send, ``watch_token``: who watches;
        "": none may."""
        self.pool = pool
        self._secret, self._token, self._watch_token = secret, token, watch_token
        self._runner = web.AppRunner(self._application(), access_log=None, logger=_http_log, keepalive_timeout=10,
                                     handler_cancellation=True, shutdown_timeout=1)
        self.doors = Doors(self._runner)
        self._gateway_port = 0

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._counted, _errors], client_max_size=_BODY_MAX)
        for call in CALLS:
            for method in call.methods:
                app.router.add_route(method, f"/v1{call.path}", self._handler(call))
                if call.text:
                    app.router.add_route(method, call.path, self._handler(call))
        app.router.add_route("GET", _DOCUMENT, self._document)
        app.router.add_get("/metrics", self._metrics)
        page.add_to(app)
        app.on_response_prepare.append(_sign)
        return app

    async def start(self) -> None:
        await self.pool.start()
        await self._runner.setup()

    async def stop(self) -> None:
        await self.doors.stop()
        await self._runner.cleanup()
        await self.pool.stop()

    def follow_gateways(self, port: int) -> None:
        """From now on also serves, at this port, where servers of this host say that they do."""
        self._gateway_port = port

    async def _meet(self, question: Question) -> None:
        """A server of this host has registered: where it listens, guests look for us too."""
        server = (await self.pool.state()).servers.get(question.name)
        if self._gateway_port == 0 or server is None or not question.is_local:
            return
        for ip in server.addresses:
            if is_loopback(ip) or ip in _WILDCARDS or not self.doors.is_guarded(ip):
                continue
            try:
                await self.doors.open(ip, self._gateway_port, gateway=True)
                _log.info("listening on %s", join_addr(ip, self._gateway_port))
            except OrionError as error:
                _log.warning("%s", error)

    async def _document(self, request: web.Request) -> web.Response:
        self._admit(request, _address(request, "sockname"))
        return web.json_response(openapi.document())

    @web.middleware
    async def _counted(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        answer = await handler(request)
        resource = request.match_info.route.resource
        self.pool.stats.called("unknown" if resource is None else resource.canonical.removeprefix("/v1"), answer.status)
        return answer

    async def _metrics(self, request: web.Request) -> web.Response:
        is_server, is_watcher = self._admit(request, _address(request, "sockname"), watched=True)
        if not (is_server or is_watcher):
            raise Forbidden("metrics are for who watches the host", hint="Send the token that `orion-virt web` prints: "
                            "Authorization: Bearer TOKEN")
        body, content_type = self.pool.stats.text(await self.pool.state(), request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _handler(self, call: Call) -> _Handler:
        async def handle(request: web.Request) -> web.Response:
            answer = await self._answer(call, request)
            return _reply(request, 200, answer.text, answer.data)

        return handle

    async def _answer(self, call: Call, request: web.Request) -> Answer:
        local_ip = _address(request, "sockname")
        is_server, is_watcher = self._admit(request, local_ip, call.watchers)
        question = Question(dict(request.query), request.match_info.get("name", ""), await _body(request),
                            _address(request, "peername"), local_ip, is_server, is_watcher)
        answer = await respond(call, self.pool, question)
        if call.path.startswith("/heartbeat/") and question.query.get("status") == "on":
            await self._meet(question)
        return answer

    def _admit(self, request: web.Request, local_ip: str, watched: bool = False) -> tuple[bool, bool]:
        """Whether it is a server, whether it is one who watches. Raises Forbidden for a stranger of the local network.

        ``watched``: the call is one that who watches may make; any other one the monitoring token does not open.
        """
        is_server = credential.matches(request.headers.get(credential.HEADER), self._secret)
        given = credential.bearer(request.headers)
        is_watcher = watched and bool(self._watch_token) and credential.matches(given, self._watch_token)
        if not (is_server or is_watcher) and self.doors.is_guarded(local_ip):
            if not self._token or not credential.matches(given, self._token):
                raise Forbidden(f"this controller wants a token from who comes through {local_ip}",
                                hint="Set ORION_TOKEN (client.conf: [controller] token) to the controller's")
        return is_server, is_watcher


async def _sign(request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers["Server"] = "orion-controller"
