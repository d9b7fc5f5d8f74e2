"""`sgraf-deploy features` on the shared photographs, compared with the features of Flickr8k."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.cli_world import done, line_naming
from support.feature_writer import content
from support.photographs import SHARED_PHOTOGRAPHS

from sgraf_deploy.bundle.bundle import Bundle

PHOTOS, REGIONS = 120, 36
WAYS, RANKS = ("image_to_text", "text_to_image"), ("r1", "r5", "r10")

pytestmark = pytest.mark.slow


def test_extracted_features_are_the_stored_ones_and_rank_as_they_do(
    shared: Path, lite2_file: Path, trained: Bundle, tmp_path: Path
) -> None:
    projection = shared / "data" / "f8k_photos" / "f8k_projection.npz"
    spec = f"grid:{lite2_file},size=192,mean=127,scale=128,projection={projection}"
    stored = shared / "data" / "f8k_precomp"
    for folder, jobs in (("one", 1), ("two", 2)):
        done(
            *("features", shared / SHARED_PHOTOGRAPHS, "--extractor", spec),
            *("-o", tmp_path / folder, "--split", "dev", "--dtype", "float16", "--jobs", jobs),
        )
    assert content(tmp_path / "one") == content(tmp_path / "two")
    result = done(
        *("features", "-o", tmp_path / "one", "--split", "dev", "--compare", stored),
        *("--like", trained.path, "--json", tmp_path / "found.json"),
    )
    assert result.warned == []
    found = json.loads((tmp_path / "found.json").read_text())
    features, recall = found["features"], found["recall"]
    assert (features["images"], features["regions"]) == (PHOTOS, PHOTOS * REGIONS)
    assert features["only_second"] == 880
    assert features["lowest"] >= 0.9995
    assert features["equal"] >= 0.97
    # The ranks of 600 captions among 120 photographs: one is 0.17 points.
    for model in ("SGR", "SAF", "SGRAF"):
        first, second = (
            [each[model][way][rank] for way in WAYS for rank in RANKS] for each in recall
        )
        assert np.abs(np.array(first) - second).max() <= 1.7
    line_naming(result.stdout, "SGRAF")
