"""Many small requests at once against one by one: wall and CPU time, interleaved in one run.

64 captions, each with 10 candidates of its own: 64 calls of `rerank` against one of `rerank_many`,
on encoded images and on a gallery, with and without a cache of captions. Then the 640 pairs alone
(`score_pairs`) against a matrix of 10 × 64 (`score`), both encoded before.

    python benchmarks/rerank.py --json benchmarks/results/rerank_demo.json
    python benchmarks/rerank.py --random SGR --json benchmarks/results/rerank_random_SGR.json
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.random_model import export_random, model_config, random_checkpoint
from sgraf_deploy.bench.run import processor, random_workload
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import MODULES, Module
from sgraf_deploy.demo.assets import demo_split, export_demo
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.gallery.ranked import RerankRequest
from sgraf_deploy.gallery.reranker import Reranker
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.requests import RerankCall
from sgraf_deploy.runtime.scorer import Scorer, load
from sgraf_deploy.versions import tool_versions

CALLS, CANDIDATES = 64, 10
SEED = 0
THROUGHPUT, CPU, PAIRS = 2.5, 0.4, 1.5
"""At least so many times the throughput, at most this share of the CPU, at most so many times the
CPU of a matrix: with the demo's model, which spends little time in an engine."""

Work = Mapping[str, Callable[[], object]]
Seconds = dict[str, dict[str, list[float]]]


@click.command()
@click.option("--random", "module", type=click.Choice(MODULES), help="At the paper's dimensions.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--threads", type=int, help="Default: the engine's own choice.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    *, module: Module | None, rounds: int, threads: int | None, json_file: Path | None
) -> None:
    """Measure and print; fail if the demo's model misses a bound."""
    with tempfile.TemporaryDirectory() as folder:
        bundle, regions, captions = _inputs(module, Path(folder))
        found: dict[str, Any] = {}
        for name, cache in (("uncached", 0), ("cached", 1 << 26)):
            with load(bundle, engine="native", threads=threads, caption_cache=cache) as scorer:
                described = repr(scorer)
                works = _works(scorer, regions, captions, Path(folder) / name)
                found[name] = _summary(_measure(works, rounds))
    report = {
        "command": " ".join(
            [
                "python benchmarks/rerank.py",
                *([f"--random {module}"] if module else []),
                f"--rounds {rounds}",
                *([f"--threads {threads}"] if threads else []),
            ]
        ),
        "machine": {"processor": processor(), "versions": tool_versions()},
        "scorer": described,
        "calls": CALLS,
        "candidates": CANDIDATES,
        "images": len(regions),
        "seed": SEED,
        "rounds": rounds,
        **found,
    }
    report["missed"] = _missed(found)
    click.echo(json.dumps(report, indent=1))
    if json_file is not None:
        write_json(json_file, report)
    raise SystemExit(1 if report["missed"] and module is None else 0)


def _inputs(module: Module | None, folder: Path) -> tuple[Bundle, NDArray[Any], list[Any]]:
    """A bundle, 640 images (500 of the demo) and 64 captions."""
    if module is None:
        split = demo_split()
        captions = list(dict.fromkeys(split.captions))[:CALLS]
        return export_demo(folder / "demo.sgraf").bundle, split.regions, captions
    bundle = export_random(random_checkpoint(model_config(module)), folder)
    inputs = random_workload(bundle, CALLS * CANDIDATES, CALLS).inputs
    return bundle, inputs.regions, list(inputs.token_ids)


def _works(scorer: Scorer, regions: NDArray[Any], captions: list[Any], folder: Path) -> Work:
    """What is compared, by name; of two the one by one comes first."""
    rng = np.random.default_rng(SEED)
    rows = [rng.choice(len(regions), CANDIDATES, replace=False) for _ in captions]
    images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
    ids = [str(row) for row in range(len(regions))]
    gallery = Gallery.create(folder, scorer)
    gallery.write(Batch.of(ids, images))
    reranker = Reranker(scorer, gallery)
    calls = [RerankCall(text, row) for text, row in zip(captions, rows, strict=True)]
    requests = [RerankRequest(call.query, [ids[row] for row in call.candidates]) for call in calls]
    image_index = np.concatenate(rows)
    caption_index = np.repeat(np.arange(CALLS), CANDIDATES)
    matrix = images[rows[0]]
    return {
        "rerank": lambda: [scorer.rerank(one.query, images[one.candidates]) for one in calls],
        "rerank_many": lambda: scorer.rerank_many(calls, images),
        "gallery rerank": lambda: [reranker.rerank(one.query, one.ids) for one in requests],
        "gallery rerank_many": lambda: reranker.rerank_many(requests),
        "matrix": lambda: scorer.score(matrix, texts),
        "pairs": lambda: scorer.score_pairs(images, texts, image_index, caption_index),
    }


def _measure(works: Work, rounds: int) -> Seconds:
    """Wall and CPU seconds of every work in every round, after one round that does not count."""
    found: Seconds = {name: {"wall": [], "cpu": []} for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            if number:
                found[name]["wall"].append(time.perf_counter() - wall)
                found[name]["cpu"].append(time.process_time() - cpu)
    return found


def _summary(seconds: Seconds) -> dict[str, Any]:
    """Medians in milliseconds, and medians of the rounds' ratios."""

    def ratio(one: str, other: str, kind: str) -> float:
        rounds = np.array(seconds[one][kind]) / np.array(seconds[other][kind])
        return float(np.median(rounds))

    medians = {
        name: {kind: 1e3 * float(np.median(values)) for kind, values in kinds.items()}
        for name, kinds in seconds.items()
    }
    return {
        "milliseconds": medians,
        "throughput": ratio("rerank", "rerank_many", "wall"),
        "cpu": ratio("rerank_many", "rerank", "cpu"),
        "gallery_throughput": ratio("gallery rerank", "gallery rerank_many", "wall"),
        "gallery_cpu": ratio("gallery rerank_many", "gallery rerank", "cpu"),
        "pairs_cpu": ratio("pairs", "matrix", "cpu"),
    }


def _missed(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The bounds that are not kept, without a cache of captions."""
    one = found["uncached"]
    kept = {
        f"throughput >= {THROUGHPUT}": one["throughput"] >= THROUGHPUT,
        f"cpu <= {CPU}": one["cpu"] <= CPU,
        f"pairs_cpu <= {PAIRS}": one["pairs_cpu"] <= PAIRS,
    }
    return [name for name, is_kept in kept.items() if not is_kept]


if __name__ == "__main__":
    main()
