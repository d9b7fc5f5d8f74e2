"""What a server counts and times, in the format of Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sgraf_deploy.errors import SgrafDeployError
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.scorer import Scorer

CONTENT_TYPE = CONTENT_TYPE_LATEST
ROUTES = (
    *("/rerank", "/v1/rerank", "/v2/rerank", "/v1/models", "/meta", "/v1/images/{id}"),
    *("/healthz", "/readyz", "/metrics", "/openapi.json"),
)
OTHER = "other"
"""The label of every path that is no route."""

_IMAGES = "/v1/images/"
_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_PAIRS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Exported:
    """Metrics that are exported together, those of the process among them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

    def _seconds(self, what: str, text: str, labels: Sequence[str] = ()) -> Histogram:
        name = f"sgraf_{what}_duration_seconds"
        return Histogram(name, text, labels, buckets=_SECONDS, registry=self.registry)

    def text(self) -> bytes:
        """All of these metrics, in the format that `CONTENT_TYPE` names."""
        return generate_latest(self.registry)

    async def everything(self) -> bytes:
        """What /metrics answers with: these, and those of other processes where there are any."""
        return self.text()


class RequestMetrics(Exported):
    """The metrics of what reads requests and answers them."""

    def __init__(self) -> None:
        super().__init__()
        text = "From the first byte of a request to the last of its answer."
        self._request = self._seconds("request", text, ["route"])
        self._codes = Counter(
            "sgraf_requests",
            "Requests that were answered.",
            ["route", "code"],
            registry=self.registry,
        )
        self._of_route: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        for route in (*ROUTES, OTHER):
            self._request.labels(route)
            self._codes.labels(route, "200" if route != OTHER else "404")

    def answered(self, route: str, code: int, seconds: float) -> None:
        """A request to a route (`route_of`) was answered with a status, after so long."""
        found = self._of_route.get((route, code))
        if found is None:
            found = self._codes.labels(route, str(code)), self._request.labels(route)
            self._of_route[route, code] = found
        found[0].inc()
        found[1].observe(seconds)


class BatchMetrics(Exported):
    """The metrics of what scores: the observer of a `Batcher` and the timings of an `Answerer`."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self._queue = self._seconds("queue", "A request waits for the engine.")
        text = "A batch's captions are read and encoded, its images gathered or encoded."
        self._encode = self._seconds("encode", text)
        self._score = self._seconds("score", "A batch's pairs are scored.")
        self._pairs = Histogram(
            "sgraf_batch_pairs", "Pairs of a batch.", buckets=_PAIRS, registry=registry
        )
        self._requests_of = Histogram(
            "sgraf_batch_requests", "Requests of a batch.", buckets=_REQUESTS, registry=registry
        )
        self._waiting = Gauge("sgraf_queue_pairs", "Pairs that wait.", registry=registry)

    def queued(self, seconds: float) -> None:
        """A request's first pairs reached the engine, so long after it came."""
        self._queue.observe(seconds)

    def batch(self, pairs: int, calls: int) -> None:
        """The engine was given so many pairs of so many requests."""
        self._pairs.observe(pairs)
        self._requests_of.observe(calls)

    def waiting(self, pairs: int) -> None:
        """So many pairs wait now."""
        self._waiting.set(pairs)

    def encoded(self, seconds: float) -> None:
        """A batch was read, encoded and gathered."""
        self._encode.observe(seconds)

    def scored(self, seconds: float) -> None:
        """A batch's pairs were scored."""
        self._score.observe(seconds)

    def watch(self, scorer: Scorer, gallery: Gallery) -> None:
        """Have a gallery's sizes, and what was found in caches, read whenever metrics are."""
        self.registry.register(_StateCollector(scorer, gallery))


class Metrics(RequestMetrics, BatchMetrics):
    """The metrics of one server, present from the beginning; no label comes from a request.

    Threads may share it.

    Example:
        >>> metrics = Metrics()
        >>> metrics.answered("/rerank", 200, 0.012)
        >>> b'sgraf_requests_total{code="200",route="/rerank"} 1.0' in metrics.text()
        True
    """


def route_of(path: str) -> str:
    """The route of a path, as a label: one of `ROUTES`, or `OTHER`."""
    if path in ROUTES:
        return path
    return "/v1/images/{id}" if path.startswith(_IMAGES) and path != _IMAGES else OTHER


class _StateCollector(Collector):
    """The sizes of a gallery, NaN where it cannot be read just now, and what caches found."""

    def __init__(self, scorer: Scorer, gallery: Gallery) -> None:
        self._scorer, self._gallery = scorer, gallery

    def collect(self) -> Iterator[Metric]:
        """Measure them."""
        try:
            statistics = self._gallery.stats()
            images, used = float(statistics.count), float(statistics.used_bytes)
        except SgrafDeployError:
            images = used = math.nan
        hits, misses = self._scorer.cache_counts()
        text = "Captions whose encodings were in the cache."
        yield CounterMetricFamily("sgraf_cache_hits", text, hits)
        text = "Captions that were encoded and put into the cache."
        yield CounterMetricFamily("sgraf_cache_misses", text, misses)
        text = "Pairs that each member scored; those that cannot change an answer are left out."
        scored = CounterMetricFamily("sgraf_scored_pairs", text, labels=["member"])
        for member, pairs in self._scorer.scored_pairs().items():
            scored.add_metric([member], pairs)
        yield scored
        hits, misses = self._gallery.resident_counts()
        yield GaugeMetricFamily("sgraf_gallery_images", "Images of the gallery.", images)
        text = "Bytes that the gallery's records and index take."
        yield GaugeMetricFamily("sgraf_gallery_bytes", text, used)
        text = "Images that were on the scorer's device when they were asked for."
        yield CounterMetricFamily("sgraf_resident_hits", text, hits)
        text = "Images that were put on the scorer's device, where some are kept there."
        yield CounterMetricFamily("sgraf_resident_misses", text, misses)
