"""Compare R@K of an engine on real data with the literal loop on the same device.

The literal loop is slow, so it runs only once: `reference` saves its logits, and `compare` reads
them. Captions are token ids, so that no tokenizer is needed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.gpu.job import run_job
from sgraf_deploy.bench.gpu.unpack import RealData, read_data
from sgraf_deploy.config import Precision
from sgraf_deploy.engines.torch.literal import GPU_SHARD, LiteralLoop, fastest_device
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.chance import chance_findings
from sgraf_deploy.evaluation.evaluate import by_model
from sgraf_deploy.evaluation.parity import compare
from sgraf_deploy.evaluation.recall import evaluate
from sgraf_deploy.files.writer import staged_file
from sgraf_deploy.runtime.scorer import load

LogitsByMember = dict[str, NDArray[np.float32]]
"""Member -> logits (images, captions)."""


def keep_reference(data: RealData, output: Path) -> dict[str, Any]:
    """Score with the literal loop, save its logits, and return R@K by model.

    `failed` has the reason if the loop did not compute in float32 and is no valid reference.
    """
    device = fastest_device()
    literal = LiteralLoop(data.bundle, device=device)
    if device is not None:  # Small shards leave a GPU idle, and give the same values.
        literal = literal.in_shards(GPU_SHARD)
    start = time.perf_counter()
    images = literal.encode_images(data.regions)
    logits = literal.logits(images, literal.encode_captions(data.token_ids))
    seconds = time.perf_counter() - start
    kept: dict[str, Any] = {**logits}
    with staged_file(output, what="reference") as file:
        np.savez(file, **kept)
    reports = {model: evaluate(x, data.captions_per_image) for model, x in by_model(logits).items()}
    return {
        "yardstick": literal.yardstick.to_json(),
        "failed": [missed] if (missed := literal.yardstick.missed) else [],
        "device": literal.device,
        "images": len(data.regions),
        "captions": len(data.token_ids),
        "seconds": seconds,
        "recall": {model: report.to_json() for model, report in reports.items()},
        "warnings": [finding.message for finding in chance_findings(reports)],
    }


def compare_engine(
    data: RealData, engine: str, precision: Precision, expected: LogitsByMember
) -> dict[str, Any]:
    """R@K and parity of one engine by model; `failed` names every missed bound."""
    with load(data.bundle, engine=engine, precision=precision, max_words=None) as scorer:
        encoded = scorer.encode_images(data.regions), scorer.encode_captions(data.token_ids)
        logits = by_model(scorer.logits(*encoded))
        run = {"engine": engine, "executed": scorer.executed, "device": scorer.device}
    reference, per_image = by_model(expected), data.captions_per_image
    parities = [
        compare(model, reference[model], x, precision=precision, captions_per_image=per_image)
        for model, x in logits.items()
    ]
    return run | {
        "parity": [parity.to_json() for parity in parities],
        "failed": [f"{parity.model}: {bound}" for parity in parities for bound in parity.missed],
    }


def _read(path: Path) -> LogitsByMember:
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise InputError(f"reference {path} cannot be read", got=error) from error


def _job(given: argparse.Namespace) -> dict[str, Any]:
    data = read_data(given.data)
    if given.what == "reference":
        return keep_reference(data, given.output)
    return compare_engine(data, given.engine, given.precision, _read(given.reference))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("reference", "compare"))
    parser.add_argument("data", type=Path, help="unpacked folder")
    parser.add_argument("--output", type=Path, help="file to write the literal loop's logits to")
    parser.add_argument("--reference", type=Path, help="file with the literal loop's logits")
    parser.add_argument("--engine")
    parser.add_argument("--precision")
    return parser


if __name__ == "__main__":
    sys.exit(run_job(_parser(), _job))
