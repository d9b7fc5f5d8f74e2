"""Latencies, their floor and their controls, with a clock that every call takes a second by."""

from __future__ import annotations

from itertools import count

import pytest
from small_models import SGR, random_captions, random_regions

import sgraf_deploy
from sgraf_deploy.bench import measure
from sgraf_deploy.bench.latency import CANDIDATES, Latency, measure_latency
from sgraf_deploy.bench.literal import LiteralLoop
from sgraf_deploy.bench.measure import Timing, pair_flop
from sgraf_deploy.bench.speed import Inputs, SpeedOptions
from sgraf_deploy.bundle import Bundle


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
        assert one.times_floor == pytest.approx(1 / one.floor)
        assert one.times_literal == one.tail == 1.0
    value = found[0].to_json()
    assert value["score_ms"] == {"p50": 1000, "p95": 1000, "p99": 1000, "repeats": 12}
    assert value["end_to_end_ms"]["p99"] == 1000
    assert value["floor_ms"] == pytest.approx(1e3 * found[0].floor)


def test_ratios_are_of_medians_and_of_tails() -> None:
    steady, shaky = Timing((1.0, 1.0, 1.0)), Timing((1.0, 2.0, 2.0, 8.0))
    one = Latency("ort", 10, shaky, steady, Timing((6.0,)), steady, floor=0.5)
    assert (one.times_floor, one.times_literal) == (4.0, 3.0)
    assert one.tail == pytest.approx(shaky.percentile(99) / 2.0)
