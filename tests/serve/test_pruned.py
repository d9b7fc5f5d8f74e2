"""The service's answers where members are left out of pairs are those of every pair."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.table_gallery import ALL, IDS, ONE, SOME, opened

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.serve.answering import Answerer
from sgraf_deploy.serve.calls import Answer, Call, CaptionText, NotFoundError, StoredId
from sgraf_deploy.serve.metrics import Metrics


def text(column: int) -> CaptionText:
    return CaptionText(f"word{column}")


def stored(ids: list[str]) -> tuple[StoredId, ...]:
    return tuple(map(StoredId, ids))


def calls() -> list[Call]:
    """In both directions, of different lengths, that share pairs; two of them lack an image."""
    return [
        Call(text(0), stored(IDS), 3),
        Call(text(0), stored([*IDS[50:20:-1], *IDS[:5], *IDS[:5]]), 4),
        Call(text(1), stored(IDS[:30])),
        Call(text(2), stored([*IDS[:9], "none.jpg", *IDS[9:40]]), 2, missing="skip"),
        Call(text(3), stored(["none.jpg", *IDS]), 2),
        Call(StoredId(IDS[7]), tuple(text(column) for column in (4, 0, 2, 2, 5, 6, 7, 8)), 2),
        Call(text(1), stored(IDS[30:]), 5, first=30),
    ]


@pytest.mark.parametrize("chunk_bytes", [ONE, SOME, ALL], ids=["one", "some", "all"])
def test_answers_are_of_every_pair(exported: Bundle, tmp_path: Path, chunk_bytes: int) -> None:
    found, scored = [], []
    for prune in (True, False):
        with opened(exported, tmp_path, prune=prune) as (scorer, gallery, _):
            answerer = Answerer(scorer, gallery, chunk_bytes=chunk_bytes)
            found.append(answerer.answer_many(calls()))
            scored.append(scorer.scored_pairs())
            metrics = Metrics()
            metrics.watch(scorer, gallery)
            line = f'sgraf_scored_pairs_total{{member="sgr"}} {float(scored[-1]["sgr"])}'
            assert line in metrics.text().decode()
    for one, other in zip(*found, strict=True):
        if isinstance(other, NotFoundError):
            assert isinstance(one, NotFoundError)
            assert one.param == other.param
        else:
            assert isinstance(other, Answer)
            assert one == other
    assert sum(isinstance(each, Answer) for each in found[0]) == len(found[0]) - 1
    assert scored[0]["saf"] == scored[1]["saf"] == scored[1]["sgr"]
    if chunk_bytes == ALL:
        assert scored[0]["sgr"] < 0.9 * scored[1]["sgr"]
