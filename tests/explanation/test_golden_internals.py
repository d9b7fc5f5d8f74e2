"""The graphs `explain` of the authors' checkpoints against the float64 internals of the literal
loop: every case, every pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.golden import CASES, ENGINES

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import ModelConfig
from sgraf_deploy.engines.base import Engine, EngineOptions
from sgraf_deploy.engines.buffers import Array
from sgraf_deploy.engines.registry import open_engine
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.reference import Reference
from sgraf_deploy.runtime import load

ATTENTION, OTHERS, SUMS = 2e-5, 1e-5, 1e-6
"""Largest differences: of attention, of everything else, and of what sums to 1."""

Arrays = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Case:
    """What the literal loop gives in float64, and the same inputs in float32 for the graph."""

    bundle: Bundle
    config: ModelConfig
    inputs: Arrays
    expected: Arrays
    bias: float
    regions: Array
    captions: list[Array]

    @property
    def member(self) -> str:
        return next(iter(self.bundle.manifest.members))

    def run(self, engine: Engine, inputs: Arrays) -> Arrays:
        graph = engine.explainer(self.member)
        assert graph is not None
        outputs = graph.run({name: engine.put(value) for name, value in inputs.items()})
        return {name: engine.fetch(value) for name, value in outputs.items()}


def golden(shared: Path, name: str, folder: Path) -> Case:
    source = shared / "golden" / name
    checkpoint = read_checkpoint(source / "checkpoint.pth.tar")
    options = ExportOptions(precisions=("fp32",))
    bundle = export_bundle([source / "checkpoint.pth.tar"], folder / "it.sgraf", options).bundle
    with np.load(source / "expected.npz") as arrays:
        given = dict(arrays)
    model = Reference(checkpoint.config, checkpoint.weights, torch.float64)
    lengths = torch.from_numpy(given["lengths"].astype(np.int64))
    regions = model.encode_images(torch.from_numpy(given["regions"]).double())
    words = model.encode_captions(torch.from_numpy(given["token_ids"].astype(np.int64)), lengths)
    encoded = Encoded(
        regions, model.image_globals(regions), words, model.text_globals(words, lengths), lengths
    )
    rows, columns = np.divmod(np.arange(len(regions) * len(words), dtype=np.int32), len(words))
    expected = model.explain(encoded, torch.from_numpy(rows), torch.from_numpy(columns))
    inputs = {
        "region_embeddings": encoded.region_embeddings.float().numpy(),
        "image_global": encoded.image_global.float().numpy(),
        "word_embeddings": encoded.word_embeddings.float().numpy(),
        "text_global": encoded.text_global.float().numpy(),
        "lengths": given["lengths"].astype(np.int32),
        "image_index": rows,
        "caption_index": columns,
    }
    bias = float(checkpoint.weights["similarity.bias"][0])
    found = {name: value.numpy() for name, value in expected.items()}
    counts = given["lengths"].tolist()
    ids = [row[:count] for row, count in zip(given["token_ids"], counts, strict=True)]
    return Case(bundle, checkpoint.config, inputs, found, bias, given["regions"], ids)


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    return golden(shared, request.param, tmp_path_factory.mktemp("explained"))


def gaps(found: Arrays, expected: Arrays) -> dict[str, float]:
    """The largest difference by output; the logits' is relative to max(1, |logit|)."""
    assert found.keys() == expected.keys()
    largest = {}
    for name, values in found.items():
        assert values.shape == expected[name].shape, name
        assert values.dtype == np.float32, name
        gap = np.abs(values - expected[name])
        scale = np.maximum(1.0, np.abs(expected[name])) if name == "logits" else 1.0
        largest[name] = float((gap / scale).max())
    return largest


@pytest.mark.parametrize("engine", ENGINES)
def test_every_pair_is_as_in_the_literal_loop(case: Case, engine: str) -> None:
    running = open_engine(engine, case.bundle, "fp32", EngineOptions(threads=1))

    found = case.run(running, case.inputs)

    assert len(found["logits"]) == 77
    for name, gap in gaps(found, case.expected).items():
        assert gap <= (ATTENTION if name == "attention" else OTHERS), name
    check_properties(case, found)
    running.close()


