"""The metrics of :mod:`lifelong.contracts.metrics` as live Prometheus objects."""

from __future__ import annotations

import importlib.metadata

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lifelong.contracts import metrics as names
from lifelong.contracts.metrics import Metric


class Metrics:
    """One registry with every metric of one process. Nothing can be observed that is not in the list of names.

    Not global, so that tests and simulations can run several processes side by side.
    """

    def __init__(self, process: str) -> None:
        self.registry = CollectorRegistry()
        self._live: dict[str, Counter | Gauge | Histogram] = {}
        for metric in names.METRICS:
            if metric.process in ("every", process):
                self._live[metric.name] = self._make(metric)
        self.set(names.UP, 1, process=process, version=_version())

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind == "counter":
            return Counter(metric.name, metric.about, metric.labels, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(metric.name, metric.about, metric.labels, registry=self.registry)
        return Histogram(metric.name, metric.about, metric.labels, registry=self.registry, buckets=metric.buckets)

    def count(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        live = self._live[metric.name]
        assert isinstance(live, Counter)
        (live.labels(**labels) if labels else live).inc(amount)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        live = self._live[metric.name]
        assert isinstance(live, Gauge)
        (live.labels(**labels) if labels else live).set(value)

    def remove(self, metric: Metric, **labels: str) -> None:
        """There is nothing of these labels any more: no series with an old value stays behind."""
        self._live[metric.name].remove(*(labels[name] for name in metric.labels))

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        live = self._live[metric.name]
        assert isinstance(live, Histogram)
        (live.labels(**labels) if labels else live).observe(value)

    def value(self, metric: Metric, **labels: str) -> float:
        """The present value of a counter or gauge, the number of observations of a histogram; for tests and status."""
        suffix = {"counter": "_total", "gauge": "", "histogram": "_count"}[metric.kind]
        sample = metric.name.removesuffix("_total") + suffix
        return self.registry.get_sample_value(sample, labels) or 0.0


def _version() -> str:
    try:
        return importlib.metadata.version("lifelong")
    except importlib.metadata.PackageNotFoundError:
        # Run from the source without being installed.
        return "unknown"
