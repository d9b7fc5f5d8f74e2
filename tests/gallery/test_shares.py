"""Several who score tiles of one matrix each read from galleries the rows of their tiles alone."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_galleries import IMAGE_IDS, IMAGES, REGIONS, caption_gallery, image_gallery

from sgraf_deploy.engines.ensemble import ensemble_logits
from sgraf_deploy.runtime import Scorer, TileShape
from sgraf_deploy.runtime.tiles import TileLimits
from sgraf_deploy.runtime.tiling import make_tiling


def test_parts_from_galleries_are_those_of_the_whole(scorer: Scorer, tmp_path: Path) -> None:
    photos = image_gallery(scorer, tmp_path / "images")
    lines = caption_gallery(scorer, tmp_path / "captions")
    captions = lines.captions(scorer, lines.ids())
    configs = [member.config for member in scorer.bundle.manifest.members.values()]
    shape = TileShape(2, 3)
    tiling = make_tiling(IMAGES, captions.lengths, configs, TileLimits(), shape)
    assert photos.ids() == IMAGE_IDS

    parts = []
    for number, tile in enumerate(tiling):
        images = photos.images(scorer, IMAGE_IDS[tile.images])
        assert len(images) <= shape.images
        parts.append(
            scorer.top_k_tiles(
                images, captions, 4, [number], tiling=tiling, first_image=tile.first_image
            )
        )

    found = reduce(add, parts).result()
    assert len(parts) > 8
    matrix = ensemble_logits(scorer.logits(scorer.encode_images(REGIONS), captions))
    sides = ((found["image_to_text"], matrix), (found["text_to_image"], matrix.T))
    for listed, logits in sides:
        best = np.argsort(-logits, axis=1, kind="stable")[:, :4]
        values: Any = np.take_along_axis(logits, best, axis=1)
        assert listed.logits == pytest.approx(values, rel=1e-4, abs=1e-5)
        np.testing.assert_array_equal(listed.indices, best)