def check_properties(case: Case, found: Arrays) -> None:
    """Sums, padding that is exactly 0, and SAF's logit from its parts."""
    lengths = case.inputs["lengths"][case.inputs["caption_index"]]
    words = np.arange(found["attention"].shape[1]) < lengths[:, None]
    nodes = np.arange(words.shape[1] + 1) < 1 + lengths[:, None]
    assert sums_to_one(found["attention"], words)
    assert not found["alignments"][~nodes].any()
    if case.config.module == "SAF":
        assert not found["gates"][~nodes].any()
        assert not found["kept"][~nodes].any()
        assert not found["contribution"][~nodes].any()
        assert np.abs(found["kept"].sum(axis=1) - 1).max() <= SUMS
        logits = found["contribution"].sum(axis=1) + case.bias
        assert np.abs(logits - found["logits"]).max() <= OTHERS
        return
    steps = found["edges"].transpose(1, 0, 2, 3)
    assert len(steps) == case.config.sgr_steps
    only = np.zeros_like(nodes)
    only[:, 0] = True
    for step, edges in enumerate(steps):
        assert sums_to_one(edges, only if step == len(steps) - 1 else nodes)
        assert not edges.transpose(0, 2, 1)[~nodes].any()


def sums_to_one(rows: Array, real: NDArray[np.bool_]) -> bool:
    """Whether real rows, of (pairs, rows, n), sum to 1, and others are exactly 0."""
    sums = rows.sum(axis=-1)
    return bool(np.abs(sums[real] - 1).max() <= SUMS and not rows[~real].any())


def test_a_pair_is_the_same_alone_and_padded(case: Case) -> None:
    running = open_engine("ort", case.bundle, "fp32", EngineOptions(threads=1))
    batch = case.run(running, case.inputs)

    for pair in (0, 30, 76):
        image, caption = (int(case.inputs[f"{name}_index"][pair]) for name in ("image", "caption"))
        length = int(case.inputs["lengths"][caption])
        for padding in (0, 5):
            found = case.run(running, alone(case, image, caption, padding))
            expected = {
                name: cut(name, values[pair], length)[None] for name, values in batch.items()
            }
            real = {name: cut(name, values[0], length)[None] for name, values in found.items()}
            assert max(gaps(real, expected).values()) <= OTHERS
            rest = sum(np.abs(values).sum() for values in found.values())
            assert rest == pytest.approx(sum(np.abs(values).sum() for values in real.values()))
    running.close()


def alone(case: Case, image: int, caption: int, padding: int) -> Arrays:
    """The inputs of one pair, its caption cut to its words and padded again."""
    length = int(case.inputs["lengths"][caption])
    words = case.inputs["word_embeddings"][caption : caption + 1, :length]
    zero = np.zeros(1, np.int32)
    return {
        "region_embeddings": case.inputs["region_embeddings"][image : image + 1],
        "image_global": case.inputs["image_global"][image : image + 1],
        "word_embeddings": np.pad(words, ((0, 0), (0, padding), (0, 0))),
        "text_global": case.inputs["text_global"][caption : caption + 1],
        "lengths": np.array([length], np.int32),
        "image_index": zero,
        "caption_index": zero,
    }


def cut(name: str, values: Array, length: int) -> Array:
    """One pair's values without padding."""
    if name == "logits":
        return values
    if name == "edges":
        return values[:, : length + 1, : length + 1]
    return values[: length + (name != "attention")]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_logits_are_the_scorers(case: Case, engine: str) -> None:
    rows, columns = case.inputs["image_index"], case.inputs["caption_index"]
    lengths = case.inputs["lengths"]
    with load(case.bundle, engine, options=EngineOptions(threads=1)) as scorer:
        running = scorer._context.engine
        images = scorer.encode_images(case.regions)
        captions = scorer.encode_captions(case.captions)
        scored = scorer.logits_pairs(images, captions, rows, columns)[case.member]
        padded = captions.word_rows(slice(None), int(lengths.max()))
        words = captions.members[case.member]
        buffers = images.members[case.member]
        found = case.run(
            running,
            {
                "region_embeddings": running.fetch(buffers.region_embeddings),
                "image_global": running.fetch(buffers.image_global),
                "word_embeddings": running.fetch(running.gather(words.word_embeddings, padded)),
                "text_global": running.fetch(words.text_global),
                "lengths": lengths,
                "image_index": rows,
                "caption_index": columns,
            },
        )["logits"]
    assert np.all(np.abs(found - scored) <= OTHERS * np.maximum(1, np.abs(scored)))
