"""Images that are stored as float16 score as the same numbers in float32 do, to the bit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.native_cases import SMALL, Case, Inputs, make_inputs, native_model, scored
from support.refusals import naming, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import CAPTIONS_PER_IMAGE
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.engines.ensemble import similarities
from sgraf_deploy.engines.native import library
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gate.correlation import spearman
from sgraf_deploy.gate.tolerances import FP16_LOGITS_SHARE_DATA, FP16_SIMILARITIES, FP16_SPEARMAN
from sgraf_deploy.runtime import EncodedImages, RerankCall, Scorer, load

pytestmark = [
    pytest.mark.skipif(not library.LIBRARY.exists(), reason="engine native was not compiled"),
    pytest.mark.usefixtures("instruction_set"),
]

PAPER = Case("SAF", embed=1024, sim_dim=256)
HALVES = ("region_embeddings", "image_global")
LENGTHS = [4, 30, 11, 2, 250, 8, 8, 25, 1, 17, 14, 3]


def listed(case: Case, inputs: Inputs, rows: Any, columns: Any) -> NDArray[np.float32]:
    index = {
        "image_index": np.asarray(rows, np.int32),
        "caption_index": np.asarray(columns, np.int32),
    }
    logits = np.full(len(rows), np.nan, np.float32)
    native_model(case).score(inputs | index, logits)
    return logits


def in_halves(inputs: Inputs, names: tuple[str, ...] = HALVES) -> tuple[Inputs, Inputs]:
    """The inputs with some of the images' embeddings as float16, and these numbers in float32."""
    half = inputs | {name: inputs[name].astype(np.float16) for name in names}
    return half, half | {name: half[name].astype(np.float32) for name in names}


@pytest.mark.parametrize("gram", [True, False], ids=["gram", "no gram"])
@pytest.mark.parametrize("names", [HALVES, HALVES[:1], HALVES[1:]], ids=["both", *HALVES])
@pytest.mark.parametrize("case", [*SMALL, PAPER], ids=str)
def test_the_same_numbers_give_the_same_bits(
    case: Case, names: tuple[str, ...], gram: bool
) -> None:
    inputs = make_inputs(case, 40, LENGTHS)
    if not gram:
        del inputs["region_gram"]
    half, single = in_halves(inputs, names)
    whole = scored(native_model(case), single)
    assert np.isfinite(whole).all()
    assert np.array_equal(scored(native_model(case), half), whole)
    some = np.random.default_rng(0).integers(0, whole.size, 300)
    some[100:200].sort()
    rows, columns = np.divmod(some, len(LENGTHS))
    assert np.array_equal(listed(case, half, rows, columns), whole[rows, columns])


def test_every_number_of_float16_is_read() -> None:
    """In all places of a vector and past the last whole one; subnormal numbers and zeros, too."""
    case = Case("SAF", embed=265, sim_dim=7, regions=5)
    finite = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = finite[np.isfinite(finite)]
    size = case.regions * case.embed
    images = -(-3 * len(finite) // size)
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.permutation(finite) for _ in range(4)])[: images * size]
    inputs = make_inputs(case, images, [3, 1])
    del inputs["region_gram"]
    inputs["region_embeddings"] = numbers.reshape(images, case.regions, case.embed)
    inputs["image_global"] = rng.choice(finite, (images, case.embed))
    half, single = in_halves(inputs)
    whole = scored(native_model(case), single)
    assert np.isfinite(whole).mean() > 0.99
    assert np.array_equal(scored(native_model(case), half), whole, equal_nan=True)
    tiny = 2.0**-24
    half["region_embeddings"] = np.full_like(half["region_embeddings"], tiny)
    single["region_embeddings"] = np.full_like(single["region_embeddings"], tiny)
    assert np.array_equal(
        scored(native_model(case), half), scored(native_model(case), single), equal_nan=True
    )


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_what_is_no_number_stays_none(number: float) -> None:
    case = Case("SAF", embed=8, sim_dim=3, regions=1)
    inputs = make_inputs(case, 3, [2, 3])
    inputs["image_global"][1, 5] = number
    half, single = in_halves(inputs)
    whole = scored(native_model(case), single)
    assert np.isnan(whole[1]).all()
    assert np.array_equal(scored(native_model(case), half), whole, equal_nan=True)


