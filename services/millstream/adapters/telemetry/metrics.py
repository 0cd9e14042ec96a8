"""Metrics of the process under the names of `metric_catalogue`, as a Prometheus registry of its own.

Values are kept here and only turned into Prometheus families at a scrape. prometheus_client's own value classes are not
used: importing Feast flips them to memory-mapped files shared between processes, depending on which import came first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from millstream.adapters.telemetry.endpoint import Check, TelemetryEndpoint
from millstream.adapters.telemetry.metric_catalogue import (
    CATALOGUE,
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    CounterName,
    GaugeName,
    HistogramName,
    Metric,
)
from millstream.adapters.telemetry.process_usage import own_rss_bytes
from millstream.settings import Settings

_Labels = tuple[str, ...]


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = np.array(bounds)
        self.counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self.total = 0.0


class Telemetry(Collector):
    """Counters, gauges and histograms of one process; safe to call from any thread.

    A call costs about a microsecond: made per micro-batch, not per event.

    Attributes
    ----------
    registry : CollectorRegistry
        Holds these metrics and no others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[_Labels, float]] = {name: {} for name in COUNTERS}
        self._gauges: dict[str, dict[_Labels, float]] = {name: {} for name in GAUGES}
        self._histograms: dict[str, dict[_Labels, _Histogram]] = {name: {} for name in HISTOGRAMS}
        self._before_scrape: list[Callable[[], None]] = []
        for series in (self._counters, self._gauges):
            for name, values in series.items():
                if not CATALOGUE[name].labels:
                    values[()] = 0.0
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def count(self, name: CounterName, value: float = 1, **labels: object) -> None:
        """Add ``value`` (>= 0) to a counter.

        Raises
        ------
        ValueError
            If the labels are not exactly the catalogue's, or the value is negative.
        """
        if value < 0:
            raise ValueError(f"{name} only goes up; got {value}")
        key = _key(name, COUNTERS[name], labels)
        with self._lock:
            series = self._counters[name]
            series[key] = series.get(key, 0.0) + value

    def gauge(self, name: GaugeName, value: float, **labels: object) -> None:
        """Set a gauge.

        Raises
        ------
        ValueError
            If the labels are not exactly the catalogue's.
        """
        key = _key(name, GAUGES[name], labels)
        with self._lock:
            self._gauges[name][key] = float(value)

    def observe(self, name: HistogramName, values: float | NDArray[np.float64], **labels: object) -> None:
        """Put one value, or an array of values of any shape, into a histogram.

        Raises
        ------
        ValueError
            If the labels are not exactly the catalogue's.
        """
        metric = HISTOGRAMS[name]
        key = _key(name, metric, labels)
        given = np.atleast_1d(np.asarray(values, dtype=np.float64)).ravel()
        with self._lock:
            histogram = self._histograms[name].get(key)
            if histogram is None:
                histogram = self._histograms[name][key] = _Histogram(metric.buckets)
            # Prometheus' buckets include their upper bound.
            places = np.searchsorted(histogram.bounds, given, side="left")
            histogram.counts += np.bincount(places, minlength=len(histogram.counts))
            histogram.total += float(given.sum())

    def forget(self, name: GaugeName, **labels: object) -> None:
        """Drop a gauge that no longer speaks of anything here, e.g. of a revoked partition.

        Raises
        ------
        ValueError
            If the labels are not exactly the catalogue's.
        """
        key = _key(name, GAUGES[name], labels)
        with self._lock:
            self._gauges[name].pop(key, None)

    def value(self, name: CounterName | GaugeName, **labels: object) -> float:
        """Return a counter or gauge; 0 if it was never set."""
        key = _key(name, CATALOGUE[name], labels)
        with self._lock:
            return (self._counters | self._gauges)[name].get(key, 0.0)

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call ``refresh`` at each scrape, for gauges that are read rather than counted; it must not wait."""
        self._before_scrape.append(refresh)

    def exposition(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        for refresh in self._before_scrape:
            refresh()
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Family]:
        """Yield families as Prometheus knows them; a registry calls this."""
        with self._lock:
            families: list[Family] = []
            for name, values in self._counters.items():
                counter = CounterMetricFamily(name, CATALOGUE[name].help, labels=CATALOGUE[name].labels)
                for key, value in values.items():
                    counter.add_metric(key, value)
                families.append(counter)
            for name, values in self._gauges.items():
                gauge = GaugeMetricFamily(name, CATALOGUE[name].help, labels=CATALOGUE[name].labels)
                for key, value in values.items():
                    gauge.add_metric(key, value)
                families.append(gauge)
            for name, histograms in self._histograms.items():
                family = HistogramMetricFamily(name, CATALOGUE[name].help, labels=CATALOGUE[name].labels)
                for key, histogram in histograms.items():
                    bounds = [*map(str, histogram.bounds.tolist()), "+Inf"]
                    sums = accumulate(histogram.counts.tolist())
                    family.add_metric(key, list(zip(bounds, sums, strict=True)), histogram.total)
                families.append(family)
        yield from families


def _key(name: str, metric: Metric, labels: Mapping[str, object]) -> _Labels:
    try:
        key = tuple([str(labels[label]) for label in metric.labels])
    except KeyError as missing:
        raise ValueError(f"{name} needs the labels {metric.labels}; {missing} is not given") from missing
    if len(labels) != len(key):
        raise ValueError(f"{name} has the labels {metric.labels}; got {tuple(labels)}")
    return key


@contextmanager
def serve(
    telemetry: Telemetry,
    settings: Settings,
    worker: str,
    stages: Sequence[str],
    ready: Check,
    health: Check = dict,
) -> Iterator[TelemetryEndpoint]:
    """Serve the process's metrics where the settings say, until the block is left.

    Raises
    ------
    Misconfigured
        The address cannot be bound.
    """
    telemetry.before_scrape(lambda: telemetry.gauge("millstream_process_rss_bytes", own_rss_bytes()))
    endpoint = TelemetryEndpoint(
        telemetry.exposition,
        health=health,
        ready=ready,
        host=settings.metrics_host,
        port=settings.metrics_port,
        state_dir=settings.state_dir,
        worker=worker,
        stages=stages,
    )
    try:
        yield endpoint
    finally:
        endpoint.close()
