# SPDX-License-Identifier: Apache-2.0
"""Every call of the controller: its path, who may make it, what it answers as text and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from orion_virt import credential
from orion_virt.config import join_addr
from orion_virt.controller import registration, reports
from orion_virt.controller.doors import is_loopback
from orion_virt.controller.overview import overview
from orion_virt.controller.pool import WAIT_MAX_SECONDS, Pool
from orion_virt.errors import Forbidden, NotFound, ProtocolError
from orion_virt.model.allocation import Client
from orion_virt.model.pool import Request as Wish
from orion_virt.model.pool import Server
from orion_virt.units import MIB

_GROUP = re.compile(r"[A-Za-z0-9_]{1,64}")
VERSIONS = "data_version=0.1,api_version=0.1"


@dataclass(frozen=True)
class Question:
    """One call: what was said, and what is known of the caller."""

    query: dict[str, str]
    name: str  # what the path ends with, where the call has a name
    body: bytes
    peer_ip: str
    local_ip: str  # our address that the caller dialled
    is_server: bool  # showed the server credential
    is_watcher: bool = False  # showed the monitoring token: sees everything, changes nothing

    @property
    def is_local(self) -> bool:
        """Whether it came from this machine."""
        return is_loopback(self.peer_ip) or self.peer_ip == self.local_ip


@dataclass(frozen=True)
class Answer:
    """The text for scripts, the object for /v1/."""

    text: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Call:
    """``path`` may end in {name}. The first of ``methods`` is the documented one; old scripts use the others."""

    path: str
    methods: tuple[str, ...]
    answer: Callable[[Pool, Question], Awaitable[Answer]]
    summary: str
    schema: str  # of the JSON answer, in openapi.SCHEMAS
    query: dict[str, str] = field(default_factory=dict)  # name: description
    body: str = ""  # schema of the JSON body
    server_only: bool = False
    watchers: bool = False  # of one that is for servers only: who watches may make it too
    text: bool = True  # exists outside /v1/ too
    refusals: tuple[int, ...] = ()


def _number(question: Question, key: str, default: int | None, most: int = 999999999) -> int | None:
    text = question.query.get(key)
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > most:
        raise ProtocolError(f"{key}={text!r} is not a whole number" + (f" from 0 to {most}" if most < 999999999 else ""))
    return int(text)


def _json(question: Question) -> dict[str, Any]:
    """Raises ProtocolError. An empty body is an empty object."""
    try:
        data = json.loads(question.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the body is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ProtocolError("the body is not a JSON object")
    return data


async def _info(pool: Pool, question: Question) -> Answer:
    return Answer(VERSIONS, {"data_version": "0.1", "api_version": "0.1"})


async def _devices(pool: Pool, question: Question) -> Answer:
    resource = question.query.get("res", "nvidia_cuda")
    if resource != "nvidia_cuda":
        raise NotFound(f"resource {resource!r} is unknown", hint="Known: nvidia_cuda")
    state = await pool.state()
    total, free = state.counts()
    servers = [registration.describe(server) for _, server in sorted(state.servers.items())]
    data = {"total": total, "free": free, "waiting": len(state.waiters), "servers": servers}
    if question.query.get("used", "false").lower() == "true":
        return Answer(f"res=nvidia_cuda,free={free}", data)
    return Answer(f"res=nvidia_cuda,total={total}", data)


async def _service(pool: Pool, question: Question) -> Answer:
    memory = _number(question, "memory", None)
    count = _number(question, "nvidia_vgpu", 1)
    wait = _number(question, "wait", None, WAIT_MAX_SECONDS)
    assert count is not None
    client = Client(question.peer_ip, question.query.get("owner", "")[:128])
    if question.is_server:  # on behalf of a domain whose region it is asked through
        client = replace(client, domain=question.query.get("domain", "")[:64])
    group = question.query.get("group", "")
    if group and not _GROUP.fullmatch(group):
        raise ProtocolError(f"group={group!r} is not valid", hint="Letters, digits and _, at most 64")
    wish = Wish(count, None if memory is None else memory * MIB, client, group=group)
    allocation, server = await pool.grant(wish, wait)
    addr = _reachable(pool, server, question.local_ip)
    places = [f"{addr}/{vgpu.card}/{vgpu.slot}" for vgpu in allocation.vgpus]
    data = registration.describe_allocation(allocation) | {"address": addr}
    return Answer(f"{allocation.uuid},{','.join(places)}", data)


def _reachable(pool: Pool, server: Server, local_ip: str) -> str:
    """The address under which the caller finds the server: the one it found us at, where the server of our machine listens too."""
    ip = local_ip if server.host == pool.host and local_ip in server.addresses else server.name
    return join_addr(ip, server.port)


async def _confirm(pool: Pool, question: Question) -> Answer:
    try:
        holder = registration.parse_holder(_json(question))
    except (ValueError, TypeError, AttributeError) as error:
        raise ProtocolError(f"the body is not understood: {error!r}") from error
    allocation = await pool.confirm(question.name, question.query.get("server", ""), holder)
    return Answer(f"{question.name} confirmed", registration.describe_allocation(allocation))


async def _release(pool: Pool, question: Question) -> Answer:
    await pool.release(question.name)
    return Answer(f"{question.name} released", {"uuid": question.name})


async def _heartbeat(pool: Pool, question: Question) -> Answer:
    status = question.query.get("status", "continue")
    if status == "off":
        await pool.unregister(question.name)
    elif status == "on":
        server, served, opening = registration.parse_registration(question.name, _json(question))
        await pool.register(_placed(pool, question, server), served, opening)
    elif status == "continue":
        await _keep_alive(pool, question, _json(question))
    else:
        raise ProtocolError(f"status={status!r} is unknown", hint="Known: on, off, continue")
    return Answer("ok", {})


def _placed(pool: Pool, question: Question, server: Server) -> Server:
    return replace(server, host=pool.host if question.is_local else "")


async def _keep_alive(pool: Pool, question: Question, data: dict[str, Any]) -> None:
    """A body with GPUs also tells what has changed of the server."""
    boot = data.get("boot")
    if not isinstance(boot, str):
        raise ProtocolError("the heartbeat's body is not understood: it tells no boot")
    now = None
    if "gpus" in data:
        now = _placed(pool, question, registration.parse_registration(question.name, data | {"allocations": []})[0])
    await pool.keep_alive(question.name, boot, now)


async def _allocations(pool: Pool, question: Question) -> Answer:
    found = [registration.describe_allocation(a) for a in (await pool.state()).live()]
    return Answer("\n".join(item["uuid"] for item in found), {"allocations": found})


async def _reservations(pool: Pool, question: Question) -> Answer:
    state = await pool.state()
    found = [registration.describe_reservation(state, reservation) for _, reservation in sorted(state.reservations.items())]
    return Answer("", {"reservations": found})


async def _reserve(pool: Pool, question: Question) -> Answer:
    reservation = registration.parse_reservation(question.name, _json(question))
    await pool.reserve(reservation)
    return Answer("", registration.describe_reservation(await pool.state(), reservation))


async def _unreserve(pool: Pool, question: Question) -> Answer:
    await pool.unreserve(question.name)
    return Answer("", {})


async def _usage(pool: Pool, question: Question) -> Answer:
    report = reports.parse(_json(question))
    if question.name not in (await pool.state()).servers:
        raise NotFound(f"server {question.name} is not registered", hint="Send a heartbeat with status=on")
    pool.reports.add(question.name, report)
    return Answer("ok", {})


async def _overview(pool: Pool, question: Question) -> Answer:
    return Answer("", overview(await pool.state(), pool.reports))


_BOTH = ("GET", "POST")
CALLS = (
    Call("/info", _BOTH, _info, "The versions of data and interface", "Info"),
    Call("/devices", _BOTH, _devices, "How many vGPUs there are, and on which servers", "Devices",
         {"res": "nvidia_cuda, the default", "used": "true: the text tells the free ones"}, refusals=(404,)),
    Call("/service", _BOTH, _service, "Asks for vGPUs, all of one server; they expire when no server confirms them", "Granted",
         {"nvidia_vgpu": "how many, 1 to 32; default 1", "memory": "MiB of each; default: a card's share",
          "wait": f"seconds to wait in the queue, at most {WAIT_MAX_SECONDS}",
          "group": "name of a group of the client's processes that share one allocation",
          "owner": "key of the domain that asks, made from its region",
          "domain": "from a server: UUID of the domain on whose behalf it asks"}, refusals=(400, 409, 503)),
    Call("/service/confirm/{name}", ("POST", "GET"), _confirm, "A server says that a client has come for its allocation",
         "Allocation", {"server": "name of the server"}, "Holder", True, refusals=(400, 403, 404, 409, 503)),
    Call("/service/release/{name}", ("POST", "GET"), _release, "Frees an allocation", "Released", server_only=True,
         refusals=(403, 404, 503)),
    Call("/heartbeat/{name}", ("POST",), _heartbeat, "A server registers, keeps itself alive, or leaves", "Nothing",
         {"status": "on, continue or off", "res": "nvidia_cuda"}, "Registration", True, refusals=(400, 403, 404, 503)),
    Call("/usage/{name}", ("POST",), _usage, "A server tells how busy its cards and the processes on them are", "Nothing",
         body="Report", server_only=True, text=False, refusals=(400, 403, 404, 503)),
    Call("/overview", ("GET",), _overview, "Hosts, cards, domains and who has what, as the web page shows it", "Overview",
         server_only=True, watchers=True, text=False, refusals=(403, 503)),
    Call("/allocations", _BOTH, _allocations, "Who holds what", "Allocations", server_only=True, refusals=(403, 503)),
    Call("/reservations", ("GET",), _reservations, "What is reserved for domains", "Reservations", server_only=True, text=False,
         refusals=(403, 503)),
    Call("/reservations/{name}", ("PUT",), _reserve, "Keeps vGPUs for the domain of this UUID", "Reservation",
         body="Wanted", server_only=True, text=False, refusals=(400, 403, 409, 503)),
    Call("/reservations/{name}", ("DELETE",), _unreserve, "Ends a reservation", "Nothing", server_only=True, text=False,
         refusals=(403, 404, 503)),
)


async def respond(call: Call, pool: Pool, question: Question) -> Answer:
    """Raises OrionError."""
    if call.server_only and not (question.is_server or call.watchers and question.is_watcher):
        if call.watchers:
            raise Forbidden("this call is for who watches the host", hint="Send the token that `orion-virt web` prints: "
                            "Authorization: Bearer TOKEN")
        raise Forbidden("this call is for servers only", hint=f"Send the server credential in {credential.HEADER}")
    return await call.answer(pool, question)