def halved(scorer: Scorer, images: EncodedImages) -> EncodedImages:
    return scorer.images_from_host(
        {
            member: {
                name: array.astype(np.float16) if name in HALVES else array
                for name, array in arrays.items()
            }
            for member, arrays in images.to_host().items()
        }
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from sgraf_deploy.demo.assets import export_demo

    return export_demo(tmp_path_factory.mktemp("demo") / "demo.sgraf").bundle


def test_trained_models_keep_the_bounds_of_fp16(demo: Bundle, shared: Path) -> None:
    """Against the literal reference, every member, by matrix, pairs, ranks and calls."""
    split = open_precomp(shared / "field" / "37-good", "test")
    regions, captions = np.asarray(split.regions), split.captions
    with load(demo, engine="torch-reference") as literal:
        right = literal.logits(regions, captions)
    with load(demo, engine="native") as scorer:
        single, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
        images = halved(scorer, single)
        found = scorer.logits(images, texts)
        for member, logits in found.items():
            reference = right[member]
            bound = FP16_LOGITS_SHARE_DATA * reference.std()
            assert 0 < np.abs(logits - reference).max() <= bound
            assert np.abs(similarities(logits) - similarities(reference)).max() <= FP16_SIMILARITIES
            assert spearman(logits.ravel(), reference.ravel()) >= FP16_SPEARMAN
        rows, columns = np.divmod(np.random.default_rng(0).permutation(2000), 100)
        for member, logits in scorer.logits_pairs(images, texts, rows, columns).items():
            assert np.array_equal(logits, found[member][rows, columns])
        counts = scorer.count_ranks(images, texts, CAPTIONS_PER_IMAGE)
        exact = scorer.count_ranks(single, texts, CAPTIONS_PER_IMAGE)
        for model, ranks in counts.items():
            assert np.mean(ranks.text_to_image == exact[model].text_to_image) > 0.95
        (best,) = scorer.rerank_many([RerankCall(captions[7], range(20))], images)
        alone = scorer.rerank(captions[7], images)
        np.testing.assert_allclose(best.logits, alone.logits, rtol=0, atol=1e-6)


def test_no_wider_copy_of_a_gallery_is_made(exported: Bundle) -> None:
    with load(exported, engine="native", threads=1) as scorer:
        config = next(iter(exported.manifest.members.values())).config
        rng = np.random.default_rng(0)
        regions = rng.normal(size=(4_000, config.regions, config.img_dim)).astype(np.float32)
        images = halved(scorer, scorer.encode_images(regions))
        captions = scorer.encode_captions([[1, 5, 2], [1, 7, 9, 2]])
        gallery = images.members["sgr"].region_embeddings.nbytes
        rows = rng.integers(0, 4_000, 100)
        scorer.score(images[:2], captions)  # Workspaces are kept.
        uses: list[Callable[[], object]] = [
            lambda: scorer.score(images, captions),
            lambda: scorer.score_pairs(images, captions, rows, rows % 2),
            lambda: scorer.count_ranks(images[:2], captions, 1),
            lambda: scorer.rerank_many([RerankCall([1, 5, 2], rows)], images),
            lambda: scorer.rerank([1, 5, 2], images[100:300]),
        ]
        for use in uses:
            tracemalloc.start()
            try:
                use()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < gallery / 4


def test_parts_stay_float16(exported: Bundle) -> None:
    with load(exported, engine="native") as scorer:
        config = next(iter(exported.manifest.members.values())).config
        regions = np.ones((5, config.regions, config.img_dim), np.float32)
        single = scorer.encode_images(regions)
        images = halved(scorer, single)
        assert images.nbytes < 0.7 * single.nbytes
        for part in (images[[3, 1]], images[2:4], images.concatenate([images[:2], images[4]])):
            for member in part.members.values():
                assert member.region_embeddings.dtype == np.float16
                assert member.image_global.dtype == np.float16


def test_nothing_else_may_be_float16(exported: Bundle) -> None:
    with load(exported, engine="native") as scorer, load(exported, engine="ort") as other:
        config = next(iter(exported.manifest.members.values())).config
        regions = np.ones((3, config.regions, config.img_dim), np.float32)
        rows = scorer.encode_images(regions).to_host()
        rows["sgr"]["region_gram"] = rows["sgr"]["region_gram"].astype(np.float16)
        with refused(
            DataError, "sgr.region_gram", expected=naming("float32"), got=naming("float16")
        ):
            scorer.images_from_host(rows)
        rows = scorer.encode_images(regions).to_host()
        rows["saf"]["image_global"] = rows["saf"]["image_global"].astype(np.float16)
        with refused(
            DataError, "saf.image_global", expected=naming("float32"), got=naming("float16")
        ):
            other.images_from_host(rows)
        captions = scorer.encode_captions([[1, 5, 2]])
        texts = captions.to_host()
        texts["sgr"]["text_global"] = texts["sgr"]["text_global"].astype(np.float16)
        with refused(DataError, "sgr.text_global", expected=naming("float32")):
            scorer.captions_from_host(captions.lengths, texts)
        graph = scorer._context.engine.open("sgr", "scorer")
        inputs = make_inputs(Case(embed=config.embed, regions=config.regions), 2, [2, 3])
        inputs["word_embeddings"] = inputs["word_embeddings"].astype(np.float16)
        with refused(InputError, "word_embeddings", expected=naming("float32")):
            graph.run(inputs)
