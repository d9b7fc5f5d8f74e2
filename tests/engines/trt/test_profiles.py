"""What a compiled engine takes at most: tiles and batches keep to it, or say what to build."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from support.fake_engine import FakeEngine
from support.refusals import naming, refused
from support.scorers import CAPTIONS, assert_similarities, make_regions, make_token_ids

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GraphName
from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.runtime.tiles import TileLimits

Profiles = Mapping[GraphName, tuple[Mapping[str, int], ...]]

OFFLINE = {"images": 3, "captions": 4, "words": 12}
ONE_CAPTION = {"images": 7, "captions": 1, "words": 12}
PROFILES: Profiles = {
    "image_encoder": ({"images": 2},),
    "text_encoder": ({"captions": 2, "words": 12},),
    "scorer": (OFFLINE, ONE_CAPTION),
    "pair_scorer": ({"images": 3, "captions": 2, "pairs": 5, "words": 12},),
}


def scorer_of(bundle: Bundle, profiles: Profiles | None) -> tuple[Scorer, FakeEngine]:
    engine = FakeEngine(bundle, profiles=profiles)
    return Scorer(bundle, engine, precision="fp32", limits=TileLimits()), engine


def test_everything_is_cut_to_the_profiles(bundle: Bundle) -> None:
    """The fake refuses what fits none of them."""
    free, _ = scorer_of(bundle, None)
    bound, engine = scorer_of(bundle, PROFILES)
    regions, captions = make_regions(10), make_token_ids(17)
    assert_similarities(bound.score(regions, captions), free.score(regions, captions))
    rng = np.random.default_rng(1)
    index = rng.integers(0, 10, 40), rng.integers(0, 17, 40)
    found, expected = (each.score_pairs(regions, captions, *index) for each in (bound, free))
    assert_similarities(found, expected)
    assert {name for name, _ in engine.shapes} == set(PROFILES)


def test_a_query_takes_the_profile_that_is_made_for_it(
    bundle: Bundle, regions: NDArray[np.float32]
) -> None:
    scorer, engine = scorer_of(bundle, PROFILES)
    images = scorer.encode_images(regions[:7])
    engine.shapes.clear()
    scorer.rerank(CAPTIONS[0], images)
    assert [shape[0] for name, shape in engine.shapes if name == "scorer"] == [7, 7]  # members


def test_a_caption_beyond_every_profile_names_the_command(bundle: Bundle) -> None:
    scorer, engine = scorer_of(bundle, PROFILES)
    captions = make_token_ids(3, longest=9)
    captions[1] = np.ones(13, np.int32)
    hint = "sgraf-deploy compile --max-words 13"
    with refused(DataError, 1, expected=naming(12), got=13, hint=hint):
        scorer.encode_captions(captions)
    assert not engine.calls
