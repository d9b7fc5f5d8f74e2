"""Pairs per second of the scorer beside the literal loop, at the paper's dimensions.

One run, interleaved: matrix product, literal loop, every engine, again and again; medians are
quoted. Inputs are encoded before the clock starts, as for the literal loop.

    python benchmarks/scorer_speed.py --json benchmarks/results/scorer_speed.json
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from common import export_random, machine, model_config, random_checkpoint, timed

from sgraf_deploy.config import MODULES, ModelConfig, Module
from sgraf_deploy.model import reference
from sgraf_deploy.runtime.engine import EngineOptions
from sgraf_deploy.runtime.scorer import load

PRODUCTS = ((2048, 2048, 2048), (1400, 1024, 256), (4096, 1024, 1024), (1024, 4096, 1024))
"""Shapes (m, k, n) of the matrix product; the best of them is the machine's rate."""


def pair_mflop(config: ModelConfig, words: float) -> float:
    """Work per pair after the exact rewrites, in 10⁶ floating-point operations."""
    attention = 2 * 2 * config.regions * words * config.embed
    alignment = 2 * (words + 1) * config.embed * config.sim_dim
    reasoning = max(0, config.sgr_steps - 1) * 2 * 2 * (words + 1) * config.sim_dim**2
    return (attention + alignment + reasoning) / 1e6


def product_rate() -> float:
    """The best rate of `PRODUCTS` once, FLOP/s."""
    best = 0.0
    for m, k, n in PRODUCTS:
        a, b = torch.rand(m, k), torch.rand(k, n)
        torch.matmul(a, b)
        seconds = timed(lambda a=a, b=b: torch.matmul(a, b))
        best = max(best, 2 * m * k * n / seconds)
    return best


def measure(module: Module, images: int, captions: int, rounds: int) -> dict[str, Any]:
    """Medians and spreads of one module, with ratios to the literal loop of the same run."""
    config, rng = model_config(module), np.random.default_rng(0)
    checkpoint = random_checkpoint(config)
    regions = rng.standard_normal((images, config.regions, config.img_dim), dtype=np.float32)
    lengths = rng.integers(8, 21, captions)
    token_ids = [rng.integers(4, config.vocab_size, length) for length in lengths]
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_random(checkpoint, Path(folder))
        work: dict[str, Callable[[], Any]] = {}
        threads = EngineOptions(threads=torch.get_num_threads())
        model = reference.build_model(config, checkpoint.weights)
        ids = torch.zeros(captions, int(lengths.max()), dtype=torch.long)
        for row, caption in enumerate(token_ids):
            ids[row, : len(caption)] = torch.from_numpy(caption)
        with torch.inference_mode():
            v = model.image_encoder(torch.from_numpy(regions))
            w = model.text_encoder(ids, torch.from_numpy(lengths))
        literal = torch.inference_mode()(lambda: reference.score(model, v, w, lengths).numpy())
        for engine in ("ort", "torch"):
            scorer = load(bundle, engine=engine, options=threads)
            encoded = scorer.encode_images(regions), scorer.encode_captions(token_ids)
            work[engine] = lambda s=scorer, e=encoded: next(iter(s.logits(*e).values()))
            work["literal"] = literal  # next to the engine that it is the yardstick of
        values = {name: run() for name, run in work.items()}  # also the warm-up
        seconds: dict[str, list[float]] = {name: [] for name in work}
        rates = []
        for _ in range(rounds):
            rates.append(product_rate())
            for name, run in work.items():
                seconds[name].append(timed(run))
    pairs, mflop = images * captions, pair_mflop(config, float(lengths.mean()))
    rate = max(rates)
    rows = {}
    for name, times in seconds.items():
        median = statistics.median(times)
        row = {
            "pairs_per_second": pairs / median,
            "spread": [pairs / max(times), pairs / min(times)],
            "times_literal": statistics.median(
                [b / a for a, b in zip(times, seconds["literal"], strict=True)]
            ),
            "largest_difference": float(np.abs(values[name] - values["literal"]).max()),
        }
        if name != "literal":  # the literal loop does more work per pair
            row["percent_of_product_rate"] = 100 * pairs / median * mflop * 1e6 / rate
        rows[name] = row
    return {"mflop_per_pair": mflop, "product_gflops": rate / 1e9, "engines": rows}


@click.command()
@click.option("--images", default=100, show_default=True)
@click.option("--captions", default=100, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(images: int, captions: int, rounds: int, json_file: Path | None) -> None:
    """Measure both modules and print a report."""
    report: dict[str, Any] = {
        "command": f"python benchmarks/scorer_speed.py --images {images} --captions {captions} "
        f"--rounds {rounds}",
        "machine": machine(),
        "shapes": {"images": images, "captions": captions, "words": "8 to 20, uniform"},
        "seed": 0,
        "modules": {},
    }
    for module in MODULES:
        result = report["modules"][module] = measure(module, images, captions, rounds)
        for name, row in result["engines"].items():
            share = row.get("percent_of_product_rate")
            click.echo(
                f"{module} {name:8} {row['pairs_per_second']:8,.0f} pairs/s  "
                f"{row['times_literal']:.2f}x literal"
                + (f"  {share:.0f} % of {result['product_gflops']:.0f} GFLOP/s" if share else "")
            )
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
