"""The metrics of a front: those of every process, told apart, of which some do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families

from sgraf_deploy.distributed.metrics import FrontMetrics, Told
from sgraf_deploy.serve.metrics import BatchMetrics, RequestMetrics

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Fakes:
    """Processes that tell what is given, and how long they were given for it."""

    def __init__(self, *told: Told | None) -> None:
        self.tell: Sequence[Told | None] = told
        self.given_s: list[float] = []

    async def told(self, timeout_s: float) -> Sequence[Told | None]:
        self.given_s.append(timeout_s)
        return self.tell


def scorer(replica: str, pairs: int) -> Told:
    metrics = BatchMetrics()
    metrics.waiting(pairs)
    metrics.batch(pairs, 1)
    return Told.of(replica, metrics)


def front(replica: str, answered: int) -> Told:
    metrics = RequestMetrics()
    for _ in range(answered):
        metrics.answered("/rerank", 200, 0.01)
    return Told.of(replica, metrics)


def exported(metrics: FrontMetrics) -> tuple[list[str], Samples]:
    """The names of the families, and the samples."""
    text = asyncio.run(metrics.everything()).decode()
    families = list(text_string_to_metric_families(text))
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    return [family.name for family in families], samples


def sample(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_each_process_has_its_own_series_in_one_family() -> None:
    shards = [Fakes(scorer("a", 3), scorer("b", 5)), Fakes(scorer("c", 7))]
    metrics = FrontMetrics("f1", Fakes(front("f1", 9), front("f2", 2)), shards, tell_s=1.5)
    metrics.answered("/rerank", 200, 0.01)

    names, found = exported(metrics)

    assert len(names) == len(set(names))
    for shard, replica, pairs in (("0", "a", 3), ("0", "b", 5), ("1", "c", 7)):
        labels = {"shard": shard, "replica": replica}
        assert sample(found, "sgraf_queue_pairs", **labels) == pairs
        assert sample(found, "sgraf_batch_pairs_sum", **labels) == pairs
        assert sample(found, "sgraf_batch_pairs_bucket", le="+Inf", **labels) == 1
    answered = {"route": "/rerank", "code": "200"}
    assert sample(found, "sgraf_requests_total", replica="f1", **answered) == 1  # its own, as it is
    assert sample(found, "sgraf_requests_total", replica="f2", **answered) == 2
    assert all(each.given_s == [1.5] for each in shards)


def test_whichever_front_is_asked_the_answer_is_the_same() -> None:
    fronts, shards = Fakes(), [Fakes(scorer("a", 3))]
    first, second = (FrontMetrics(name, fronts, shards) for name in ("f1", "f2"))
    first.answered("/rerank", 200, 0.01)
    second.answered("/meta", 404, 0.01)
    fronts.tell = first.told(), second.told()

    of_first, of_second = (set(exported(each)[1]) for each in (first, second))
    assert of_first == of_second


def test_what_does_not_answer_is_left_out_and_counted() -> None:
    shards = [Fakes(scorer("a", 3), None), Fakes(None), Fakes()]
    _, found = exported(FrontMetrics("f1", Fakes(None), shards))

    counts = {("0", "true"): 1, ("0", "false"): 1, ("1", "true"): 0, ("1", "false"): 1}
    counts |= {("2", "true"): 0, ("2", "false"): 0}
    for (shard, answered), count in counts.items():
        assert sample(found, "sgraf_replicas", shard=shard, answered=answered) == count
    assert sample(found, "sgraf_fronts", answered="true") == 1  # the one that answers
    assert sample(found, "sgraf_fronts", answered="false") == 1
    assert sample(found, "sgraf_queue_pairs", shard="0", replica="a") == 3
