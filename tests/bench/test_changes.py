"""Changes between two runs: simulated with known truths, and the verdicts at their edges."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sgraf_deploy.bench.changes import Change, paired_changes, slowdown

ROUNDS, PAIRS, LIMIT = 10, 300, 10.0
FIGURES = 7


def verdicts(deviation: float, factor: float) -> Counter[str]:
    """Of pairs of runs whose rounds scatter by that much; the second takes `factor` as long."""
    rng = np.random.default_rng(12)
    found: Counter[str] = Counter()
    for _ in range(PAIRS):
        before, after = np.exp(rng.normal(0, deviation, (2, ROUNDS)))
        found[slowdown(before, factor * after, LIMIT).verdict] += 1
    return found


@pytest.mark.parametrize("deviation", [0.03, 0.15])
def test_of_two_equal_builds_at_most_one_in_a_hundred_is_called_worse(deviation: float) -> None:
    assert verdicts(deviation, 1.0)["worse"] <= PAIRS / 100


def test_a_fifth_slower_is_seen_on_a_quiet_machine_and_never_called_the_same() -> None:
    assert verdicts(0.03, 1.2)["worse"] >= 0.95 * PAIRS
    noisy = verdicts(0.15, 1.2)
    assert noisy["same"] == noisy["no worse"] == noisy["better"] == 0
    assert noisy["undecided"] > 0


def test_a_faster_build_is_better() -> None:
    assert verdicts(0.03, 0.8)["better"] >= 0.95 * PAIRS


def lost(images: int, at_one: int) -> np.ndarray:
    """The effects of `images`, of which some lose their place at R@1 of a single direction."""
    effects = np.zeros((images, FIGURES))
    effects[:at_one, 0] = 100.0
    effects[:, -1] = effects.sum(axis=1)
    return effects


def first(images: int, at_one: int) -> Change:
    return paired_changes(lost(images, at_one), [0.5] * 6 + [1.0])[0]


def test_ten_of_a_thousand_images_lost_is_worse_and_one_of_a_hundred_undecided() -> None:
    assert first(1000, 10).harm == first(100, 1).harm == 1.0
    assert first(1000, 10).verdict == "worse"
    one = first(100, 1)
    assert one.verdict == "undecided"
    assert one.needed is not None
    assert first(one.needed, one.needed // 100).verdict == "worse"


def test_nothing_lost_is_the_same_and_a_gain_is_better() -> None:
    assert {change.verdict for change in paired_changes(lost(50, 0), [0.5] * FIGURES)} == {"same"}
    assert paired_changes(-lost(1000, 20), [0.5] * FIGURES)[0].verdict == "better"


def test_the_order_of_the_images_does_not_matter() -> None:
    effects = lost(300, 5)
    shuffled = np.random.default_rng(1).permutation(effects)
    assert paired_changes(effects, [0.5] * FIGURES) == paired_changes(shuffled, [0.5] * FIGURES)


def test_the_interval_is_that_of_drawn_images() -> None:
    """Beside a bootstrap that draws images one by one; of a single figure Holm asks nothing."""
    effects = np.random.default_rng(2).choice([0.0, 100.0, -100.0], (400, 1), p=[0.9, 0.07, 0.03])
    (change,) = paired_changes(effects, [0.5])
    rng = np.random.default_rng(3)
    means = effects[rng.integers(400, size=(20_000, 400)), 0].mean(axis=1)
    low, high = np.quantile(means, (0.005, 0.995))
    assert change.harm == pytest.approx(effects.mean())
    assert change.low == pytest.approx(low, abs=0.26)  # one image of 400
    assert change.high == pytest.approx(high, abs=0.26)


def test_seven_figures_need_more_evidence_than_one() -> None:
    """Holm: a change that is just clear alone is not clear as one of seven."""
    alone = next(n for n in range(1, 20) if paired_changes(lost(1000, n)[:, :1], [0.0])[0].low > 0)
    assert first(1000, alone).low == 0.0
    together = next(n for n in range(1, 40) if first(1000, n).low > 0)
    assert together > alone


@pytest.mark.parametrize(
    ("harm", "low", "high", "verdict"),
    [
        (2.0, 0.5, 3.0, "worse"),
        (2.0, 0.0, 3.0, "undecided"),
        (1.0, 0.5, 3.0, "undecided"),
        (0.5, -1.0, 1.0, "same"),
        (0.5, -1.1, 1.0, "no worse"),
        (0.5, -1.0, 1.1, "undecided"),
        (-2.0, -3.0, -0.1, "better"),
        (-2.0, -3.0, 0.0, "no worse"),
    ],
)
def test_verdicts_at_their_edges(harm: float, low: float, high: float, verdict: str) -> None:
    assert Change(harm, low, high, limit=1.0, size=10).verdict == verdict


def test_how_much_would_decide() -> None:
    def needed(harm: float, low: float, high: float) -> int | None:
        return Change(harm, low, high, limit=1.0, size=10).needed

    assert needed(0.0, -2.0, 2.0) == 40
    assert needed(2.0, -2.0, 6.0) == 40
    assert needed(1.0, -2.0, 4.0) is None, "at the limit no sample would"
    assert needed(0.99, -200.0, 200.0) is None
    assert needed(0.0, -0.5, 0.5) is None, "it is decided"


def test_a_single_round_decides_nothing() -> None:
    one = np.array([1.0])
    for other in (one, 100 * one):
        found = slowdown(one, other, LIMIT)
        assert (found.verdict, found.needed) == ("undecided", None)
        assert (found.to_json()["low"], found.to_json()["high"]) == (None, None)
