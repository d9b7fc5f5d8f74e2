"""Timings, rates and memory, with a clock that is told what to say."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import accumulate, cycle
from pathlib import Path

import pytest
from support.refusals import naming

from sgraf_deploy.bench import measure
from sgraf_deploy.bench.measure import (
    UNSTABLE,
    UNSTABLE_RATIO,
    WITHHELD,
    MemoryWatch,
    ProductRate,
    Ratio,
    ResidentPeak,
    Timing,
    pair_flop,
    ratios_to_json,
    resident,
    timed,
    times_faster,
)
from sgraf_deploy.bench.random_model import model_config


def ticking(*steps: float) -> Callable[[], float]:
    """A clock that moves by these steps, over and over."""
    times = accumulate(cycle(steps))
    return lambda: next(times)


def test_a_timing_in_numbers() -> None:
    timing = Timing((4.0, 1.0, 2.0, 3.0, 5.0))
    assert timing.median == 3.0
    assert timing.percentile(95) == pytest.approx(4.8)
    assert timing.spread == pytest.approx((4.6 - 1.4) / 3)
    assert timing.rate(60) == 20.0
    assert timing.to_json() == {
        "median": 3.0,
        "spread": timing.spread,
        "seconds": [4.0, 1.0, 2.0, 3.0, 5.0],
    }


def test_a_call_is_timed_by_the_clock() -> None:
    assert timed(lambda: None, ticking(2.5)) == 2.5


def test_ratios_are_taken_round_by_round() -> None:
    work, yardstick = Timing((1.0, 4.0, 1.0)), Timing((3.0, 8.0, 5.0))
    assert times_faster(work, yardstick).value == 3.0


def test_rounds_that_drift_together_give_a_stable_ratio() -> None:
    """A machine that slows down tenfold meanwhile: timings scatter, their ratio does not."""
    work = Timing((1.0, 2.0, 5.0, 10.0))
    ratio = times_faster(work, Timing(tuple(4 * seconds for seconds in work.seconds)))
    assert work.spread > 1
    assert (ratio, ratio.withheld, ratio.shown()) == (Ratio(4.0, 0.0), None, "4.00")


def test_a_ratio_whose_rounds_scatter_is_withheld() -> None:
    work, yardstick = Timing((1.0,) * 5), Timing((2.0, 30.0, 15.65, 16.0, 15.0))
    ratio = times_faster(work, yardstick)
    assert ratio.value == 15.65
    assert ratio.scatter == pytest.approx((24.4 - 7.2) / 15.65)  # 110 %
    assert ratio.shown() == WITHHELD
    naming("110 %", "50 %").check("withheld", ratio.withheld)


@pytest.mark.parametrize(
    ("scatter", "stable"),
    [(0.0, True), (UNSTABLE_RATIO, True), (0.501, False), (float("nan"), False)],
)
def test_the_threshold_of_a_ratio(scatter: float, stable: bool) -> None:
    ratio = Ratio(2.5, scatter)
    assert (ratio.withheld is None) == stable
    assert ratio.shown(".0f", " %") == ("2 %" if stable else WITHHELD)
    report = ratios_to_json({"times_literal": ratio, "sure": Ratio(1.5, 0.1)})
    assert report["times_literal"] == (2.5 if stable else None)
    assert report["sure"] == 1.5
    assert list(report["withheld"]) == ([] if stable else ["times_literal"])


def test_two_timings_that_are_just_stable_give_a_stable_ratio() -> None:
    """As far as independent scatter adds up."""
    assert 2**0.5 * UNSTABLE < UNSTABLE_RATIO


@pytest.mark.parametrize(
    ("module", "expected"),
    [("SAF", 0.147 * 14 + 0.524 * 15), ("SGR", 0.147 * 14 + 1.05 * 15)],
)
def test_the_work_of_a_pair_is_the_designs(module: str, expected: float) -> None:
    flop = pair_flop(model_config(module), 14)  # type: ignore[arg-type]  # one of two strings
    assert flop / 1e6 == pytest.approx(expected, rel=5e-3)


def test_the_best_product_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PRODUCTS", ((2, 3, 4), (2, 3, 4)))
    rate = ProductRate(ticking(0.0, 2.0, 0.0, 1.0))
    assert (rate.library, rate.dtype) == ("PyTorch", "float32")
    assert rate.measure() == 2 * 2 * 3 * 4 / 1.0


HELD = 300_000_000
"""Bytes beside which it is little what the system takes back of the rest of the process meanwhile:
collected objects, and pages of files."""


def test_memory_is_what_the_kernel_says() -> None:
    gc.collect()
    watch = MemoryWatch()
    held = bytearray(HELD)
    found = watch.read()
    assert found.peak is not None
    if found.start is not None:
        assert found.peak - found.start > 0.9 * len(held)


def test_without_the_kernels_account_the_start_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measure, "_STATUS", tmp_path / "absent")
    monkeypatch.setattr(measure, "_CLEAR_REFS", tmp_path / "no" / "file")
    found = MemoryWatch().read()
    assert found.start is None
    assert found.peak is not None
    assert found.peak > 1_000_000


def test_the_peak_is_kept_when_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "INTERVAL", 3600)  # the last look is at the end of the block
    sizes = iter([10, 30, 20])
    monkeypatch.setattr(measure, "resident", lambda: {"RssAnon": next(sizes)})
    with ResidentPeak() as peak:
        peak.look()
        assert peak.values == {"RssAnon": 30}
    assert peak.values == {"RssAnon": 30}


def test_a_block_that_holds_memory_has_a_peak() -> None:
    gc.collect()
    before = resident()
    with ResidentPeak() as peak:
        held = bytearray(HELD)
    if before:
        assert peak.values["RssAnon"] - before["RssAnon"] > 0.9 * len(held)


def test_where_the_system_does_not_tell_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measure, "_STATUS", tmp_path / "absent")
    with ResidentPeak() as peak:
        pass
    assert (resident(), peak.values) == ({}, {})
