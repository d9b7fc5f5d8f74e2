"""Checkpoints and outputs of the authors' code: every variant, exported, on every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.closeness import (
    assert_close,
    assert_similar,
    condition_of,
    image_global_depth,
    logits_depth,
    text_global_depth,
)
from support.golden import CASES, ENGINES
from support.mutations import Tried

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS, GraphName, ModelConfig, Precision
from sgraf_deploy.export.exporter import export_bundle
from sgraf_deploy.gate.executors import EVALUATOR, executor_name, open_graph
from sgraf_deploy.gate.tolerances import FP16_LOGITS_SHARE
from sgraf_deploy.gate.values import Run
from sgraf_deploy.runtime import EngineOptions, Scorer, TileShape, load
from sgraf_deploy.runtime.tiles import TileLimits

TILES = [TileShape(*shape) for shape in ((1, 1), (3, 2), (2, 5), (7, 1), (1, 11), (50, 50))]

OPTIONS = EngineOptions(threads=1)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Golden:
    """One case: its bundle, its inputs and what the authors' code computed."""

    name: str
    bundle: Bundle
    arrays: Arrays

    @property
    def member(self) -> str:
        return next(iter(self.bundle.manifest.members))

    @property
    def regions(self) -> NDArray[np.float32]:
        return self.arrays["regions"]

    @property
    def lengths(self) -> NDArray[np.int32]:
        return self.arrays["lengths"].astype(np.int32)

    @property
    def captions(self) -> list[NDArray[np.int32]]:
        """Token ids without padding."""
        ids = self.arrays["token_ids"].astype(np.int32)
        return [row[:length] for row, length in zip(ids, self.lengths, strict=True)]

    @property
    def scores(self) -> NDArray[np.float32]:
        return self.arrays["scores"]

    @property
    def logits(self) -> NDArray[np.float64]:
        scores = self.scores.astype(np.float64)
        result: NDArray[np.float64] = np.log(scores) - np.log1p(-scores)
        return result

    @property
    def config(self) -> ModelConfig:
        return self.bundle.manifest.members[self.member].config

    def check_scores(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        depth = logits_depth(self.config, int(self.lengths.max()))
        assert_similar(found, expected, depth, condition=condition_of(self.config))

    def check_embeddings(self, found: NDArray[Any], expected: NDArray[np.float32]) -> None:
        words = int(self.lengths.max())
        overall = text_global_depth(self.config, words), image_global_depth(self.config)
        assert_close(found, expected, max(overall))


@pytest.fixture(scope="module")
def goldens(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Golden]:
    """Every case, exported."""
    found = []
    for name in CASES:
        folder = shared / "golden" / name
        target = tmp_path_factory.mktemp("golden") / f"{name}.sgraf"
        bundle = export_bundle([folder / "checkpoint.pth.tar"], target).bundle
        with np.load(folder / "expected.npz") as arrays:
            found.append(Golden(name, bundle, dict(arrays)))
    return found


@pytest.fixture(scope="module", params=ENGINES)
def scorers(request: pytest.FixtureRequest, goldens: list[Golden]) -> Iterator[list[Scorer]]:
    """One of every case, on one engine."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(load(golden.bundle, engine=request.param, options=OPTIONS))
            for golden in goldens
        ]


Check = Callable[..., None]


def every_case(*choices: Iterable[Any]) -> Callable[[Check], Callable[[list[Golden]], None]]:
    """Makes a test of a check of a case: of all of them, with every combination of choices."""

    def make(check: Check) -> Callable[[list[Golden]], None]:
        def test(goldens: list[Golden]) -> None:
            try_all(check, ((golden,) for golden in goldens), choices)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return make


def every_engine(
    *choices: Iterable[Any],
) -> Callable[[Check], Callable[[list[Golden], list[Scorer]], None]]:
    """The same of a check of a case and its scorer: a test of all cases for each engine."""

    def make(check: Check) -> Callable[[list[Golden], list[Scorer]], None]:
        def test(goldens: list[Golden], scorers: list[Scorer]) -> None:
            try_all(check, zip(goldens, scorers, strict=True), choices)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return make


def try_all(
    check: Check, cases: Iterable[tuple[Any, ...]], choices: tuple[Iterable[Any], ...]
) -> None:
    """Go on after what fails, and tell all of it by the case's name and the choice."""
    with Tried() as trying:
        for case, chosen in product(cases, product(*choices)):
            with trying(" ".join(map(str, (case[0].name, *chosen)))):
                check(*case, *chosen)


def test_every_case_there_is_is_tested(shared: Path) -> None:
    assert sorted(path.name for path in (shared / "golden").iterdir()) == sorted(CASES)


@every_case()
def test_the_cases_tell_right_from_wrong(golden: Golden) -> None:
    """Scores that hardly differ would pass whatever the graphs compute."""
    assert golden.scores.shape == (len(golden.regions), len(golden.captions)) == (7, 11)
    assert golden.scores.std() > 1e-3
    assert golden.lengths.min() == 2
    assert golden.lengths.max() == golden.arrays["token_ids"].shape[1]


@every_engine()
def test_the_whole_batch(golden: Golden, scorer: Scorer) -> None:
    golden.check_scores(scorer.score(golden.regions, golden.captions), golden.scores)


@every_engine()
def test_the_embeddings(golden: Golden, scorer: Scorer) -> None:
    images = scorer.encode_images(golden.regions)
    captions = scorer.encode_captions(golden.captions)
    fetch = images.origin.engine.fetch

    buffers = images.members[golden.member]
    golden.check_embeddings(fetch(buffers.region_embeddings), golden.arrays["region_embeddings"])
    golden.check_embeddings(fetch(buffers.image_global), golden.arrays["image_global"])
    words = fetch(captions.members[golden.member].word_embeddings)
    for row, (offset, length) in enumerate(zip(captions.offsets, captions.lengths, strict=True)):
        assert length == golden.lengths[row]
        expected = golden.arrays["word_embeddings"][row, :length]
        golden.check_embeddings(words[offset : offset + length], expected)


@every_engine()
def test_one_image_and_one_caption_at_a_time(golden: Golden, scorer: Scorer) -> None:
    images = [scorer.encode_images(golden.regions[row][None]) for row in range(7)]
    captions = [scorer.encode_captions([caption]) for caption in golden.captions]

    found = [[scorer.score(image, caption).item() for caption in captions] for image in images]

    golden.check_scores(np.array(found, dtype=np.float32), golden.scores)


@every_engine(TILES)
def test_any_tile(golden: Golden, scorer: Scorer, tile: TileShape) -> None:
    engine = scorer._context.engine
    shaped = Scorer(golden.bundle, engine, precision="fp32", limits=TileLimits(), tile=tile)

    golden.check_scores(shaped.score(golden.regions, golden.captions), golden.scores)


@every_engine()
def test_any_order(golden: Golden, scorer: Scorer) -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(7), rng.permutation(11)
    captions = [golden.captions[column] for column in columns]

    found = scorer.score(golden.regions[rows], captions)

    golden.check_scores(found, golden.scores[np.ix_(rows, columns)])


@every_engine()
def test_pairs(golden: Golden, scorer: Scorer) -> None:
    rows, columns = np.divmod(np.random.default_rng(0).permutation(77), 11)

    found = scorer.score_pairs(golden.regions, golden.captions, rows, columns)

    golden.check_scores(found, golden.scores[rows, columns])


@every_engine([0, 1, 9])
def test_padded_to_any_length(golden: Golden, scorer: Scorer, extra: int) -> None:
    """All captions in one batch, as long as the longest and longer."""
    engine = scorer._context.engine

    def run(graph: GraphName, inputs: Arrays) -> Arrays:
        buffers = {key: engine.put(array) for key, array in inputs.items()}
        outputs = engine.open(golden.member, graph).run(buffers)
        return {key: engine.fetch(buffer) for key, buffer in outputs.items()}

    arrays = all_outputs(golden, extra, {graph: in_graph(graph, run) for graph in GRAPHS})

    padding = ((0, 0), (0, extra), (0, 0))
    expected = np.pad(golden.arrays["word_embeddings"], padding)
    golden.check_embeddings(arrays["word_embeddings"], expected)
    golden.check_scores(sigmoid(arrays["scorer"]), golden.scores)
    golden.check_scores(sigmoid(arrays["pair_scorer"]), golden.scores.ravel())


def in_graph(graph: GraphName, run: Any) -> Run:
    return lambda inputs: run(graph, inputs)


def all_outputs(golden: Golden, extra: int, runs: dict[GraphName, Run]) -> Arrays:
    """Every graph's outputs on the whole batch, padded by `extra` words; logits by graph."""
    ids = np.pad(golden.arrays["token_ids"].astype(np.int32), ((0, 0), (0, extra)))
    outputs = runs["image_encoder"]({"regions": golden.regions})
    outputs |= runs["text_encoder"]({"token_ids": ids, "lengths": golden.lengths})
    inputs = outputs | {"lengths": golden.lengths}
    rows, columns = np.divmod(np.arange(77, dtype=np.int32), np.int32(11))
    index = {"image_index": rows, "caption_index": columns}
    return outputs | {
        "scorer": runs["scorer"](inputs)["logits"],
        "pair_scorer": runs["pair_scorer"](inputs | index)["logits"],
    }


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float32]:
    similarities: NDArray[np.float32] = 1 / (1 + np.exp(-logits))
    return similarities


