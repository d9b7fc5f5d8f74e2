"""The fused scorer, in Triton's interpreter, against the literal loop in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from support.closeness import assert_close, condition_of, scorer_depth
from support.random_weights import random_weights
from support.refusals import naming, refused
from support.small_models import LENGTHS, SAF, SGR, VARIANTS, random_regions
from support.small_models import padded as pad
from support.small_models import random_captions as captions_of
from torch import Tensor

from sgraf_deploy.config import PAPER, ModelConfig, Precision
from sgraf_deploy.engines.fused.blocks import Blocks
from sgraf_deploy.engines.fused.fit import HOPPER, KIB, Gpu, choose_blocks
from sgraf_deploy.engines.fused.scorer import FusedScorer, Launch, run
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.gate.tolerances import FP16_LOGITS_SHARE
from sgraf_deploy.model import reference
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.folding import fold

CPU = torch.device("cpu")
IMAGES = 3

SLOW = pytest.mark.slow
"""Triton's interpreter takes seconds, on some machines ten, for what a GPU does in no time."""

SMALL = Blocks(32, 32, 16, 16, 16, 16, embed=16, sim_dim=16, pooled=16, columns=16)
"""Every axis of the small models takes several blocks."""


@dataclass(frozen=True)
class Case:
    """Encoded inputs, and the logits of the literal loop in float64."""

    config: ModelConfig
    weights: dict[str, Any]
    encoded: Encoded[Tensor]
    expected: Tensor

    def score(self, precision: Precision = "fp32", blocks: Blocks = SMALL) -> Tensor:
        scorer = FusedScorer(fold(self.config, self.weights), precision, CPU, blocks=blocks)
        return scorer(self.stored(precision))

    def stored(self, precision: Precision) -> Encoded[Tensor]:
        dtype = torch.float16 if precision == "fp16" else torch.float32
        return Encoded(
            self.encoded.region_embeddings.to(dtype),
            self.encoded.image_global.to(dtype),
            self.encoded.word_embeddings.to(dtype),
            self.encoded.text_global.to(dtype),
            self.encoded.lengths,
        )


def make_case(
    config: ModelConfig,
    lengths: tuple[int, ...] = LENGTHS,
    images: int = IMAGES,
    *,
    zeros: bool = False,
) -> Case:
    """Random weights and inputs; with `zeros` image 0 is encoded to zero vectors."""
    weights = random_weights(config, 3)
    regions = random_regions(config, images)
    if zeros:
        weights["image_encoder.projection.bias"] *= 0
        regions[0] = 0
    literal = reference.build_model(config, weights, torch.float64)
    token_ids, counts = map(torch.from_numpy, pad(captions_of(config, lengths)))
    embeddings = literal.image_encoder(torch.from_numpy(regions).double())
    words = literal.text_encoder(token_ids.long(), counts)
    encoded = Encoded(
        embeddings,
        literal.image_global(embeddings),
        words,
        reference.text_globals(literal, words, counts),
        counts,
    )
    return Case(config, weights, encoded, reference.score(literal, embeddings, words, counts))


def check(found: Tensor, case: Case, precision: Precision = "fp32") -> None:
    expected = case.expected
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    if precision == "fp32":
        depth = scorer_depth(case.config, int(case.encoded.lengths.max()))
        assert_close(found, expected, depth, condition=condition_of(case.config))
    else:
        assert float((found - expected).abs().max()) <= FP16_LOGITS_SHARE * float(expected.std())


@pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=[] if name in ("sgr-2-steps", "saf") else SLOW) for name in VARIANTS],
)
def test_logits_are_those_of_the_literal_loop(variant: str) -> None:
    case = make_case(VARIANTS[variant])
    assert case.expected.std() > 1e-3
    check(case.score(), case)


@SLOW
@pytest.mark.parametrize("variant", ["sgr", "sgr-1-step", "saf", "sgr-odd-sizes"])
def test_half_operands_stay_within_the_gates_bound(variant: str) -> None:
    case = make_case(VARIANTS[variant])
    check(case.score("fp16"), case, "fp16")


@SLOW
@pytest.mark.parametrize(
    ("gpu", "precision"),
    [(HOPPER, "fp16"), (HOPPER, "fp32"), (Gpu((12, 0), 99 * KIB), "fp16")],
    ids=["9.0-fp16", "9.0-fp32", "12.0-fp16"],
)
@pytest.mark.parametrize("module", [SGR, SAF], ids=["sgr", "saf"])
def test_with_the_blocks_that_a_gpu_gets(
    module: ModelConfig, gpu: Gpu, precision: Precision
) -> None:
    """Those of the paper's dimensions; embed takes several, and so does the longest caption."""
    blocks = choose_blocks(PAPER[module.module], precision, gpu)
    config = replace(module, regions=36, embed=100, sim_dim=40)
    case = make_case(config, (*LENGTHS, blocks.nodes + 2))
    check(case.score(precision, blocks), case, precision)


@SLOW
@pytest.mark.parametrize(
    "lengths",
    [(2, 2, 2), (2,), (1, 6, 1), (1,), (80, 2, 33, 17), (15, 16, 14), (1,) * 40],
    ids=["shortest", "one", "one-word", "one-of-one-word", "up-to-80", "edge-of-block", "many"],
)
@pytest.mark.parametrize("module", [SGR, SAF], ids=["sgr", "saf"])
def test_captions_of_any_length(module: ModelConfig, lengths: tuple[int, ...]) -> None:
    case = make_case(replace(module, sgr_steps=min(module.sgr_steps, 2)), lengths, images=2)
    check(case.score(), case)


