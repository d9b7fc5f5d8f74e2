"""Rates, ratios and latencies with a clock that every call takes one second by."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from support.closeness import assert_close, logits_depth
from support.small_models import LENGTHS, SGR, random_captions, random_regions

import sgraf_deploy
from sgraf_deploy.bench import measure
from sgraf_deploy.bench.measure import Ratio, pair_flop
from sgraf_deploy.bench.speed import SpeedOptions, measure_throughput
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.torch.literal import LiteralLoop
from sgraf_deploy.evaluation.workload import LITERAL, Inputs

IMAGES = 4
DEPTH = logits_depth(SGR, max(LENGTHS))


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products that take no time."""
    monkeypatch.setattr(measure, "PRODUCTS", ((2, 5, 10),))


@pytest.fixture
def inputs() -> Inputs:
    return Inputs(random_regions(SGR, IMAGES), random_captions(SGR))


def options(seconds: Callable[[], float], **more: Any) -> SpeedOptions:
    return SpeedOptions(clock=seconds, **more)


def second_by_second() -> Callable[[], float]:
    ticks = count()
    return lambda: float(next(ticks))


def test_the_literal_loop_scores_as_the_reference_engine_does(
    exported: Bundle, inputs: Inputs
) -> None:
    loop = LiteralLoop(exported)
    found = loop.logits(loop.encode_images(inputs.regions), loop.encode_captions(inputs.token_ids))
    with sgraf_deploy.load(exported, engine="torch-reference") as scorer:
        expected = scorer.logits(inputs.regions, list(inputs.token_ids))

    assert set(found) == {"sgr", "saf"}
    for name, matrix in expected.items():
        assert_close(found[name], matrix, DEPTH)


def test_the_literal_loop_works_in_shards(exported: Bundle, inputs: Inputs) -> None:
    whole, cut = LiteralLoop(exported), LiteralLoop(exported)
    expected = whole.logits(
        whole.encode_images(inputs.regions), whole.encode_captions(inputs.token_ids)
    )
    cut = cut.in_shards(3)
    told: list[tuple[int, int]] = []
    found = cut.logits(
        cut.encode_images(inputs.regions),
        cut.encode_captions(inputs.token_ids),
        lambda done, total: told.append((done, total)),
    )

    for name, matrix in expected.items():
        assert_close(found[name], matrix, DEPTH)
    assert told[-1] == (2 * inputs.pairs, 2 * inputs.pairs)
    assert len(told) == 2 * 2 * 2  # members x shards of images x shards of captions


def test_rates_are_units_over_the_median(exported: Bundle, inputs: Inputs) -> None:
    with sgraf_deploy.load(exported, engine="ort") as scorer:
        found = measure_throughput(
            exported,
            {"ort": scorer},
            {LITERAL: LiteralLoop(exported)},
            inputs,
            options(second_by_second(), repeats=3),
        )

    captions = len(inputs.token_ids)
    assert [speed.engine for speed in found.speeds] == [LITERAL, "ort"]
    for speed in found.speeds:
        assert speed.rates == {
            "encode images": IMAGES,
            "encode captions": captions,
            "score": inputs.pairs,
            "end to end": pytest.approx(inputs.pairs / 3),
        }
        assert len(speed.timings["score"].seconds) == 3  # the warm-up is not among them
        assert speed.times_literal == Ratio(1.0, 0.0)
        assert not speed.unstable
        assert speed.cold == {"encode images": 1, "encode captions": 1, "score": 1}
    literal, ort = found.speeds
    flop = sum(pair_flop(m.config, inputs.mean_words) for m in exported.manifest.members.values())
    assert (found.product_rate, found.flop_per_pair) == (200.0, flop)
    assert literal.percent_of_product_rate is None
    percent = ort.percent_of_product_rate
    assert percent is not None
    assert percent.value == pytest.approx(100 * inputs.pairs * flop / 200)
    assert percent.scatter == 0.0
    value = literal.to_json()
    assert (value["times_literal"], value["percent_of_product_rate"]) == (1.0, None)
    assert value["withheld"] == {}


def test_scores_that_scatter_withhold_what_is_made_of_them(
    exported: Bundle, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's scores take 1, 9, 1, 9, 1 seconds; all else takes one."""
    rounds: list[float] = [1.0, 9.0, 1.0, 9.0, 1.0]
    scored, ticks = iter(rounds), [0.0]

    def clock() -> float:
        ticks[0] += 0.5
        return ticks[0]

    with sgraf_deploy.load(exported, engine="ort") as scorer:
        logits = scorer.logits

        def slow(*encoded: Any) -> Any:
            ticks[0] += next(scored) - 0.5
            return logits(*encoded)

        monkeypatch.setattr(scorer, "logits", slow)
        found = measure_throughput(
            exported,
            {"ort": scorer},
            {LITERAL: LiteralLoop(exported)},
            inputs,
            options(clock, repeats=5, warmup=0),
        )

    literal, ort = found.speeds
    assert ort.cold is None  # there was no round before those that count
    assert ort.timings["score"].seconds == tuple(rounds)
    assert ort.unstable
    value = ort.to_json()
    assert (value["times_literal"], value["percent_of_product_rate"]) == (None, None)
    assert set(value["withheld"]) == {"times_literal", "percent_of_product_rate"}
    assert value["per_second"]["score"] == inputs.pairs
    assert value["unstable"]
    assert literal.to_json()["withheld"] == {}


def test_products_that_scatter_withhold_the_share_of_their_rate(
    exported: Bundle, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([1e9, 4e9, 1e9, 4e9])
    monkeypatch.setattr(measure.ProductRate, "measure", lambda self: next(rates))
    with sgraf_deploy.load(exported, engine="ort") as scorer:
        found = measure_throughput(
            exported,
            {"ort": scorer},
            {LITERAL: LiteralLoop(exported)},
            inputs,
            options(second_by_second(), repeats=4, warmup=0),
        )
    value = found.speeds[1].to_json()
    assert (value["times_literal"], value["percent_of_product_rate"]) == (1.0, None)
