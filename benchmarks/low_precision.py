"""What a low precision of the local projection alone costs, on real data: FP8 and INT8, emulated.

    python benchmarks/low_precision.py --checkpoint sgr.pth.tar --checkpoint saf.pth.tar \
        --vocab vocab.json --data f8k_precomp --split dev --limit-images 200 --json FILE

Everything else is float32. `fp8` is what the package does; the others were tried beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from sgraf_deploy.bench.run import processor
from sgraf_deploy.config import Module, member_names
from sgraf_deploy.data.captions import encode_captions
from sgraf_deploy.data.precomp import PrecompSplit, open_precomp
from sgraf_deploy.data.tokenizer import VOCABULARY, Tokenizer
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.evaluation.evaluate import by_model
from sgraf_deploy.evaluation.parity import compare
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.model.folded import LARGEST_SQUARE, Encoded, FoldedModel
from sgraf_deploy.model.folding import FoldedWeights, fold
from sgraf_deploy.model.ops import E4M3_LARGEST
from sgraf_deploy.model.torch_ops import TorchOps
from sgraf_deploy.versions import tool_versions

CPU = torch.device("cpu")
CALIBRATION_IMAGES = 40
CALIBRATION_SPLIT = "train"
ROOM = 1.25
"""By how much a range for INT8 exceeds the largest square that calibration saw."""

Product = Callable[[Tensor], Tensor]


class Projected(FoldedModel[Tensor]):
    """The folded model in float32, which keeps the alignments' squares or projects them anew."""

    project: Product | None = None
    squares: list[Tensor]

    def _local_alignments(
        self, weights: Tensor, regions: list[Tensor], words: list[Tensor]
    ) -> Tensor:
        difference = torch.matmul(weights, torch.cat(regions, -1)) - torch.cat(words, -1)
        square = difference * difference
        if self.project is None:
            real = torch.cat(words, -1).abs().sum(-1) > 0
            self.squares.append(square[:, real].reshape(-1, square.shape[-1]))
            return super()._local_alignments(weights, regions, words)
        return self._l2norm(self.project(square))


def products(folded: FoldedWeights, squares: Tensor) -> dict[str, Product]:
    """Recipes by name: from squares (…, embed) to the projection (…, sim_dim)."""
    weight = torch.from_numpy(folded.local_alignment.weight)
    bias = torch.from_numpy(folded.local_alignment.bias)
    exact, ops = TorchOps("fp32", CPU), TorchOps("fp8-rounded", CPU)
    mean, top = squares.mean(0), squares.amax(0)
    coarse = e4m3(weight, weight.abs().amax(0) / E4M3_LARGEST)
    scale = float(top.max()) / E4M3_LARGEST
    shifted = bias + mean @ weight

    def int8(largest: Tensor) -> Product:
        """Codes -127 … 127 from 0 to the largest, of one or of each column."""
        scaled = weight * largest.unsqueeze(-1)
        rounded = codes(scaled, scaled.abs().amax(0) / 127)
        offset = bias + scaled.sum(0) / 2 + (mean / largest - 0.5) @ (scaled - rounded)
        return lambda x: codes(x / largest - 0.5, torch.tensor(1 / 254)) @ rounded + offset

    return {
        "fp32": lambda x: exact.linear(x, weight, bias),
        "fp8": lambda x: ops.linear(x, weight, bias, bound=LARGEST_SQUARE),
        "fp8, scales of the data": lambda x: e4m3(x, torch.tensor(scale)) @ coarse + bias,
        "fp8, without the mean": lambda x: e4m3(x - mean, torch.tensor(scale)) @ coarse + shifted,
        "int8": int8((ROOM * top.max()).expand(len(top))),
        "int8, by column": int8(ROOM * (top * top.max()).sqrt()),
    }


def e4m3(x: Tensor, scale: Tensor) -> Tensor:
    """The nearest values that E4M3 has, times the scale."""
    scaled = (x / scale).clamp(-E4M3_LARGEST, E4M3_LARGEST)
    return scaled.to(torch.float8_e4m3fn).float() * scale


def codes(x: Tensor, scale: Tensor) -> Tensor:
    """The nearest of the 255 values that a symmetric INT8 has, times the scale."""
    return (x / scale).round().clamp(-127, 127) * scale


