"""Bundles from before images had Gram matrices, or pairs took them, score as ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.closeness import assert_close
from support.onnx_bundles import write_bundle
from support.scorers import CAPTIONS

from sgraf_deploy.config import GraphName
from sgraf_deploy.runtime import load

EARLIER: dict[str, tuple[GraphName, ...]] = {
    "none": (),
    "scorers alone": ("image_encoder", "scorer"),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("gram", EARLIER.values(), ids=EARLIER)
def test_they_score_and_come_from_the_host(
    precision: str, gram: tuple[GraphName, ...], regions: NDArray[np.float32], tmp_path: Path
) -> None:
    old = write_bundle(tmp_path / "old.sgraf", gram=gram)
    new = write_bundle(tmp_path / "new.sgraf")
    with (
        load(old, engine="ort", precision=precision) as before,  # type: ignore[arg-type]
        load(new, engine="ort", precision=precision) as after,  # type: ignore[arg-type]
    ):
        images = before.encode_images(regions)
        made = {member.region_gram is not None for member in images.members.values()}
        assert made == {bool(gram) and precision == "fp32"}
        again = before.images_from_host(images.to_host())
        found = before.score(again[[3, 1, 2]], CAPTIONS)
        expected = after.score(regions[[3, 1, 2]], CAPTIONS)
        assert np.array_equal(found, expected)
        pairs = ([1, 0, 2], [0, 1, 0])
        found = before.score_pairs(again[[3, 1, 2]], CAPTIONS, *pairs)
        expected = after.score_pairs(regions[[3, 1, 2]], CAPTIONS, *pairs)
        assert np.array_equal(found, expected)


def test_what_is_new_about_an_image_is_kept_with_it(
    regions: NDArray[np.float32], tmp_path: Path
) -> None:
    with load(write_bundle(tmp_path / "new.sgraf"), engine="ort") as scorer:
        images = scorer.encode_images(regions)
        joined = images.concatenate([images[4:], images[[0, 1]]])
        for member in joined.members.values():
            wide = member.region_embeddings.astype(np.float64)
            assert member.region_gram is not None
            assert member.region_gram.dtype == np.float32
            assert_close(member.region_gram, wide @ wide.transpose(0, 2, 1), wide.shape[-1])
