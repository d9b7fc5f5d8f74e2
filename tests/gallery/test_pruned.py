"""Galleries are reranked exactly where members are left out of pairs, chunk by chunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.table_gallery import ALL, IDS, IMAGES, ONE, SOME, opened

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.gallery.ranked import RerankRequest
from sgraf_deploy.gallery.reranker import Reranker


def requests(captions: Any) -> list[RerankRequest]:
    """All of the gallery, some of it, and ids that come twice or are not there."""
    some = [*IDS[30:0:-2], "none.jpg", *IDS[:10]]
    return [
        RerankRequest(captions[0], None, 3),
        RerankRequest(captions[1], some, 2),
        RerankRequest(captions[1], IDS[5:9], None),
        RerankRequest(captions[2], ["none.jpg", "nor.jpg"], 4),
        RerankRequest(captions[3], [*IDS[:20], *IDS[:20]], 5),
        RerankRequest(captions[0], IDS, 200),
    ]


@pytest.mark.parametrize("chunk_bytes", [ONE, SOME, ALL], ids=["one", "some", "all"])
def test_results_are_those_of_every_pair(
    exported: Bundle, tmp_path: Path, chunk_bytes: int
) -> None:
    found, scored = [], []
    for prune in (True, False):
        with opened(exported, tmp_path, prune=prune) as (scorer, gallery, captions):
            reranker = Reranker(scorer, gallery, missing="skip", chunk_bytes=chunk_bytes)
            found.append(reranker.rerank_many(requests(captions)))
            found[-1].append(reranker.rerank(captions[5], IDS, 1))
            scored.append(scorer.scored_pairs())
    for one, other in zip(*found, strict=True):
        assert one.ids == other.ids
        assert one.missing == other.missing
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.logits, other.logits)
        assert np.isfinite(one.logits).all()
    nothing = ("none.jpg",)
    assert [each.missing for each in found[0]] == [
        (),
        nothing,
        (),
        (*nothing, "nor.jpg"),
        (),
        (),
        (),
    ]
    assert [len(each) for each in found[0]] == [3, 2, 4, 0, 5, IMAGES, 1]
    assert scored[0]["saf"] == scored[1]["saf"] == scored[1]["sgr"]
    if chunk_bytes == ALL:
        assert scored[0]["sgr"] < 0.8 * scored[1]["sgr"]
