"""The benchmark of a whole split on Ray: which figures count as those of the authors' code."""

from __future__ import annotations

import numpy as np

from benchmarks.distributed import differences, mean_ranks
from sgraf_deploy.engines.ranks import RankCounts

TIED = RankCounts(np.array([4, 0, 9]), np.array([2, 5]), np.array([0, 0, 3]), np.array([0, 0]))
"""The third image has three candidates on its threshold."""
MEANS = mean_ranks(TIED, "image_to_text")
OURS = {"r1": 33.3, "median_rank": 5.0, "mean_rank": MEANS["ties_last"]}


def found(**theirs: float) -> list[str]:
    return list(differences("SGR image_to_text", OURS, theirs, MEANS))


def test_a_mean_rank_may_lie_anywhere_among_its_ties() -> None:
    assert MEANS == {"ties_first": 10 / 3 + 1, "ties_last": 13 / 3 + 1}
    last, first = (MEANS[ties] for ties in ("ties_last", "ties_first"))
    for mean in (first, (first + last) / 2, last):
        assert not found(mean_rank=mean)
    for mean in (first - 1e-6, last + 1e-6):
        assert len(found(mean_rank=mean)) == 1
    no_ties = mean_ranks(TIED, "text_to_image")
    assert no_ties["ties_first"] == no_ties["ties_last"] == 4.5


def test_other_figures_must_be_equal() -> None:
    assert not found(r1=33.3, median_rank=5.0)
    assert len(found(r1=33.4, median_rank=4.0)) == 2
