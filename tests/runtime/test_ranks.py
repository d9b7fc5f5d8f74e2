"""Ranks counted tile by tile, where the logits are, against those of the whole matrix."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda
from fake_engine import FakeEngine
from runtime.trt_world import TrtWorld
from small_models import random_captions, random_regions

from sgraf_deploy.bench.recall import rank_matrix
from sgraf_deploy.bundle import Bundle
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.model.torch_ranks import TorchRankCounter
from sgraf_deploy.runtime import Scorer, TileShape, load
from sgraf_deploy.runtime.cuda.api import RankTile
from sgraf_deploy.runtime.cuda.kernels import COUNT_RANKS
from sgraf_deploy.runtime.logits import combine_logits
from sgraf_deploy.runtime.ranks import ENSEMBLE, Bars, HostRankCounter, RankCounts
from sgraf_deploy.runtime.tiles import TileLimits

IMAGES, PER_IMAGE = 7, 5
LENGTHS = tuple(2 + (5 * number) % 13 for number in range(IMAGES * PER_IMAGE))

Matrices = dict[str, Any]


@pytest.fixture
def inputs(exported: Bundle) -> tuple[Any, Any]:
    config = exported.manifest.members["sgr"].config
    return random_regions(config, IMAGES), random_captions(config, LENGTHS)


@pytest.fixture(params=["native", "ort", "torch", "trt"])
def scorer(request: pytest.FixtureRequest, exported: Bundle, tmp_path: Path) -> Iterator[Scorer]:
    if request.param == "trt":
        world = TrtWorld(exported, tmp_path / "engines")
        world.build("fp32")
        with world.scorer("fp32") as made:
            yield made
        return
    with load(exported, engine=request.param, tile=TileShape(3, 4)) as made:
        yield made


def check(found: RankCounts, matrix: Any, per_image: int = PER_IMAGE) -> None:
    """The counts are those of the matrix."""
    ranks = rank_matrix(matrix, per_image)
    for direction in ("image_to_text", "text_to_image"):
        np.testing.assert_array_equal(getattr(found, direction), getattr(ranks, direction))
    assert np.count_nonzero(found.level_image_to_text) == ranks.tied_image_to_text
    assert np.count_nonzero(found.level_text_to_image) == ranks.tied_text_to_image


def test_ranks_are_those_of_the_matrix(scorer: Scorer, inputs: tuple[Any, Any]) -> None:
    told: list[tuple[int, int]] = []
    found = scorer.count_ranks(*inputs, progress=lambda *step: told.append(step))

    matrices = dict(scorer.logits(*inputs))
    matrices[ENSEMBLE] = combine_logits(*matrices.values())
    assert list(found) == ["sgr", "saf", ENSEMBLE]
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
        pytest.raises(InputError, match=f"expected {per_image} of each, got 35"),
    ):
        made.count_ranks(*inputs, per_image)


@pytest.mark.parametrize("per_image", [0, -5, 5.0, True, float("nan"), "5", None, [5]], ids=repr)
def test_a_number_of_captions_that_is_none_is_refused(
    exported: Bundle, inputs: tuple[Any, Any], per_image: Any
) -> None:
    with (
        load(exported, engine="ort") as made,
        pytest.raises(InputError, match="captions_per_image: expected an integer, at least 1"),
    ):
        made.count_ranks(*inputs, per_image)


def tied(models: int, per_image: int, seed: int = 0) -> Matrices:
    """Logits of few different values."""
    rng = np.random.default_rng(seed)
    names = ["sgr", "saf"][:models]
    size = IMAGES, IMAGES * per_image
    return {name: rng.integers(-3, 4, size).astype(np.float32) for name in names}


def bars_of(matrices: Matrices, per_image: int) -> Bars:
    columns = np.arange(IMAGES * per_image)
    every = {**matrices, **with_ensemble(matrices)}
    truths = {name: each[columns // per_image, columns] for name, each in every.items()}
    best = {name: each.reshape(IMAGES, -1).max(axis=1) for name, each in truths.items()}
    return Bars(best, truths, per_image)


def with_ensemble(matrices: Matrices) -> Matrices:
    return {ENSEMBLE: combine_logits(*matrices.values())} if len(matrices) > 1 else {}


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
@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("kind", ["host", "torch", "cuda"])
def test_ties_count_as_in_the_matrix(
    kind: str, models: int, per_image: int, tmp_path: Path, exported: Bundle
) -> None:
    matrices = tied(models, per_image)
    bars = bars_of(matrices, per_image)
    if kind == "cuda":
        world = TrtWorld(exported, tmp_path, FakeCuda())
        engine = world.engine()
        counter: Any = engine.rank_counter(bars)
        put = engine.put
    elif kind == "torch":
        counter, put = TorchRankCounter(bars, torch.device("cpu")), torch.from_numpy  # type: ignore[assignment]
    else:
        counter, put = HostRankCounter(OnTheHost(), bars), np.asarray  # type: ignore[arg-type,assignment]

    def add(first: int, columns: Any, tile: Matrices) -> None:
        counter.add(first, columns, {name: put(each) for name, each in tile.items()})

    add_tiles(add, matrices, per_image)
    found = counter.result()
    every = {**matrices, **with_ensemble(matrices)}
    assert set(found) == set(every)
    for name, matrix in every.items():
        check(found[name], matrix, per_image)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["host", "torch", "cuda", "kernel"])
def test_a_logit_that_is_not_finite_is_an_error(
    kind: str, value: float, tmp_path: Path, exported: Bundle, request: pytest.FixtureRequest
) -> None:
    matrices = tied(2, 5)
    bars = bars_of(matrices, 5)
    matrices["saf"][4, 17] = value
    expected = pytest.raises(DataError, match="image 4 and caption 17")
    if kind == "host":
        counter: Any = HostRankCounter(OnTheHost(), bars)  # type: ignore[arg-type]
        with expected:
            add_tiles(counter.add, matrices, 5)
        return
    if kind == "torch":
        counter, put = TorchRankCounter(bars, torch.device("cpu")), torch.from_numpy
    else:
        text = kind == "kernel"
        cuda = HostKernel(request.getfixturevalue("kernel")) if text else FakeCuda()
        engine = TrtWorld(exported, tmp_path, cuda).engine()
        counter, put = engine.rank_counter(bars), engine.put  # type: ignore[assignment]
    add_tiles(
        lambda first, columns, tile: counter.add(
            first, columns, {name: put(each) for name, each in tile.items()}
        ),
        matrices,
        5,
    )
    with expected:
        counter.result()


SHIMS = """
#include <math.h>
#define __device__ static
#define __global__
typedef struct { int x; } Index;
typedef struct { int x, y; } int2;
static Index blockIdx, gridDim = {2}, threadIdx, blockDim = {4};
static void atomicAdd(int* target, int value) { *target += value; }
"""

LAUNCH = """
void launch(
    const float* a, const float* b, const int* columns, const float* image_bars,
    const float* caption_bars, int* image_counts, int* caption_counts, int2* wrong,
    int first_image, int images, int captions, int all_images, int all_captions, int per_image)
{
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x)
            count_ranks(a, b, columns, image_bars, caption_bars, image_counts, caption_counts,
                        wrong, first_image, images, captions, all_images, all_captions, per_image);
}
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The kernel's own text, compiled for the host, its threads one after the other."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("kernel")
    source, library = folder / "ranks.c", folder / "ranks.so"
    source.write_text(SHIMS + COUNT_RANKS.replace('extern "C" ', "") + LAUNCH)
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    return ctypes.CDLL(str(library)).launch


class HostKernel(FakeCuda):
    """A fake GPU on which the kernel's own text runs."""

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self._kernel = kernel

    def count_ranks(self, tile: RankTile, stream: Any) -> None:
        first, second = (*tile.logits, 0)[:2]
        pointers = (
            *(first, second, tile.columns, tile.image_bars, tile.caption_bars),
            *(tile.image_counts, tile.caption_counts, tile.wrong),
        )
        sizes = (tile.first_image, tile.images, tile.captions, tile.all_images, tile.all_captions)
        arguments = [*map(ctypes.c_void_p, pointers), *map(ctypes.c_int, sizes)]
        self.put(stream, lambda: self._kernel(*arguments, ctypes.c_int(tile.captions_per_image)))


@pytest.mark.parametrize("models", [1, 2])
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
    for name, matrix in {**matrices, **with_ensemble(matrices)}.items():
        check(found[name], matrix)
