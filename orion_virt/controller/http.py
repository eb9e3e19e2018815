# SPDX-License-Identifier: Apache-2.0
"""The controller's HTTP face: the plain-text calls that clients and scripts know, and the same as JSON under /v1/."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from orion_virt import credential
from orion_virt.config import join_addr
from orion_virt.controller import registration
from orion_virt.controller.pool import Pool, Server
from orion_virt.errors import Forbidden, NotFound, OrionError, ProtocolError
from orion_virt.model.allocation import Allocation
from orion_virt.units import MIB

VERSIONS = "data_version=0.1,api_version=0.1"
_BODY_MAX = 1 << 20
_SOCKET_SECONDS = 10

_log = logging.getLogger("orion.controller")


@dataclass(frozen=True)
class Request:
    """One call, its query and what is known of the caller."""

    path: str
    query: dict[str, str]
    body: bytes
    local_ip: str  # our address that the caller dialled
    is_server: bool  # showed the server credential
    post: bool


@dataclass(frozen=True)
class Answer:
    """The text for scripts, the object for /v1/."""

    text: str
    data: dict[str, Any]


def _info(pool: Pool, request: Request) -> Answer:
    return Answer(VERSIONS, {"data_version": "0.1", "api_version": "0.1"})


def _devices(pool: Pool, request: Request) -> Answer:
    resource = request.query.get("res", "nvidia_cuda")
    if resource != "nvidia_cuda":
        raise NotFound(f"resource {resource!r} is unknown", hint="Known: nvidia_cuda")
    total, free = pool.counts()
    data = {"total": total, "free": free, "servers": [registration.describe(s) for s in pool.servers()]}
    if request.query.get("used", "false").lower() == "true":
        return Answer(f"res=nvidia_cuda,free={free}", data)
    return Answer(f"res=nvidia_cuda,total={total}", data)


def _number(request: Request, key: str, default: int | None) -> int | None:
    text = request.query.get(key)
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ProtocolError(f"{key}={text!r} is not a whole number")
    return int(text)


def _service(pool: Pool, request: Request) -> Answer:
    memory = _number(request, "memory", None)
    count = _number(request, "nvidia_vgpu", 1)
    assert count is not None
    allocation, server = pool.grant(count, None if memory is None else memory * MIB)
    addr = _reachable(server, request.local_ip)
    places = [f"{addr}/{vgpu.card}/{vgpu.slot}" for vgpu in allocation.vgpus]
    return Answer(f"{allocation.uuid},{','.join(places)}", _describe(allocation) | {"address": addr})


def _reachable(server: Server, local_ip: str) -> str:
    """The address under which the caller finds the server: the one it found us at, where the server listens there too."""
    ip = local_ip if local_ip in server.addresses else server.name
    return join_addr(ip, server.port)


def _describe(allocation: Allocation) -> dict[str, Any]:
    return registration.describe_allocation(allocation)


def _must_be_server(request: Request) -> None:
    if not request.is_server:
        raise Forbidden("this call is for servers only", hint=f"Send the server credential in {credential.HEADER}")


def _confirm(pool: Pool, request: Request, uuid: str) -> Answer:
    _must_be_server(request)
    allocation = pool.confirm(uuid, request.query.get("server", ""))
    return Answer(f"{uuid} confirmed", _describe(allocation))


def _release(pool: Pool, request: Request, uuid: str) -> Answer:
    _must_be_server(request)
    pool.release(uuid)
    return Answer(f"{uuid} released", {"uuid": uuid})


def _heartbeat(pool: Pool, request: Request, ip: str) -> Answer:
    _must_be_server(request)
    if not request.post:
        raise ProtocolError("heartbeat is sent with POST")
    registration.heartbeat(pool, ip, request.query.get("status", "continue"), request.body)
    return Answer("ok", {})


def _allocations(pool: Pool, request: Request) -> Answer:
    _must_be_server(request)
    found = [_describe(allocation) for allocation in pool.allocations()]
    return Answer("\n".join(item["uuid"] for item in found), {"allocations": found})


_CALLS: dict[str, Callable[[Pool, Request], Answer]] = {
    "info": _info,
    "devices": _devices,
    "service": _service,
    "allocations": _allocations,
}
_CALLS_WITH_NAME: dict[str, Callable[[Pool, Request, str], Answer]] = {
    "service/confirm": _confirm,
    "service/release": _release,
    "heartbeat": _heartbeat,
}


def dispatch(pool: Pool, request: Request) -> Answer:
    """Answers one call. Raises OrionError."""
    path = request.path.strip("/")
    if path in _CALLS:
        return _CALLS[path](pool, request)
    head, _, name = path.rpartition("/")
    if head in _CALLS_WITH_NAME and name:
        return _CALLS_WITH_NAME[head](pool, request, name)
    raise NotFound(f"/{path} is unknown", hint="See /info, /devices, /service")


class Handler(BaseHTTPRequestHandler):
    """One connection; a call that fails answers its status and one line."""

    server: ControllerServer
    protocol_version = "HTTP/1.1"
    server_version = "orion-controller"
    sys_version = ""
    timeout = _SOCKET_SECONDS

    def _serve(self) -> None:
        split = urlsplit(self.path)
        is_json = split.path.startswith("/v1/")
        try:
            request = Request(
                split.path[3:] if is_json else split.path,
                dict(parse_qsl(split.query, keep_blank_values=True)),
                self._body(),
                _plain_ip(self.connection.getsockname()[0]),
                credential.matches(self.headers.get(credential.HEADER), self.server.secret),
                self.command == "POST",
            )
            answer = dispatch(self.server.pool, request)
            self._reply(200, json.dumps(answer.data) if is_json else answer.text, is_json)
        except OrionError as error:
            body = json.dumps({"error": error.message, "hint": error.hint}) if is_json else str(error)
            self._reply(error.http_status, body, is_json)

    do_GET = do_POST = _serve

    def _body(self) -> bytes:
        text = self.headers.get("Content-Length", "0")
        if not text.isascii() or not text.isdigit() or int(text) > _BODY_MAX:
            self.close_connection = True
            raise ProtocolError("Content-Length is not acceptable")
        return self.rfile.read(int(text))

    def _reply(self, status: int, text: str, is_json: bool) -> None:
        raw = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if is_json else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug("%s %s", self.client_address[0], format % args)


def _plain_ip(ip: str) -> str:
    """A v4 address that came over a v6 socket, as v4."""
    return ip[7:] if ip.startswith("::ffff:") else ip


class ControllerServer(ThreadingHTTPServer):
    """Serves one pool."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], pool: Pool, secret: str) -> None:
        self.pool, self.secret = pool, secret
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.info("connection of %s broke off", client_address[0], exc_info=_log.isEnabledFor(logging.DEBUG))
