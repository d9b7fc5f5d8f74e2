"""What all processes of an application count, put together when a client asks for it.

Nothing here knows of Ray: `Processes` are whatever asks each of some processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sgraf_deploy.serve.metrics import Exported, RequestMetrics

TELL_S = 2.0
"""Seconds in which a process tells: a fifth of what Prometheus waits by default."""


@dataclass(frozen=True)
class Told:
    """What a process has counted: its id, as Ray's own metrics name it, and its metrics."""

    replica: str
    metrics: tuple[Metric, ...]

    @classmethod
    def of(cls, replica: str, metrics: Exported) -> Told:
        """What these metrics are now."""
        return cls(replica, tuple(metrics.registry.collect()))


class Processes(Protocol):
    """The replicas of a shard, or the fronts."""

    async def told(self, timeout_s: float) -> Sequence[Told | None]:
        """What each tells within so many seconds; None in the place of one that does not."""


class FrontMetrics(RequestMetrics):
    """The metrics of a front, which exports those of all fronts and replicas beside its own.

    A series has the label `replica`, and `shard` if that replica scores, so that whichever front
    is asked answers the same. Those that do not tell within `tell_s` seconds are counted.
    """

    def __init__(
        self,
        replica: str,
        fronts: Processes,
        shards: Sequence[Processes],
        *,
        tell_s: float = TELL_S,
    ) -> None:
        super().__init__()
        self._replica, self._fronts, self._shards, self._tell_s = replica, fronts, shards, tell_s

    def told(self) -> Told:
        """What this front alone has counted."""
        return Told.of(self._replica, self)

    async def everything(self) -> bytes:
        """The metrics of all processes that tell theirs."""
        fronts, *shards = await asyncio.gather(
            *(each.told(self._tell_s) for each in (self._fronts, *self._shards))
        )
        others = [each for each in fronts if each is None or each.replica != self._replica]
        found = _Families()
        found.add_all([self.told(), *others], {}, "sgraf_fronts")
        for shard, replicas in enumerate(shards):
            found.add_all(replicas, {"shard": str(shard)}, "sgraf_replicas")
        registry = CollectorRegistry()
        registry.register(found)
        return generate_latest(registry)


class _Families(Collector):
    """Metrics of many processes; those of one name are one family."""

    def __init__(self) -> None:
        self._found: dict[str, Metric] = {}

    def add_all(self, told: Sequence[Told | None], labels: Mapping[str, str], counted: str) -> None:
        """Add what processes tell, and how many of them do, by a name."""
        for each in told:
            if each is not None:
                self._add(each.metrics, {**labels, "replica": each.replica})
        text = "Processes by whether they told their metrics in time."
        number = GaugeMetricFamily(counted, text)
        for answered in (True, False):
            count = sum((each is not None) == answered for each in told)
            number.add_sample(counted, {"answered": str(answered).lower()}, count)
        self._add([number], labels)

    def _add(self, metrics: Iterable[Metric], labels: Mapping[str, str]) -> None:
        for metric in metrics:
            family = self._found.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            family.samples += [
                sample._replace(labels={**sample.labels, **labels}) for sample in metric.samples
            ]

    def collect(self) -> Iterable[Metric]:
        """Each family."""
        return self._found.values()
