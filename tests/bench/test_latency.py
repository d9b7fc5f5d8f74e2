"""Latencies, their floor and their controls, with a clock that every call takes a second by."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import pytest
from support.small_models import SGR, random_captions, random_regions

import sgraf_deploy
from sgraf_deploy.bench import measure
from sgraf_deploy.bench.latency import BLOCK, CANDIDATES, Latency, measure_latency
from sgraf_deploy.bench.measure import Ratio, Timing, pair_flop
from sgraf_deploy.bench.speed import SpeedOptions
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.torch.literal import LiteralLoop
from sgraf_deploy.evaluation.workload import Inputs
from sgraf_deploy.runtime.encoded import EncodedCaptions


def test_every_gallery_is_measured_beside_the_yardsticks(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "PRODUCTS", ((2, 5, 10),))
    ticks = count()
    options = SpeedOptions(clock=lambda: float(next(ticks)), queries=12, settle=lambda: None)
    inputs = Inputs(random_regions(SGR, 4), random_captions(SGR))
    told: list[tuple[int, int]] = []
    with sgraf_deploy.load(exported, engine="ort") as scorer:
        literal = LiteralLoop(exported)
        found = measure_latency(
            "ort", scorer, literal, inputs, options, lambda *step: told.append(step)
        )

    assert [latency.candidates for latency in found] == list(CANDIDATES)
    assert told == [(1, 3), (2, 3), (3, 3)]
    runs = [
        [len(timing.seconds) for timing in (one.score, one.end_to_end, one.control, one.literal)]
        for one in found
    ]
    assert runs == [[12, 12, 12, 2], [6, 6, 6, 1], [4, 4, 4, 1]]
    flop = sum(pair_flop(m.config, inputs.mean_words) for m in exported.manifest.members.values())
    for one in found:
        assert one.floor == pytest.approx(one.candidates * flop / 200)
        assert one.times_floor.value == pytest.approx(1 / one.floor)
        assert one.times_literal == one.tail == Ratio(1.0, 0.0)
        lengths = len(set(map(len, inputs.token_ids[: len(one.score.seconds)])))
        assert {scope: len(timing.seconds) for scope, timing in one.cold.items()} == {
            "score": lengths,
            "end_to_end": lengths,
        }
    value = found[0].to_json()
    cold = {"lengths": 5, "median": 1000, "largest": 1000}
    assert value["cold_ms"] == {"score": cold, "end_to_end": cold}
    assert value["score_ms"] == {"p50": 1000, "p95": 1000, "p99": 1000, "repeats": 12}
    assert value["end_to_end_ms"]["p99"] == 1000
    assert value["floor_ms"] == pytest.approx(1e3 * found[0].floor)


def test_the_first_query_of_a_length_is_in_no_percentile(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that takes 100 s for the first two queries of a length, as one that records."""
    monkeypatch.setattr(measure, "PRODUCTS", ((2, 5, 10),))
    monkeypatch.setattr("sgraf_deploy.bench.latency.CANDIDATES", (3,))
    now, seen = [0.0], Counter[tuple[str, int]]()

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    with sgraf_deploy.load(exported, engine="ort") as scorer:
        rerank = scorer.rerank

        def slow_at_first(query: Any, *more: Any) -> Any:
            encoded = isinstance(query, EncodedCaptions)
            length = int(query.lengths[0]) if encoded else len(query)
            seen[f"{encoded}", length] += 1
            now[0] += 100.0 if seen[f"{encoded}", length] <= 2 else 0.0
            return rerank(query, *more)

        monkeypatch.setattr(scorer, "rerank", slow_at_first)
        options = SpeedOptions(clock=clock, queries=12, settle=lambda: None)
        inputs = Inputs(random_regions(SGR, 3), random_captions(SGR))
        (one,) = measure_latency("ort", scorer, LiteralLoop(exported), inputs, options)

    assert max(one.score.seconds) == max(one.end_to_end.seconds) == 0.5
    assert {timing.seconds for timing in one.cold.values()} == {(100.5,) * 5}


def test_ratios_are_of_medians_and_of_tails() -> None:
    steady, shaky = Timing((1.0, 1.0, 1.0)), Timing((1.0, 2.0, 2.0, 8.0))
    one = latency(score=shaky.seconds, literal=(6.0,), control=steady.seconds)
    assert one.floor == 0.5
    assert (one.times_floor.value, one.times_literal.value) == (4.0, 3.0)
    assert one.tail.value == pytest.approx(shaky.percentile(99) / 2.0)


def latency(
    score: tuple[float, ...],
    literal: tuple[float, ...],
    control: tuple[float, ...] = (1.0,),
    product: tuple[float, ...] = (0.005,),
) -> Latency:
    """Of 100 operations a query."""
    return Latency(
        engine="ort",
        candidates=10,
        score=Timing(score),
        end_to_end=Timing(score),
        literal=Timing(literal),
        control=Timing(control),
        product=Timing(product),
        flop=100,
    )


def blocks(*seconds: float) -> tuple[float, ...]:
    """Ten queries that take each of these."""
    return tuple(each for each in seconds for _ in range(BLOCK))


def test_captions_of_many_lengths_are_no_scatter() -> None:
    """Queries of a block take 1 to 10 seconds, those of the next the same; so do their literals."""
    lengths = tuple(float(words) for words in range(1, BLOCK + 1))
    one = latency(3 * lengths, literal=(4.0, 4.0, 4.0), control=blocks(1.0, 1.0, 1.0))
    assert one.score.spread > 1
    assert {ratio.withheld for ratio in one.ratios.values()} == {None}
    # Literals are of the first captions, which may be long or short.
    one = latency(blocks(1.0, 4.0, 2.0), literal=(5.0, 20.0, 10.0))
    assert (one.times_literal.value, one.times_literal.withheld) == (5.0, None)


def test_blocks_that_scatter_withhold_their_ratios() -> None:
    one = latency(blocks(1.0, 4.0, 2.0), literal=(5.0, 5.0, 5.0), control=blocks(1.0, 1.0, 1.0))
    value = one.to_json()
    names = {"times_floor", "times_literal", "tail_over_control"}
    assert set(value["withheld"]) == names
    assert {value[name] for name in names} == {None}
    assert value["score_ms"]["p50"] == 2000


def test_what_is_beside_the_queries_withholds_what_is_made_of_it() -> None:
    steady, shaky = blocks(1.0, 1.0, 1.0), blocks(1.0, 9.0, 2.0)
    literal = (5.0, 5.0, 5.0)
    assert set(latency(steady, literal, shaky).to_json()["withheld"]) == {"tail_over_control"}
    slow = latency(steady, literal, steady, product=(0.005, 0.05, 0.005, 0.05))
    assert set(slow.to_json()["withheld"]) == {"times_floor"}
    uneven = latency(steady, (5.0, 50.0, 20.0), steady)
    assert set(uneven.to_json()["withheld"]) == {"times_literal"}