@SLOW
@pytest.mark.parametrize("module", [SGR, SAF], ids=["sgr", "saf"])
def test_one_image(module: ModelConfig) -> None:
    case = make_case(module, images=1)
    check(case.score(), case)


@SLOW
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("module", [SGR, SAF], ids=["sgr", "saf"])
def test_an_image_of_zeros(module: ModelConfig, precision: Precision) -> None:
    case = make_case(module, zeros=True)
    assert not case.encoded.region_embeddings[0].any()
    check(case.score(precision), case, precision)


@SLOW
@pytest.mark.parametrize("module", [SGR, SAF], ids=["sgr", "saf"])
def test_padding_is_never_read(module: ModelConfig) -> None:
    case = make_case(module)
    words = case.encoded.word_embeddings.clone()
    for row, length in enumerate(LENGTHS):
        words[row, length:] = torch.nan
    wide = torch.cat([words, torch.full_like(words, torch.nan)], dim=1)
    dirty = replace(case, encoded=replace(case.encoded, word_embeddings=wide))
    assert torch.equal(dirty.score(), case.score())


@SLOW
@pytest.mark.parametrize("module", [SGR, SAF], ids=["sgr", "saf"])
def test_duplicates_score_alike(module: ModelConfig) -> None:
    """Wherever in a tile an image or a caption lies, its regions repeated or not."""
    case = make_case(module)
    rows, columns = torch.tensor([2, 0, 1, 0, 2]), torch.tensor([5, 1, 1, 3, 0, 3, 4, 2])
    source = case.encoded
    repeated = Encoded(
        source.region_embeddings[rows],
        source.image_global[rows],
        source.word_embeddings[columns],
        source.text_global[columns],
        source.lengths[columns],
    )
    again = replace(case, encoded=repeated, expected=case.expected[rows][:, columns])
    found = again.score()
    check(found, again)
    depth = scorer_depth(module, max(LENGTHS))
    assert_close(found[0], found[4], depth)
    assert_close(found[:, 3], found[:, 5], depth)


def test_threads_that_come_first_share_the_constants() -> None:
    """A second thread asks for a layer at the moment at which the first has kept a part of it."""
    scorer = FusedScorer(fold(SGR, random_weights(SGR, 3)), "fp32", CPU, blocks=SMALL)
    layer = scorer._weights.similarity
    seen: list[dict[str, Tensor]] = []

    class Kept(dict[str, Any]):
        def __setitem__(self, name: str, value: Any) -> None:
            super().__setitem__(name, value)
            seen.append(scorer._linear(layer))

    scorer._constants = Kept()
    found = scorer._linear(layer)

    assert found.keys() == {"weight", "bias"}
    assert all(each[name] is found[name] for each in seen for name in found)


def compiled_for(launch: Launch) -> tuple[object, ...]:
    """What Triton compiles a kernel anew for."""
    constants = launch.kernel.fn.__annotations__
    free = launch.kernel.kwargs["do_not_specialize"] or ()
    found: list[object] = [launch.kernel.__name__, launch.warps, launch.stages]
    for name, value in launch.arguments.items():
        if isinstance(value, Tensor):
            found.append((name, value.dtype, value.data_ptr() % 16 == 0))
        elif name in constants:
            found.append((name, value))
        elif name not in free:
            found.append((name, value == 1, value % 16 == 0))
    return tuple(found)


@pytest.mark.parametrize("module", [SGR, SAF], ids=["sgr", "saf"])
def test_tiles_of_any_size_share_one_compiled_kernel(module: ModelConfig) -> None:
    variants: dict[str, set[tuple[object, ...]]] = {}

    def note(launch: Launch) -> None:
        variants.setdefault(launch.kernel.__name__, set()).add(compiled_for(launch))

    weights = fold(module, random_weights(module, 3))
    scorer = FusedScorer(weights, "fp32", CPU, blocks=SMALL, launch=note)
    for images, captions in ((1, 1), (3, 6), (16, 16)):
        regions = torch.zeros(images, module.regions, module.embed)
        words = torch.zeros(captions, 5, module.embed)
        counts = torch.full((captions,), 5, dtype=torch.int32)
        scorer(Encoded(regions, regions[:, 0], words, words[:, 0], counts))
    assert len(variants) == (8 if module.sgr_steps else 5)
    assert {name: len(found) for name, found in variants.items()} == dict.fromkeys(variants, 1)


@pytest.mark.parametrize(("images", "captions"), [(0, 6), (3, 0), (0, 0)])
def test_nothing_to_score(images: int, captions: int) -> None:
    whole = make_case(SGR).stored("fp32")
    encoded = Encoded(
        whole.region_embeddings[:images],
        whole.image_global[:images],
        whole.word_embeddings[:captions],
        whole.text_global[:captions],
        whole.lengths[:captions],
    )
    scorer = FusedScorer(fold(SGR, random_weights(SGR, 3)), "fp32", CPU, blocks=SMALL)
    assert scorer(encoded).shape == (images, captions)


def test_a_gpu_too_small_for_a_kernel_is_named() -> None:
    from triton.runtime.errors import OutOfResources

    class Kernel:
        __name__ = "local_alignments"

        def __getitem__(self, _: object) -> Any:
            def refuse(**_: object) -> None:
                raise OutOfResources(172032, 101376, "shared memory")

            return refuse

    with refused(UnavailableError, "local_alignments", got=naming(172032), hint="torch"):
        run(Launch(Kernel(), 1, {}, 8, 3))
