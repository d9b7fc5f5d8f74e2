"""Ranks counted tile by tile, where the logits are, against those of the whole matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.fake_cuda import FakeCuda
from support.fake_engine import FakeEngine
from support.host_kernel import HostKernel
from support.parts import check_ranks as check
from support.refusals import naming, refused
from support.small_models import random_captions, random_regions
from support.trt_world import TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import ensemble_name
from sgraf_deploy.engines.ensemble import with_ensemble
from sgraf_deploy.engines.ranks import HostRankCounter, Thresholds
from sgraf_deploy.engines.torch.ranks import TorchRankCounter
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime import Scorer, TileShape, load
from sgraf_deploy.runtime.tiles import TileLimits

IMAGES, PER_IMAGE = 7, 5
LENGTHS = tuple(2 + (5 * number) % 13 for number in range(IMAGES * PER_IMAGE))

Matrices = dict[str, Any]


NAMES = ("sgr", "saf", "sgr-2", "saf-2", "sgr-3", "sgr-4")


@pytest.fixture
def inputs(exported: Bundle) -> tuple[Any, Any]:
    config = exported.manifest.members["sgr"].config
    return random_regions(config, IMAGES), random_captions(config, LENGTHS)


@pytest.fixture(params=["two", "three"])
def bundle(request: pytest.FixtureRequest, exported: Bundle, three: Bundle) -> Bundle:
    return {"two": exported, "three": three}[request.param]


@pytest.fixture(params=["native", "ort", "torch", "trt"])
def scorer(request: pytest.FixtureRequest, bundle: Bundle, tmp_path: Path) -> Iterator[Scorer]:
    if request.param == "trt":
        world = TrtWorld(bundle, tmp_path / "engines")
        world.build("fp32")
        with world.scorer("fp32") as made:
            yield made
        return
    with load(bundle, engine=request.param, tile=TileShape(3, 4)) as made:
        yield made


def test_ranks_are_those_of_the_matrix(scorer: Scorer, inputs: tuple[Any, Any]) -> None:
    told: list[tuple[int, int]] = []
    found = scorer.count_ranks(*inputs, progress=lambda *step: told.append(step))

    matrices = with_ensemble(scorer.logits(*inputs))
    assert list(found) == [*scorer.members, ensemble_name(scorer.members)]
    for name, matrix in matrices.items():
        check(found[name], matrix)
    assert told[-1] == (IMAGES * len(LENGTHS), IMAGES * len(LENGTHS))


def test_on_the_gpu_counts_alone_come_back(
    exported: Bundle, inputs: tuple[Any, Any], tmp_path: Path
) -> None:
    world = TrtWorld(exported, tmp_path / "engines")
    world.build("fp32")
    with world.scorer("fp32") as made:
        images, captions = made.encode_images(inputs[0]), made.encode_captions(inputs[1])
        made.count_ranks(images, captions)
    assert world.cuda.calls["count_ranks"] > 4


def test_a_tile_that_did_not_fit_is_counted_once(exported: Bundle, inputs: tuple[Any, Any]) -> None:
    def made(memory: int | None) -> Scorer:
        engine = FakeEngine(exported, memory=memory)
        return Scorer(exported, engine, precision="fp32", limits=TileLimits())

    expected = made(None).count_ranks(*inputs)
    found = made(60).count_ranks(*inputs)
    for name, counts in expected.items():
        for field in ("image_to_text", "text_to_image", "level_text_to_image"):
            np.testing.assert_array_equal(getattr(found[name], field), getattr(counts, field))


@pytest.mark.parametrize("per_image", [4, 6])
def test_captions_that_are_not_the_images_are_refused(
    exported: Bundle, inputs: tuple[Any, Any], per_image: int
) -> None:
    with (
        load(exported, engine="ort") as made,
        refused(InputError, 7, expected=naming(per_image), got=35),
    ):
        made.count_ranks(*inputs, per_image)


@pytest.mark.parametrize("per_image", [0, -5, 5.0, True, float("nan"), "5", None, [5]], ids=repr)
def test_a_number_of_captions_that_is_none_is_refused(
    exported: Bundle, inputs: tuple[Any, Any], per_image: Any
) -> None:
    with (
        load(exported, engine="ort") as made,
        refused(InputError, "captions_per_image", expected=naming(1), got=naming(repr(per_image))),
    ):
        made.count_ranks(*inputs, per_image)


def tied(models: int, per_image: int, seed: int = 0) -> Matrices:
    """Logits of few different values."""
    rng = np.random.default_rng(seed)
    size = IMAGES, IMAGES * per_image
    return {name: rng.integers(-3, 4, size).astype(np.float32) for name in NAMES[:models]}


def bars_of(matrices: Matrices, per_image: int) -> Thresholds:
    columns = np.arange(IMAGES * per_image)
    every = with_ensemble(matrices)
    truths = {name: each[columns // per_image, columns] for name, each in every.items()}
    best = {name: each.reshape(IMAGES, -1).max(axis=1) for name, each in truths.items()}
    return Thresholds(best, truths, per_image)


def add_tiles(add: Callable[..., None], matrices: Matrices, per_image: int) -> None:
    order = np.random.default_rng(1).permutation(IMAGES * per_image).astype(np.int32)
    for rows in (slice(0, 3), slice(3, 7)):
        for columns in np.array_split(order, 3):
            add(rows.start, columns, {n: m[rows][:, columns].copy() for n, m in matrices.items()})


class OnTheHost:
    """An engine whose buffers are arrays."""

    def fetch(self, buffer: Any) -> Any:
        return buffer


@pytest.mark.parametrize("per_image", [1, 5])
@pytest.mark.parametrize("models", [1, 2, 3])
@pytest.mark.parametrize("kind", ["host", "torch", "cuda"])
def test_ties_count_as_in_the_matrix(
    kind: str, models: int, per_image: int, tmp_path: Path, exported: Bundle
) -> None:
    matrices = tied(models, per_image)
    thresholds = bars_of(matrices, per_image)
    if kind == "cuda":
        world = TrtWorld(exported, tmp_path, FakeCuda())
        engine = world.engine()
        counter: Any = engine.rank_counter(thresholds)
        put = engine.put
    elif kind == "torch":
        counter, put = TorchRankCounter(thresholds, torch.device("cpu")), torch.from_numpy  # type: ignore[assignment]
    else:
        counter, put = HostRankCounter(OnTheHost().fetch, thresholds), np.asarray  # type: ignore[assignment]

    def add(first: int, columns: Any, tile: Matrices) -> None:
        counter.add(first, columns, {name: put(each) for name, each in tile.items()})

    add_tiles(add, matrices, per_image)
    found = counter.result()
    every = with_ensemble(matrices)
    assert list(found) == list(every)
    for name, matrix in every.items():
        check(found[name], matrix, per_image)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["host", "torch", "cuda", "kernel"])
def test_a_logit_that_is_not_finite_is_an_error(
    kind: str, value: float, tmp_path: Path, exported: Bundle, request: pytest.FixtureRequest
) -> None:
    matrices = tied(3, 5)
    thresholds = bars_of(matrices, 5)
    matrices["sgr-2"][4, 17] = value
    expected = refused(DataError, 4, 17, expected=naming(), hint="sgraf-deploy verify")
    if kind == "host":
        counter: Any = HostRankCounter(OnTheHost().fetch, thresholds)
        with expected:
            add_tiles(counter.add, matrices, 5)
        return
    if kind == "torch":
        counter, put = TorchRankCounter(thresholds, torch.device("cpu")), torch.from_numpy
    else:
        text = kind == "kernel"
        cuda = HostKernel(request.getfixturevalue("kernel")) if text else FakeCuda()
        engine = TrtWorld(exported, tmp_path, cuda).engine()
        counter, put = engine.rank_counter(thresholds), engine.put  # type: ignore[assignment]
    add_tiles(
        lambda first, columns, tile: counter.add(
            first, columns, {name: put(each) for name, each in tile.items()}
        ),
        matrices,
        5,
    )
    with expected:
        counter.result()


@pytest.mark.parametrize("models", [1, 2, 3, 6])
def test_the_kernels_own_text_counts_right(
    kernel: Any, models: int, tmp_path: Path, exported: Bundle
) -> None:
    rng = np.random.default_rng(5)
    matrices = {
        n: m + rng.normal(0, 1, m.shape).astype(np.float32) for n, m in tied(models, 5).items()
    }
    engine = TrtWorld(exported, tmp_path, HostKernel(kernel)).engine()
    counter = engine.rank_counter(bars_of(matrices, 5))
    add_tiles(
        lambda first, columns, tile: counter.add(
            first, columns, {name: engine.put(each) for name, each in tile.items()}
        ),
        matrices,
        5,
    )
    found = counter.result()
    for name, matrix in with_ensemble(matrices).items():
        check(found[name], matrix)
