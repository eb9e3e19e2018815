# SPDX-License-Identifier: Apache-2.0
"""All that the web page shows, from one moment: hosts and cards, domains, who has what, how busy it is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from orion_virt.controller.reports import ProcessLoad, Report, Reports
from orion_virt.model.allocation import Allocation
from orion_virt.model.gpu import CardLoad
from orion_virt.model.pool import State

SHOWN_OF_ID = 8  # characters: a whole id is what its client shows to have it
_LOAD = ("used_bytes", "busy_percent", "calls_per_second", "bytes_per_second")
_Load = dict[str, "int | None"]


def overview(state: State, reports: Reports) -> dict[str, Any]:
    reports.keep(state.servers)
    told = {name: reports.of(name) for name in state.servers}
    names = {uuid: name for report in told.values() if report for uuid, name in report.names.items()}
    allocations = [_allocation(state, told[a.server], a, names) for a in state.live()]
    total, free = state.counts()
    return {
        "now": time.time(), "total": total, "free": free, "waiting": len(state.waiters),
        "hosts": [{"name": load.name, "reports": told[load.name] is not None,
                   "gpus": [_card(reports, told[load.name], load.name, card) for card in load.cards]} for load in state.loads()],
        "domains": _domains(state, allocations, names),
        "allocations": allocations,
    }


def _card(reports: Reports, report: Report | None, server: str, load: CardLoad) -> dict[str, Any]:
    now = report.cards.get(load.card.index) if report else None
    return {
        "index": load.card.index, "name": load.card.name, "total_bytes": load.card.total_bytes, "slots": load.card.slots,
        "used_slots": len(load.used_slots), "granted_bytes": load.used_bytes,
        **{key: getattr(now, key, None) for key in ("busy_percent", "used_bytes", "temperature_celsius", "power_watts")},
        "history": reports.history(server, load.card.index),
    }


def _allocation(state: State, report: Report | None, allocation: Allocation, names: dict[str, str]) -> dict[str, Any]:
    domain = state.domain_of_allocation(allocation)
    processes = report.processes.get(allocation.uuid, ()) if report else ()
    return {
        "id": allocation.uuid[:SHOWN_OF_ID], "domain": domain, "domain_name": names.get(domain, ""),
        "client": allocation.holder.client.address or allocation.client.address, "server": allocation.server,
        "state": allocation.state.value, "since": allocation.granted_at, "group": allocation.group,
        "process": allocation.holder.process, "pid": allocation.holder.pid, "processes": max(1, len(processes)),
        "vgpus": [{"card": v.card, "slot": v.slot, "memory_bytes": v.memory_bytes} for v in allocation.vgpus],
        "memory_bytes": sum(v.memory_bytes for v in allocation.vgpus), **_load(processes, report),
    }


def _load(processes: Iterable[ProcessLoad], report: Report | None) -> _Load:
    """Sums; None where the host does not report to us."""
    found = list(processes)
    return {key: None if report is None else sum(getattr(p, key) for p in found) for key in _LOAD}


def _domains(state: State, allocations: list[dict[str, Any]], names: dict[str, str]) -> list[dict[str, Any]]:
    """Those that have something, or for which something is reserved."""
    found = {uuid: [a for a in allocations if a["domain"] == uuid]
             for uuid in {*(a["domain"] for a in allocations), *state.reservations}}
    rows = [{"uuid": uuid, "name": names.get(uuid, ""), "allocations": len(mine), "vgpus": sum(len(a["vgpus"]) for a in mine),
             "reserved": state.reservations[uuid].vgpus if uuid in state.reservations else 0,
             "memory_bytes": sum(a["memory_bytes"] for a in mine),
             **{key: _sum(a[key] for a in mine) for key in _LOAD}} for uuid, mine in found.items()]
    return sorted(rows, key=lambda row: (row["name"] or row["uuid"], row["uuid"]))


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
