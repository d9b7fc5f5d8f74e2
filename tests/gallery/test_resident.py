"""Resident rows score as those that are read, whatever was evicted, written or replaced."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.refusals import naming, refused
from support.scorers import CAPTIONS, Faked, make_regions

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gallery import Batch, Gallery
from sgraf_deploy.gallery.opened import Opened
from sgraf_deploy.runtime import Scorer, load

IDS = [f"id{row}" for row in range(12)]


@pytest.fixture(params=["stored", "float16"])
def filled(request: pytest.FixtureRequest, fake: Scorer, tmp_path: Path) -> Gallery:
    """A gallery of twelve images."""
    gallery = Gallery.create(tmp_path / "g", fake, dtype=request.param)
    gallery.write(Batch.of(IDS, fake.encode_images(make_regions(12))))
    return gallery


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each gather reads from the disk."""
    read: list[int] = []
    gather = Opened.gather

    def count(opened: Opened, txn: Any, keys: Any, numbers: Any) -> Any:
        read.append(len(keys))
        return gather(opened, txn, keys, numbers)

    monkeypatch.setattr(Opened, "gather", count)
    return read


def scores(gallery: Gallery, scorer: Scorer, ids: list[str]) -> Any:
    return scorer.score(gallery.images(scorer, ids), CAPTIONS)


@pytest.mark.parametrize("images", [3, 5, 12, 40])
def test_any_requests_score_as_without(
    filled: Gallery, fake: Scorer, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = sum(sum(named.values()) for named in filled.stats().row_bytes.values())
    wide = each if filled.header.dtype == "stored" else 2 * each
    resident = Gallery.open(filled.path, resident=images * wide)
    read, rng = counted(monkeypatch), np.random.default_rng(0)
    for _ in range(40):
        ids = [str(id_) for id_ in rng.choice(IDS, rng.integers(1, 4))]
        assert np.array_equal(scores(resident, fake, ids), scores(filled, fake, ids))
    assert scores(resident, fake, []).shape == (0, len(CAPTIONS))
    if images >= len(IDS):
        assert sum(read[::2]) >= 0
        before = len(read)
        resident.images(fake, IDS[:5])
        assert len(read) == before


def test_all_are_kept_and_new_ones_too(
    filled: Gallery, fake: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = Gallery.open(filled.path, resident="all")
    assert np.array_equal(scores(resident, fake, IDS), scores(filled, fake, IDS))
    read = counted(monkeypatch)
    resident.images(fake, IDS[3:7])
    assert read == []
    more = [f"more{row}" for row in range(9)]
    filled.write(Batch.of(more, fake.encode_images(make_regions(9, seed=1))))
    assert np.array_equal(scores(resident, fake, more + IDS), scores(filled, fake, more + IDS))
    read.clear()
    resident.images(fake, more + IDS)
    assert read == []


def test_what_was_written_anew_is_read_anew(filled: Gallery, fake: Scorer) -> None:
    resident = Gallery.open(filled.path, resident="all")
    before = scores(resident, fake, IDS)
    filled.write(Batch.of(["id4"], fake.encode_images(make_regions(1, seed=9))), replace=True)
    after = scores(resident, fake, IDS)
    assert np.array_equal(after, scores(filled, fake, IDS))
    assert (after != before).any(axis=1).tolist() == [row == 4 for row in range(12)]
    filled.compact()
    assert np.array_equal(scores(resident, fake, IDS), after)
    filled.delete(["id4"])
    with refused(DataError, got=naming("id4")):
        resident.images(fake, ["id4"])


def test_another_gallery_in_the_same_place_is_read_anew(filled: Gallery, fake: Scorer) -> None:
    """Its records have the same numbers."""
    resident = Gallery.open(filled.path, resident="all")
    plain = Gallery.open(filled.path)
    before = scores(resident, fake, IDS)
    shutil.rmtree(filled.path)
    other = Gallery.create(filled.path, fake, dtype="float16")
    other.write(Batch.of(IDS, fake.encode_images(make_regions(12, seed=5))))
    expected = scores(other, fake, IDS)
    assert not np.array_equal(expected, before)
    assert np.array_equal(scores(plain, fake, IDS), expected)
    assert np.array_equal(scores(resident, fake, IDS), expected)


def test_two_scorers_have_rows_of_their_own(
    filled: Gallery, fake: Scorer, faked: Callable[..., Faked]
) -> None:
    other = faked().scorer
    resident = Gallery.open(filled.path, resident="all")
    expected = scores(filled, fake, IDS)
    for scorer in (fake, other, fake):
        assert np.array_equal(scores(resident, scorer, IDS), expected)
    other.close()
    with refused(InputError):
        scores(resident, other, IDS)


def test_sizes_that_are_of_no_use_are_refused(
    filled: Gallery, fake: Scorer, tmp_path: Path
) -> None:
    with refused(InputError, "resident", got=-1):
        Gallery.open(filled.path, resident=-1)
    with refused(InputError, "resident", got=100, expected=naming()):
        Gallery.open(filled.path, resident=100).images(fake, IDS)
    captions = Gallery.create(tmp_path / "c", fake, "captions")
    with refused(InputError, "resident"):
        Gallery.open(captions.path, resident="all")


@pytest.mark.parametrize("engine", ["ort", "native", "torch"])
@pytest.mark.parametrize("dtype", ["stored", "float16"])
def test_every_engine_keeps_rows(exported: Bundle, tmp_path: Path, engine: str, dtype: Any) -> None:
    from support.small_models import SGR, random_regions

    with load(exported, engine, "fp32") as scorer:
        images = scorer.encode_images(random_regions(SGR, 12))
        gallery = Gallery.create(tmp_path / "g", scorer, dtype=dtype)
        gallery.write(Batch.of(IDS, images))
        captions = scorer.encode_captions([[1, 5, 6, 2], [1, 7, 2]])
        expected = scorer.score(gallery.images(scorer, IDS), captions)
        exact = scorer.score(images, captions)
        assert np.abs(expected - exact).max() <= (0 if dtype == "stored" else 2e-3)
        resident = Gallery.open(gallery.path, resident=6 * 2 * 20_000)
        for ids in (IDS[:4], IDS[2:7], IDS[::-1][:3], IDS[:4]):
            found = scorer.score(resident.images(scorer, ids), captions)
            assert np.array_equal(found, expected[[IDS.index(id_) for id_ in ids]])
        kept = gallery.images(scorer, IDS[:1]).members["sgr"].region_embeddings
        assert ("16" in str(kept.dtype)) == (dtype == "float16" and engine == "native")
