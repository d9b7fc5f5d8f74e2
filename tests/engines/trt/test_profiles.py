"""What a compiled engine takes at most: tiles and batches keep to it, or say what to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from support.fake_engine import FakeEngine
from support.onnx_bundles import small_config
from support.refusals import naming, refused
from support.scorers import CAPTIONS, assert_similarities, make_regions, make_token_ids
from support.sidecars import SIDECAR

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GraphName, signature
from sgraf_deploy.engines.trt.plans import Profile, largest_sizes
from sgraf_deploy.engines.trt.rtx import REBUILD
from sgraf_deploy.errors import BundleError, DataError
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


ENCODER = signature("text_encoder", small_config(), "fp16")
BATCH: Profile = {"token_ids": ((1, 2), (8, 16), (64, 32)), "lengths": ((1,), (8,), (64,))}
QUERY: Profile = {"token_ids": ((1, 2), (1, 16), (1, 87)), "lengths": ((1,), (1,), (1,))}


def test_every_profile_has_its_largest_sizes_by_axis() -> None:
    found = largest_sizes(ENCODER, replace(SIDECAR, profiles=(BATCH, QUERY)))
    assert found == ({"captions": 64, "words": 32}, {"captions": 1, "words": 87})


def test_an_axis_of_one_size_is_none_that_varies() -> None:
    config = small_config()
    spec = signature("image_encoder", config, "fp16")
    shape = (5, config.regions, config.img_dim)
    sidecar = replace(SIDECAR, profiles=({"regions": (shape, shape, shape)},))
    assert largest_sizes(spec, sidecar) == ({"images": 5},)


@pytest.mark.parametrize(
    "other",
    [
        {"lengths": BATCH["lengths"]},
        {**BATCH, "token_ids": BATCH["lengths"]},
        {**BATCH, "regions": BATCH["lengths"]},
    ],
    ids=["one-too-few", "fewer-axes", "one-too-many"],
)
def test_profiles_of_other_inputs_are_refused(other: Profile) -> None:
    sidecar = replace(SIDECAR, profiles=(BATCH, other))
    found = {name: len(largest) for name, (_, _, largest) in other.items()}
    right = {"token_ids": 2, "lengths": 1}
    with refused(BundleError, sidecar.plan, expected=right, got=found, hint=REBUILD):
        largest_sizes(ENCODER, sidecar)
