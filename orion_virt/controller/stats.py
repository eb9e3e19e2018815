# SPDX-License-Identifier: Apache-2.0
"""What a controller counts of the requests that it answers, and what it exports of its state."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric

from orion_virt.errors import OrionError, QuotaExceeded
from orion_virt.metrics import Page, gauge
from orion_virt.model.allocation import State as Stage
from orion_virt.model.placement import KINDS
from orion_virt.model.pool import State

REASONS = (*KINDS, "too_many_waiting")
_BUCKETS = (0.01, 0.1, 1, 10, 60, 600, 3600, 36000)
_CARD = ("host", "gpu")


class Stats:
    """Of this controller alone; its state may be a pool's."""

    def __init__(self) -> None:
        self._page = Page()
        registry = self._page.registry
        self._requests = Counter("orion_controller_requests", "Requests for vGPUs, by what came of them", ["outcome"], registry=registry)
        self._refusals = Counter("orion_controller_refusals", "Requests that were refused", ["reason"], registry=registry)
        self._wait = Histogram("orion_controller_request_wait_seconds", "From a request for vGPUs to its answer, the time in the "
                               "queue included", ["outcome"], buckets=_BUCKETS, registry=registry)
        self._http = Counter("orion_controller_http_requests", "Calls of the HTTP interface", ["call", "status"], registry=registry)
        for outcome in ("granted", "shared", "refused", "failed", "abandoned"):
            self._requests.labels(outcome)
        for reason in REASONS:
            self._refusals.labels(reason)

    def refused(self, reason: str) -> None:
        """``reason``: one of REASONS."""
        self._refusals.labels(reason).inc()

    def called(self, call: str, status: int) -> None:
        """``call``: a path that we know, never what was sent."""
        self._http.labels(call, str(status)).inc()

    @contextmanager
    def request(self) -> Iterator[list[str]]:
        """Times a request; its outcome is what the caller puts into the list, else how it ended."""
        began, outcome = time.monotonic(), ["abandoned"]
        try:
            yield outcome
        except OrionError as error:
            outcome.append("refused" if isinstance(error, QuotaExceeded) else "failed")
            raise
        finally:
            self._requests.labels(outcome[-1]).inc()
            self._wait.labels(outcome[-1]).observe(time.monotonic() - began)

    def text(self, state: State, accept: str) -> tuple[bytes, str]:
        """All metrics and their Content-Type."""
        return self._page.text((*_pool(state), *_cards(state), *_domains(state)), accept)


def _pool(state: State) -> Iterator[Metric]:
    live = state.live()
    yield gauge("orion_controller_hosts", "Hosts that are registered", (), [((), len(state.servers))])
    yield gauge("orion_controller_allocations", "Live allocations: granted ones are waited for by their server", ("state",),
                (((stage.value,), sum(a.state is stage for a in live)) for stage in Stage))
    yield gauge("orion_controller_queue_requests", "Requests that wait for vGPUs (ORION_WAIT)", (), [((), len(state.waiters))])
    yield gauge("orion_controller_queue_vgpus", "vGPUs that they ask for", (), [((), sum(w.request.count for w in state.waiters.values()))])


def _cards(state: State) -> Iterator[Metric]:
    cards = [((load.name, str(card.card.index)), card) for load in state.loads() for card in load.cards]
    yield gauge("orion_controller_gpu_info", "A card's name; always 1", (*_CARD, "name"), (((*at, c.card.name), 1) for at, c in cards))
    yield gauge("orion_controller_gpu_vgpus", "vGPUs of the card", _CARD, ((at, c.card.slots) for at, c in cards))
    yield gauge("orion_controller_gpu_vgpus_used", "vGPUs of the card that are granted", _CARD, ((at, len(c.used_slots)) for at, c in cards))
    yield gauge("orion_controller_gpu_memory_size_bytes", "Memory of the card", _CARD, ((at, c.card.total_bytes) for at, c in cards))
    yield gauge("orion_controller_gpu_memory_granted_bytes", "Memory of the card that is granted, contexts included", _CARD,
                ((at, c.used_bytes) for at, c in cards))


def _domains(state: State) -> Iterator[Metric]:
    vgpus: dict[str, int] = {}
    memory: dict[str, int] = {}
    for allocation in state.live():
        domain = state.domain_of_allocation(allocation) or "none"
        vgpus[domain] = vgpus.get(domain, 0) + len(allocation.vgpus)
        memory[domain] = memory.get(domain, 0) + sum(v.memory_bytes for v in allocation.vgpus)
    yield gauge("orion_controller_domain_vgpus", "vGPUs that a domain's processes have", ("domain",), (((d,), n) for d, n in vgpus.items()))
    yield gauge("orion_controller_domain_memory_bytes", "Memory of these", ("domain",), (((d,), n) for d, n in memory.items()))
    yield gauge("orion_controller_reserved_vgpus", "vGPUs that are reserved for a domain", ("domain",),
                (((r.domain,), r.vgpus) for r in state.reservations.values()))
    yield gauge("orion_controller_reserved_vgpus_free", "vGPUs that a domain has not yet taken of what is reserved for it", ("domain",),
                (((domain,), state.reserved_for(domain)) for domain in state.reservations))