def tiles(
    model: Projected, split: PrecompSplit, rows: range, vocabulary: Vocabulary
) -> Iterator[tuple[slice, list[int], Encoded[Tensor]]]:
    """Encoded images and captions of a few images, in tiles of 50 x 50, by length."""
    token_ids, _ = encode_captions(
        [split.captions[5 * row + turn] for row in rows for turn in range(5)],
        Tokenizer(VOCABULARY, vocabulary=vocabulary),
        vocabulary,
    )
    order = np.argsort([len(ids) for ids in token_ids], kind="stable").tolist()
    regions = torch.from_numpy(np.asarray(split.regions[rows], dtype=np.float32))
    images = model.image_encoder(regions)
    for start in range(0, len(order), 50):
        chosen = order[start : start + 50]
        parts = [torch.from_numpy(token_ids[column]) for column in chosen]
        lengths = torch.tensor([len(part) for part in parts], dtype=torch.int32)
        texts = model.text_encoder(
            torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), lengths
        )
        for first in range(0, len(rows), 50):
            part = slice(first, first + 50)
            yield part, chosen, Encoded.of(tuple(each[part] for each in images), texts, lengths)


def score(
    checkpoint: Path, vocabulary: Vocabulary, calibration: PrecompSplit, split: PrecompSplit
) -> tuple[Module, dict[str, Any]]:
    """A member's module, and its logits (images, captions) by recipe."""
    read = read_checkpoint(checkpoint)
    folded = fold(read.config, read.weights)
    model = Projected(folded, TorchOps("fp32", CPU))
    model.squares = []
    step = calibration.images // CALIBRATION_IMAGES
    for _, _, encoded in tiles(model, calibration, range(0, calibration.images, step), vocabulary):
        model.scorer(encoded)
    found = products(folded, torch.cat(model.squares))
    shape = split.images, 5 * split.images
    logits = {name: np.empty(shape, dtype=np.float32) for name in found}
    for rows, columns, encoded in tiles(model, split, range(split.images), vocabulary):
        for name, project in found.items():
            model.project = project
            logits[name][rows, columns] = model.scorer(encoded).numpy()
    return read.config.module, logits


@click.command()
@click.option("--checkpoint", "checkpoints", type=Path, multiple=True, required=True)
@click.option("--vocab", type=Path, required=True)
@click.option("--data", type=Path, required=True, help="Also calibrated on, its split train.")
@click.option("--split", "name", required=True)
@click.option("--limit-images", type=int)
@click.option("--json", "json_file", type=Path)
def main(
    checkpoints: tuple[Path, ...],
    vocab: Path,
    data: Path,
    name: str,
    limit_images: int | None,
    json_file: Path | None,
) -> None:
    """Compare every recipe's logits and R@K with float32's."""
    split = open_precomp(data, name, limit_images=limit_images)
    calibration, vocabulary = open_precomp(data, CALIBRATION_SPLIT), Vocabulary.load(vocab)
    with torch.inference_mode():
        scored = [score(path, vocabulary, calibration, split) for path in checkpoints]
    members = member_names(module for module, _ in scored)
    recipes = {
        recipe: by_model(
            {name: logits[recipe] for name, (_, logits) in zip(members, scored, strict=True)}
        )
        for recipe in scored[0][1]
    }
    models = {
        model: {recipe: found[model] for recipe, found in recipes.items()}
        for model in recipes["fp32"]
    }
    report: dict[str, Any] = {
        "command": _command(checkpoints, vocab, data, split),
        "processor": processor(),
        "versions": tool_versions(),
        "images": split.images,
        "models": {
            model: {recipe: figures(logits["fp32"], found) for recipe, found in logits.items()}
            for model, logits in models.items()
        },
    }
    text = json.dumps(report, indent=1)
    sys.stdout.write(text + "\n")
    if json_file is not None:
        write_json(json_file, report)


def _command(checkpoints: tuple[Path, ...], vocab: Path, data: Path, split: PrecompSplit) -> str:
    """What repeats this run, wherever the files are."""
    given = " ".join(f"--checkpoint {path.name}" for path in checkpoints)
    where = f"--vocab {vocab.name} --data {data.name} --split {split.name}"
    return f"python benchmarks/low_precision.py {given} {where} --limit-images {split.images}"


def figures(reference: Any, logits: Any) -> dict[str, Any]:
    """Differences of logits as shares of their standard deviation, R@K's in points."""
    found = compare("", reference, logits, precision="fp8", captions_per_image=5)
    square = np.square(logits - reference, dtype=np.float64).mean()
    return {
        "rms": float(np.sqrt(square)) / found.deviation,
        "largest": found.largest / found.deviation,
        "spearman": found.spearman,
        "points": found.deltas,
        "missed": [str(bound) for bound in found.missed],
        "rsum": found.recall.rsum if found.recall else None,
    }


if __name__ == "__main__":
    main()
