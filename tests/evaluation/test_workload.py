"""What tells one workload's data from another's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sgraf_deploy.evaluation.workload import Inputs, Workload

REGIONS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
IDS = [np.array([1, 5, 2], np.int32), np.array([1, 2], np.int32)]


def workload(regions: np.ndarray = REGIONS, **fields: object) -> Workload:
    return Workload("split dev", Inputs(regions, IDS), 1, **fields)  # type: ignore[arg-type]


def test_the_identity_is_that_of_the_values_not_of_where_they_lie() -> None:
    one = workload(texts=["a dog", "a cat"]).identity
    strided = np.stack([REGIONS, REGIONS], axis=-1)[..., 0]
    assert not strided.flags.c_contiguous
    assert workload(strided, texts=("a dog", "a cat")).identity == one
    assert (one.images, one.captions, one.captions_per_image) == (2, 2, 1)


def test_everything_that_is_scored_is_in_the_identity() -> None:
    texts = ["a dog", "a cat"]
    one = workload(texts=texts, split="dev")
    changed = REGIONS.copy()
    changed[1, 2, 3] += 1
    others = [
        workload(changed, texts=texts, split="dev"),
        workload(REGIONS.reshape(2, 4, 3), texts=texts, split="dev"),
        workload(REGIONS.astype(np.float64), texts=texts, split="dev"),
        workload(texts=texts[::-1], split="dev"),
        workload(texts=["a doga", " cat"], split="dev"),
        workload(texts=texts, split="test"),
        replace(one, captions_per_image=2),
    ]
    assert len({x.identity for x in (one, *others)}) == 1 + len(others)


def test_random_inputs_have_no_texts_and_their_ids_count() -> None:
    one = workload()
    other = Workload("random", Inputs(REGIONS, IDS[::-1]), 1)
    assert one.identity.regions_sha256 == other.identity.regions_sha256
    assert one.identity.captions_sha256 != other.identity.captions_sha256