@every_case([0, 3])
def test_fp16_graphs_in_the_evaluator(golden: Golden, extra: int) -> None:
    assert executor_name("fp16") == EVALUATOR
    paths = {graph: golden.bundle.graph_path(golden.member, graph, "fp16") for graph in GRAPHS}

    runs = {graph: open_graph(path, "fp16") for graph, path in paths.items()}
    arrays = all_outputs(golden, extra, runs)

    assert arrays["region_embeddings"].dtype == arrays["word_embeddings"].dtype == np.float16
    check_half(arrays["scorer"], golden.logits)
    check_half(arrays["pair_scorer"], golden.logits.ravel())


@every_case([None, TileShape(3, 2)])
def test_fp16_on_the_torch_engine(golden: Golden, tile: TileShape | None) -> None:
    precision: Precision = "fp16"
    with load(
        golden.bundle, engine="torch", precision=precision, options=OPTIONS, tile=tile
    ) as scorer:
        assert scorer.executed in ("fp16-rounded", "fp16")
        check_half(scorer.logits(golden.regions, golden.captions)[golden.member], golden.logits)
        rows, columns = np.divmod(np.arange(77), 11)
        pairs = scorer.logits_pairs(golden.regions, golden.captions, rows, columns)
        check_half(pairs[golden.member], golden.logits.ravel())


def check_half(found: NDArray[Any], expected: NDArray[np.float64]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    largest = np.abs(found - expected).max()
    assert 0 < largest <= FP16_LOGITS_SHARE * expected.std()
