"""`sgraf-deploy eval`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    PATH,
    data_options,
    describe_scorer,
    load_scorer,
    megabytes,
    progress_bars,
    scorer_options,
    table,
    warn,
)

if TYPE_CHECKING:
    from sgraf_deploy.bench.evaluate import Evaluation
    from sgraf_deploy.bench.recall import Recall, RecallReport


@click.command("eval")
@BUNDLE
@data_options
@scorer_options
@click.option(
    "--ties",
    type=click.Choice(["last", "authors"]),
    default="last",
    show_default=True,
    help="A tied ground truth ranks last, or as the authors' unstable sort leaves it.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also the mean of N folds (MSCOCO 1K: 5).",
)
@click.option("--authors-dev", is_flag=True, help="Cut dev to 5,000 captions, as the authors do.")
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Write the report to FILE.")
def evaluate(
    *,
    bundle: Path,
    data: Path,
    split: str,
    limit_images: int | None,
    ties: Literal["last", "authors"],
    folds: int | None,
    authors_dev: bool,
    json_file: Path | None,
    **scorer_arguments: Any,
) -> None:
    """Measure R@K of a BUNDLE on a split of precomp data, in both directions."""
    from sgraf_deploy.bench.evaluate import EvalOptions, evaluate_split
    from sgraf_deploy.bundle import write_json
    from sgraf_deploy.data.precomp import open_precomp

    opened = open_precomp(data, split, limit_images=limit_images, authors_dev=authors_dev)
    with load_scorer(bundle, **scorer_arguments) as scorer, progress_bars() as bars:
        click.echo(describe_scorer(scorer))
        result = evaluate_split(scorer, opened, EvalOptions(ties, folds), stage=bars)
    for message in result.warnings:
        warn(message)
    for line in _lines(result):
        click.echo(line)
    if json_file is not None:
        write_json(json_file, result.to_json())
        click.echo(f"wrote {json_file}")


def _lines(result: Evaluation) -> Iterator[str]:
    from sgraf_deploy.bench.recall import chance_level

    run, words, memory = result.run, result.words, result.memory
    yield (
        f"split {run['split']}: {run['images']:,} images × {run['captions']:,} captions, "
        f"{words.unknown:,} of {words.tokens:,} words unknown ({words.unknown_rate:.1%})"
    )
    yield (
        f"encoded inputs {megabytes(memory.encoded)}, one tile about {megabytes(memory.tile)}, "
        f"logits {megabytes(memory.result)}"
    )
    chance = chance_level(run["images"])
    yield _recall_table({**result.reports, "chance": chance})
    for name, fold in result.fold_reports.items():
        yield f"mean of {len(fold.folds)} folds, {name}:"
        yield _recall_table({name: fold.mean})
    ties = {
        name: report.tied_image_to_text + report.tied_text_to_image
        for name, report in result.reports.items()
    }
    yield "queries with a tied ground truth: " + ", ".join(f"{k} {v}" for k, v in ties.items())
    pairs = run["images"] * run["captions"]
    rate = pairs / result.seconds["score"]
    yield (
        f"encoded in {result.seconds['encode']:.1f} s, scored {pairs:,} pairs in "
        f"{result.seconds['score']:.1f} s ({rate:,.0f} pairs/s, all members)"
    )


def _recall_table(reports: dict[str, RecallReport]) -> str:
    rows = [
        [name, *_cells(report.image_to_text), *_cells(report.text_to_image), f"{report.rsum:.2f}"]
        for name, report in reports.items()
    ]
    columns = ["R@1", "R@5", "R@10", "med", "mean"]
    headers = ["", *(f"i→t {c}" for c in columns), *(f"t→i {c}" for c in columns), "rsum"]
    return table(rows, headers, colalign=("left", *["right"] * 11))


def _cells(recall: Recall) -> list[str]:
    percent = [f"{value:.2f}" for value in (recall.r1, recall.r5, recall.r10)]
    return [*percent, f"{recall.median_rank:.0f}", f"{recall.mean_rank:.2f}"]
