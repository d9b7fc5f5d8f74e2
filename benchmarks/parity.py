"""Logits, ranks and R@K of an engine beside the literal loop, on real data.

Every rank that changed is listed with its gap in the reference, and said to be explained or
not by the design's bound on logits, which does not depend on what was measured here.

    python benchmarks/parity.py BUNDLE --data DIR --split dev --limit-images 100
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import machine

from sgraf_deploy.bench.evaluate import Evaluation, evaluate_split
from sgraf_deploy.bench.rank_changes import explain_changes, measure_difference, spearman
from sgraf_deploy.config import PRECISIONS, Precision
from sgraf_deploy.data.precomp import PrecompSplit, open_precomp
from sgraf_deploy.export.gate import FP16_LOGITS_SHARE_DATA, FP32_LOGITS
from sgraf_deploy.runtime.scorer import load


def run(bundle: Path, engine: str, precision: Precision, split: PrecompSplit) -> Evaluation:
    """Evaluate the split on one engine."""
    with load(bundle, engine=engine, precision=precision) as scorer:
        return evaluate_split(scorer, split)


def compare(reference: Evaluation, result: Evaluation, precision: Precision) -> dict[str, Any]:
    """Differences by model; a bound that is missed shows as `within_bound` false."""
    models = {}
    for name, expected in reference.logits.items():
        logits = result.logits[name]
        if precision == "fp32":
            bound = FP32_LOGITS * max(1.0, float(np.abs(expected).max()))
        else:
            bound = FP16_LOGITS_SHARE_DATA * float(expected.std())
        largest = measure_difference(expected, logits)
        models[name] = {
            "largest_difference": largest,
            "bound": bound,
            "within_bound": largest <= bound,
            "spearman": spearman(logits.ravel(), expected.ravel()),
            "reference": reference.reports[name].to_json(),
            "result": result.reports[name].to_json(),
            "ranks": explain_changes(expected, logits, largest_difference=bound).to_json(),
        }
    return models


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path))
@click.option("--split", required=True)
@click.option("--limit-images", type=int)
@click.option("--engine", default="ort", show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    *,
    bundle: Path,
    data: Path,
    split: str,
    limit_images: int | None,
    engine: str,
    precision: Precision,
    json_file: Path | None,
) -> None:
    """Compare an engine with the literal loop and print what differs."""
    opened = open_precomp(data, split, limit_images=limit_images)
    reference = run(bundle, "torch-reference", "fp32", opened)
    result = run(bundle, engine, precision, opened)
    models = compare(reference, result, precision)
    for name, model in models.items():
        changes = model["ranks"]["changes"]
        unexplained = sum(not change["explained"] for change in changes)
        click.echo(
            f"{name:5} largest difference {model['largest_difference']:.2e} (bound "
            f"{model['bound']:.2e}), spearman {model['spearman']:.7f}, {len(changes)} ranks "
            f"changed, {unexplained} of them unexplained, rsum {model['result']['rsum']:.2f} "
            f"(reference {model['reference']['rsum']:.2f})"
        )
    report = {"run": result.run, "machine": machine(), "models": models}
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")
    failed = any(not model["within_bound"] for model in models.values())
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
