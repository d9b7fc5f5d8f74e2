"""Bundles that were written before images had Gram matrices score as ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from closeness import assert_close
from numpy.typing import NDArray
from runtime.helpers import CAPTIONS
from runtime.onnx_bundles import write_bundle

from sgraf_deploy.runtime import load


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_they_score_and_are_saved(
    precision: str, regions: NDArray[np.float32], tmp_path: Path
) -> None:
    old, new = (write_bundle(tmp_path / f"{gram}.sgraf", gram=gram) for gram in (False, True))
    with (
        load(old, engine="ort", precision=precision) as before,  # type: ignore[arg-type]
        load(new, engine="ort", precision=precision) as after,  # type: ignore[arg-type]
    ):
        images = before.encode_images(regions)
        assert all(member.region_gram is None for member in images.members.values())
        again = before.load_images(before.save_encoded(images, tmp_path / "images"))
        found = before.score(again[[3, 1, 2]], CAPTIONS)
        expected = after.score(regions[[3, 1, 2]], CAPTIONS)
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
