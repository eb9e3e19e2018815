# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics: families of what is so at the moment, counters that grow, and the text of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

disable_created_metrics()

Rows = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the sample's."""


def gauge(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """``name`` without _total, which the text adds."""
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows) -> Metric:
    for values, value in rows:
        family.add_metric(list(values), value)
    return family


class Page(Collector):
    """What one daemon exports. ``registry``: for counters that it increments itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._families: Iterable[Metric] = ()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)

    def text(self, families: Iterable[Metric], accept: str) -> tuple[bytes, str]:
        """The families and the counters as text, and its Content-Type; ``accept``: the request's header."""
        encoder, content_type = choose_encoder(accept)
        self._families = list(families)
        return encoder(self.registry), content_type
