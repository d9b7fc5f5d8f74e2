"""Members that are left out against every member's every pair: seconds, interleaved in one run.

Whole evaluations of the ensemble's ranks (encoding included); short lists of one query after the
other; and those of all images and captions at once, as `score` finds them. At the paper's
dimensions there are no trained checkpoints: two random ones of these dimensions do all of their
work, and each logit that they compute is then replaced by the one that the Flickr8k checkpoints
give to the pair of the same image and caption, so that logits are spread as theirs. Its captions
have 8 to 20 words. Results are compared in the first round: they are equal.

    python benchmarks/pruning.py --f8k f8k.sgraf --data f8k_precomp \
        --json benchmarks/results/pruning.json
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.random_model import model_config, random_checkpoint
from sgraf_deploy.bench.run import processor, random_workload
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import MODULES, GraphName
from sgraf_deploy.data.precomp import PrecompSplit, open_precomp
from sgraf_deploy.demo.assets import demo_split, export_demo
from sgraf_deploy.engines.base import EngineOptions, Graph
from sgraf_deploy.engines.native.engine import NativeEngine
from sgraf_deploy.evaluation.evaluate import EvalOptions, evaluate_split
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.model.checkpoint import write_checkpoint
from sgraf_deploy.runtime.scorer import Scorer, load
from sgraf_deploy.runtime.tiles import TileLimits
from sgraf_deploy.versions import tool_versions

BOUNDS = {"eval f8k": 1.5, "eval paper": 1.5, "best 5 f8k": 1.8, "best 10 demo": 0.97}
"""At least so many times as fast. Lists of all have no bound: what they gain has to be above the
k-th best of both an image and a caption."""

QUERIES = 20
PER_IMAGE = 5

Work = Callable[[], Any]
Tables = Mapping[str, NDArray[np.float32]]


@click.command()
@click.option("--f8k", type=click.Path(path_type=Path), required=True, help="The bundle.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="f8k_precomp.")
@click.option("--images", type=int, help="Of the split dev. Default: all.")
@click.option("--paper-images", default=200, show_default=True, help="At the paper's dimensions.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", metavar="WORDS", help="The cases whose names hold these. Default: all.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    *,
    f8k: Path,
    data: Path,
    images: int | None,
    paper_images: int,
    rounds: int,
    only: str | None,
    json_file: Path | None,
) -> None:
    """Measure and print; fail if a bound is missed."""
    bundle, split = Bundle.open(f8k), open_precomp(data, "dev", limit_images=images)
    part = open_precomp(data, "dev", limit_images=min(paper_images, split.images))
    with tempfile.TemporaryDirectory() as folder:
        demo = export_demo(Path(folder) / "demo.sgraf").bundle
        cases: dict[str, Callable[[], dict[str, Any]]] = {
            "eval f8k": partial(_evaluations, bundle, split, rounds),
            "eval paper": partial(_at_papers_size, bundle, part, Path(folder), rounds),
            "best 5 f8k": partial(_lists, bundle, split, 5, rounds),
            "best 10 demo": partial(_lists, demo, demo_split(), 10, rounds),
            "best 1 of all f8k": partial(_all_lists, bundle, split, 1, rounds),
            "best 10 of all f8k": partial(_all_lists, bundle, split, 10, rounds),
            "best 10 of all demo": partial(_all_lists, demo, demo_split(), 10, rounds),
        }
        found = {name: case() for name, case in cases.items() if only is None or only in name}
    report = {
        "command": f"python benchmarks/pruning.py --images {split.images} "
        f"--paper-images {part.images} --rounds {rounds}" + (f" --only '{only}'" if only else ""),
        "machine": {"processor": processor(), "versions": tool_versions()},
        "bundle_sha256": bundle.sha256,
        "images": split.images,
        "paper_images": part.images,
        "queries": QUERIES,
        "rounds": rounds,
        "bounds": BOUNDS,
        "cases": found,
        "missed": [
            name for name, case in found.items() if case["times_as_fast"] < BOUNDS.get(name, 0)
        ],
    }
    click.echo(json.dumps(report, indent=1))
    if json_file is not None:
        write_json(json_file, report)
    raise SystemExit(1 if report["missed"] else 0)


def _evaluations(bundle: Bundle, split: PrecompSplit, rounds: int) -> dict[str, Any]:
    """`eval --models sgraf`, with and without `--no-prune`."""
    options = EvalOptions(ensemble_only=True)

    def work(scorer: Scorer) -> Any:
        return evaluate_split(scorer, split, options).to_json()["reports"]

    with (
        load(bundle, engine="native") as pruned,
        load(bundle, engine="native", prune=False) as whole,
    ):
        return _compare(pruned, partial(work, pruned), partial(work, whole), rounds)


def _lists(bundle: Bundle, split: PrecompSplit, k: int, rounds: int) -> dict[str, Any]:
    """The best k of all images for each of some captions, one after the other."""

    def work(scorer: Scorer, images: Any, captions: Any) -> Any:
        found = [scorer.rerank(caption, images, k) for caption in captions]
        return [(each.indices.tolist(), each.logits.tolist()) for each in found]

    places = np.linspace(0, len(split.captions) - 1, QUERIES).astype(int).tolist()
    captions = [split.captions[place] for place in places]
    return _encoded_once(bundle, split, captions, work, rounds)


def _all_lists(bundle: Bundle, split: PrecompSplit, k: int, rounds: int) -> dict[str, Any]:
    """The best k of every image and every caption at once."""

    def work(scorer: Scorer, images: Any, captions: Any) -> Any:
        return scorer.top_k_tiles(images, captions, k).digest

    return _encoded_once(bundle, split, list(split.captions), work, rounds)


def _encoded_once(
    bundle: Bundle, split: PrecompSplit, texts: list[str], work: Callable[..., Any], rounds: int
) -> dict[str, Any]:
    """Compare work on images and captions, without encoding them."""
    works, scorers = [], []
    for prune in (True, False):
        scorer = load(bundle, engine="native", prune=prune)
        images = scorer.encode_images(np.asarray(split.regions))
        captions = scorer.encode_captions(texts)
        scorers.append(scorer)
        works.append(partial(work, scorer, images, captions))
    found = _compare(scorers[0], *works, rounds)
    for scorer in scorers:
        scorer.close()
    return found


def _at_papers_size(f8k: Bundle, split: PrecompSplit, folder: Path, rounds: int) -> dict[str, Any]:
    """Ranks at the paper's dimensions, with Flickr8k's logits in place of its own."""
    with load(f8k, engine="native") as scorer:
        tables = scorer.logits(np.asarray(split.regions), split.captions)
    paths = []
    for module in MODULES:
        paths.append(folder / f"random_{module}.pth.tar")
        write_checkpoint(paths[-1], random_checkpoint(model_config(module)))
    options = ExportOptions(precisions=("fp32",))
    bundle = export_bundle(paths, folder / "random.sgraf", options).bundle
    inputs = random_workload(bundle, split.images, len(split.captions)).inputs

    def work(scorer: Scorer, images: Any, captions: Any) -> Any:
        counts = scorer.count_ranks(images, captions, PER_IMAGE, ensemble_only=True)["sgraf"]
        return {name: each.tolist() for name, each in vars(counts).items()}

    works, scorers = [], []
    for prune in (True, False):
        engine = _ToldEngine(bundle, tables)
        limits = TileLimits(engine.tile_advice.tile_bytes, engine.tile_advice)
        scorer = Scorer(bundle, engine, precision="fp32", limits=limits, prune=prune)
        images = scorer.encode_images(inputs.regions)
        captions = scorer.encode_captions(list(inputs.token_ids))
        for side, vectors in ((images, "image_global"), (captions, "text_global")):
            for buffers in side.members.values():  # Each carries its row, which costs nothing.
                getattr(buffers, vectors)[:, 0] = np.arange(len(side))
        scorers.append(scorer)
        works.append(partial(work, scorer, images, captions))
    found = _compare(scorers[0], *works, rounds)
    for scorer in scorers:
        scorer.close()
    return found


class _ToldEngine(NativeEngine):
    """Engine native, whose logits are replaced by those of tables once they are computed."""

    def __init__(self, bundle: Bundle, tables: Tables) -> None:
        super().__init__(bundle, "fp32", EngineOptions())
        self._tables = tables

    def _open(self, member: str, graph: GraphName) -> Graph:
        opened = super()._open(member, graph)
        if "scorer" in graph:
            run = opened._run
            opened._run = partial(_told, run, self._tables[member])  # type: ignore[method-assign]
        return opened


def _told(
    run: Callable[..., dict[str, Any]],
    table: NDArray[np.float32],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    sizes: Mapping[str, int],
) -> dict[str, Any]:
    """Run a graph, and give the table's logits in place of its own."""
    found = run(inputs, outputs, sizes)
    rows, columns = (
        inputs[name][:, 0].astype(np.int64) for name in ("image_global", "text_global")
    )
    if "image_index" in inputs:
        rows, columns = rows[inputs["image_index"]], columns[inputs["caption_index"]]
        return found | {"logits": table[rows, columns]}
    return found | {"logits": table[np.ix_(rows, columns)]}


def _compare(scorer: Scorer, pruned: Work, whole: Work, rounds: int) -> dict[str, Any]:
    """Seconds of both in every round, after one that does not count; the median of the ratios."""
    before = scorer.scored_pairs()
    one, other = pruned(), whole()
    if one != other:
        raise SystemExit("the results differ")
    scored = {name: pairs - before[name] for name, pairs in scorer.scored_pairs().items()}
    seconds: dict[str, list[float]] = {"pruned": [], "whole": []}
    for _ in range(rounds):
        for name, work in (("pruned", pruned), ("whole", whole)):
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    ratios = np.array(seconds["whole"]) / np.array(seconds["pruned"])
    return {
        "times_as_fast": float(np.median(ratios)),
        "scored_share": {name: pairs / max(scored.values()) for name, pairs in scored.items()},
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
