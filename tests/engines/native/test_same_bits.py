"""A pair has the same bits whatever it is scored with: alone, listed, padded, in any tile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.native_cases import SMALL, Case, Inputs, make_inputs, native_model, scored
from support.older_bundles import without_gram_for_pairs
from support.scorers import make_token_ids

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.engines.native import library
from sgraf_deploy.runtime import TileShape, load

pytestmark = [
    pytest.mark.skipif(not library.LIBRARY.exists(), reason="engine native was not compiled"),
    pytest.mark.usefixtures("instruction_set"),
]

LENGTHS = [4, 30, 11, 2, 250, 8, 8, 25, 1, 17, 14, 3]
IMAGES = 7


def listed(case: Case, inputs: Inputs, rows: Any, columns: Any) -> NDArray[np.float32]:
    """The logits of listed pairs."""
    index = {
        "image_index": np.asarray(rows, dtype=np.int32),
        "caption_index": np.asarray(columns, dtype=np.int32),
    }
    logits = np.full(len(index["image_index"]), np.nan, np.float32)
    native_model(case).score(inputs | index, logits)
    return logits


def part(inputs: Inputs, images: Any, captions: Any, words: int) -> Inputs:
    """Some images and captions, padded to so many words."""
    image = ("region_embeddings", "image_global", "region_gram")
    found = {name: x[images if name in image else captions] for name, x in inputs.items()}
    found["word_embeddings"] = found["word_embeddings"][:, :words]
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


@pytest.mark.parametrize("gram", [True, False], ids=["gram", "no gram"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_in_any_order_and_any_company(case: Case, gram: bool) -> None:
    inputs = make_inputs(case, IMAGES, LENGTHS)
    if not gram:
        del inputs["region_gram"]
    whole = scored(native_model(case), inputs)
    rng = np.random.default_rng(0)
    rows, columns = np.divmod(rng.permutation(whole.size), len(LENGTHS))

    assert np.array_equal(listed(case, inputs, rows, columns), whole[rows, columns])
    some = rng.integers(0, whole.size, 300)  # Some twice, some not at all.
    some[100:200].sort()
    rows, columns = np.divmod(some, len(LENGTHS))
    assert np.array_equal(listed(case, inputs, rows, columns), whole[rows, columns])
    for row, column in ((0, 0), (6, 11), (3, 4), (5, 8)):
        assert listed(case, inputs, [row], [column]) == whole[row, column]
        alone = part(inputs, [row], [column], LENGTHS[column])
        assert scored(native_model(case), alone) == whole[row, column]
        assert listed(case, alone, [0], [0]) == whole[row, column]
    short = [place for place, length in enumerate(LENGTHS) if length <= 30]
    for images, captions in ([2, 6], short), ([1], short[::-1]), (range(IMAGES), short[2:5]):
        tile = part(inputs, list(images), captions, 33)
        assert np.array_equal(
            scored(native_model(case), tile), whole[np.ix_(list(images), captions)]
        )


def check_bundle(bundle: Bundle, regions: NDArray[Any], captions: Any) -> None:
    """Pairs in any order, and tiles of several shapes, have the bits of the whole matrix."""
    with load(bundle, engine="native") as scorer:
        images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
        whole = scorer.logits(images, texts)
        order = np.random.default_rng(0).permutation(len(images) * len(texts))
        rows, columns = np.divmod(order, len(texts))
        pairs = scorer.logits_pairs(images, texts, rows, columns)
        assert set(pairs) == set(whole) == set(bundle.manifest.members)
        for member, logits in whole.items():
            assert logits.std() > 1e-3
            assert np.array_equal(pairs[member], logits[rows, columns]), member
        one = scorer.logits_pairs(images, texts, rows[:1], columns[:1])
        assert all(one[member] == whole[member][rows[0], columns[0]] for member in whole)
    for tile in (TileShape(1, 1), TileShape(3, 7)):
        with load(bundle, engine="native", tile=tile) as scorer:
            found = scorer.logits(
                scorer.images_from_host(images.to_host()),
                scorer.captions_from_host(texts.lengths, texts.to_host()),
            )
        for member, logits in whole.items():
            assert np.array_equal(found[member], logits), (member, tile)


@pytest.fixture(scope="module")
def bundles(exported: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Of today, and of before pairs, and before anything, took Gram matrices."""
    return {
        "of today": exported,
        "scorers take it": without_gram_for_pairs(
            exported, tmp_path_factory.mktemp("older") / "older.sgraf"
        ),
        "none takes it": Bundle.open(Path(__file__).parents[2] / "fixtures" / "v1.sgraf"),
    }


@pytest.mark.parametrize("age", ["of today", "scorers take it", "none takes it"])
def test_in_a_bundle_of_any_age(bundles: dict[str, Bundle], age: str) -> None:
    config = next(iter(bundles[age].manifest.members.values())).config
    shape = (9, config.regions, config.img_dim)
    regions = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    captions = [1 + ids % (config.vocab_size - 1) for ids in make_token_ids(31, longest=40)]
    check_bundle(bundles[age], regions, captions)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from sgraf_deploy.demo.assets import export_demo

    return export_demo(tmp_path_factory.mktemp("demo") / "demo.sgraf").bundle


def test_of_trained_models_on_their_scenes(demo: Bundle, shared: Path) -> None:
    """The inputs of field/43-same-bits."""
    split = open_precomp(shared / "field" / "37-good", "test")
    assert (split.images, len(split.captions)) == (20, 100)
    check_bundle(demo, split.regions, split.captions)
