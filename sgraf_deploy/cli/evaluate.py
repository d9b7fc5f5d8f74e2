"""`sgraf-deploy eval`: measures R@K on a split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    DATASET,
    HTML,
    NO_PRUNE,
    PATH,
    check_dataset,
    check_result_files,
    count,
    data_options,
    describe_scorer,
    gathered,
    load_scorer,
    megabytes,
    scorer_options,
    show_finding,
)
from sgraf_deploy.cli.ray_options import (
    SharingOptions,
    bundle_address,
    scorer_settings,
    sharing_options,
    show_progressed,
)
from sgraf_deploy.cli.shares import shares_line
from sgraf_deploy.cli.terminal import duration, echo, progress_bars, table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sgraf_deploy.bench.published import Dataset
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.distributed.parts import Request, SplitSource
    from sgraf_deploy.evaluation.cost import Cost
    from sgraf_deploy.evaluation.evaluate import EvalOptions, Evaluation
    from sgraf_deploy.evaluation.recall import Recall, RecallReport

_NUMBERS = ("R@1", "R@5", "R@10", "median rank", "mean rank", "rsum")


@dataclass(frozen=True)
class Results:
    """The files that an evaluation writes."""

    json_file: Path | None
    html: Path | None
    dataset: Dataset | None
    saved: Path | None

    @property
    def files(self) -> dict[str, Path | None]:
        """The files by the options that name them."""
        return {"--json": self.json_file, "--html": self.html, "--save-similarities": self.saved}

    def check(self) -> None:
        """Raise InputError for a file that cannot be written, or that two results would be in."""
        check_dataset(self.dataset, self.html)
        check_result_files(self.files)

    def write(self, result: Evaluation) -> None:
        """Write the reports; similarities are written while they are scored."""
        from sgraf_deploy.bench.page import eval_page
        from sgraf_deploy.files.writer import write_file, write_json

        if self.json_file is not None:
            write_json(self.json_file, result.to_json(), what="--json")
        if self.html is not None:
            engine = f"{result.run['engine']} {result.run['executed']}"
            ranks = {model: {engine: ranks.to_json()} for model, ranks in result.ranks.items()}
            content = eval_page(result.to_json(), ranks, self.dataset)
            write_file(self.html, content, what="--html")


@click.command("eval", short_help="Measure R@K on a split of precomp data, in both directions.")
@BUNDLE
@data_options
@scorer_options
@NO_PRUNE
@click.option(
    "--models",
    type=click.Choice(["all", "sgraf", "ensemble"]),
    default="all",
    show_default=True,
    help="Report the ranks of every member and of their ensemble, or of the ensemble alone by its "
    "name: members are then left out of pairs where they cannot change its ranks.",
)
@click.option(
    "--ties",
    type=click.Choice(["last", "authors"]),
    default="last",
    show_default=True,
    help="Rank of a tied ground truth: last among its ties, or as the authors' unstable sort "
    "leaves it, which needs the matrix of logits in memory.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also report the mean over N folds of the images (5 for MSCOCO 1K). The number of images "
    "must be a multiple of N. Needs the matrix of logits in memory. Default: no folds.",
)
@click.option(
    "--authors-dev",
    is_flag=True,
    help="Use only the first 5,000 captions of the split dev, as the authors' loader does.",
)
@click.option(
    "--json",
    "json_file",
    type=PATH,
    metavar="FILE",
    help="Also write the report to this file, as JSON.",
)
@HTML
@DATASET
@click.option(
    "--save-similarities",
    "saved",
    type=PATH,
    metavar="FILE.npy",
    help="Also write the similarities (images, captions) to this file, in float32. For several "
    "members they are those of the ensemble.",
)
@sharing_options
@gathered(Results, "results")
@gathered(SharingOptions, "sharing")
def evaluate(
    *,
    bundle: Path | str,
    data: Path,
    split: str,
    limit_images: int | None,
    captions_per_image: int,
    models: str,
    ties: Literal["last", "authors"],
    folds: int | None,
    authors_dev: bool,
    results: Results,
    sharing: SharingOptions,
    **scorer_arguments: Any,
) -> None:
    """Measure R@K of a BUNDLE on a split of precomp data, in both directions.

    Ranks are counted while the pairs are scored, so that no matrix is kept in memory. Only --ties
    authors and --folds need every model's matrix of logits in memory, and cannot be shared out.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.distributed.parts import Request, SplitSource
    from sgraf_deploy.evaluation.evaluate import EvalOptions

    results.check()
    sharing.check()
    opened = Bundle.open(bundle)
    options = EvalOptions(ties, folds, ensemble_only=_is_ensemble(models, opened))
    source = SplitSource(data, split, captions_per_image, limit_images, authors_dev)
    found: list[Evaluation] = []
    try:
        if sharing.job is None:
            _evaluate_here(found, opened, source, options, results.saved, scorer_arguments)
        else:
            _check_shareable(options, results.saved)
            settings = scorer_settings(sharing, **scorer_arguments)
            request = Request(
                bundle_address(bundle),
                source.absolute(),
                settings,
                ensemble_only=options.ensemble_only,
            )
            _evaluate_shared(found, sharing, request, opened)
        results.write(found[0])
    finally:
        # A full disk must not lose a result that took an hour.
        for line in [line for result in found for line in _lines(result)]:
            echo(line)
    for finding in found[0].of_the_ranks:
        show_finding(finding)
    for written in filter(None, results.files.values()):
        echo(f"wrote {written}")


def _evaluate_here(
    found: list[Evaluation],
    bundle: Bundle,
    source: SplitSource,
    options: EvalOptions,
    saved: Path | None,
    scorer_arguments: dict[str, Any],
) -> None:
    """Evaluate in this process; the result is kept even if its similarities cannot be."""
    from sgraf_deploy.evaluation.evaluate import evaluate_split

    chosen = source.open(bundle)
    with (
        load_scorer(bundle, **scorer_arguments) as scorer,
        _similarities(saved, chosen) as out,
        progress_bars() as bars,
    ):
        echo(describe_scorer(scorer))
        images, captions = count(chosen.images, "image"), count(len(chosen.captions), "caption")
        echo(f"split {chosen.name} of {source.folder}: {images} × {captions}")
        found.append(
            evaluate_split(
                scorer, chosen, options, out=out, stage=bars, tell=show_finding, announce=_announce
            )
        )


def _evaluate_shared(
    found: list[Evaluation], sharing: SharingOptions, request: Request, bundle: Bundle
) -> None:
    """Evaluate in pieces."""
    from sgraf_deploy.distributed.offline import Hooks, evaluate_job

    with sharing.open_job(request) as (runner, job), progress_bars() as bars:
        hooks = Hooks(bars, show_finding, _announce)
        result, progressed = evaluate_job(runner, job, bundle, request.source.name, hooks)
        found.append(result)
    show_progressed(progressed, job)


def _check_shareable(options: EvalOptions, saved: Path | None) -> None:
    """Raise InputError for what needs the matrix, which nobody holds where work is shared out."""
    from sgraf_deploy.errors import InputError

    wanted = {
        "--ties authors": options.ties == "authors",
        "--folds": options.folds is not None,
        "--save-similarities": saved is not None,
    }
    for option, given in wanted.items():
        if given:
            hint = "evaluate in one process, without --job and --ray"
            raise InputError(
                f"{option} with --job", expected="ranks counted tile by tile", hint=hint
            )


def _is_ensemble(models: str, bundle: Bundle) -> bool:
    """Whether the ensemble alone is to be reported; InputError for another name than its own."""
    from sgraf_deploy.config import ensemble_name
    from sgraf_deploy.errors import InputError

    members = bundle.manifest.members
    names = ["all", *([ensemble_name(members)] if len(members) > 1 else [])]
    if models not in names:
        raise InputError("--models", expected=" or ".join(names), got=models)
    return models != "all"


@contextmanager
def _similarities(path: Path | None, split: PrecompSplit) -> Iterator[NDArray[np.float32] | None]:
    """Yield a memory map of the file to write, its disk space reserved; None without a path."""
    from sgraf_deploy.files.writer import staged_array

    if path is None:
        yield None
        return
    with staged_array(
        path, (split.images, len(split.captions)), what="--save-similarities"
    ) as array:
        yield array


def _announce(cost: Cost) -> None:
    """Print one line on memory and time before the work begins."""
    memory = cost.memory
    matrices = f"matrices of logits {megabytes(memory.result)}" if memory.result else "no matrix"
    time = "" if cost.seconds is None else f"; takes {duration(cost.seconds)}"
    echo(
        f"in memory: encoded inputs {megabytes(memory.encoded)}, tiles in progress about "
        f"{megabytes(memory.tiles)}, {matrices}{time}"
    )


def _lines(result: Evaluation) -> Iterator[str]:
    from sgraf_deploy.evaluation.recall import chance_level

    run, words = result.run, result.words
    yield f"{words.unknown:,} of {count(words.tokens, 'word')} unknown ({words.unknown_rate:.1%})"
    pairs = run["images"] * run["captions"]
    *others, last = (name.upper() for name in run["members"])
    models = f"{', '.join(others)} and {last}" if others else last
    yield (
        f"encoded {_took(result.seconds['encode'])}, scored {count(pairs, 'pair')} by {models} "
        f"{_took(result.seconds['score'], pairs)}"
    )
    if others:
        line = shares_line(run["scored_share"], f"change a rank of {next(iter(result.reports))}")
        yield f"{line}, as its own ranks need" if len(result.reports) > 1 else line
    yield ""
    ties = {
        "last": "a tied ground truth ranks last",
        "authors": "ties rank as the authors' sort leaves them",
    }
    how = ties[next(iter(result.reports.values())).ties]
    yield f"R@K in percent, ranks from 1 (best); {how}; chance is the result of a random order"
    reports = {**result.reports, "chance": chance_level(run["images"], run["captions_per_image"])}
    yield from recall_table(reports)
    if result.fold_reports:
        number = len(next(iter(result.fold_reports.values())).folds)
        size = count(run["images"] // number, "image")
        yield ""
        yield f"mean of {count(number, 'fold')} of {size}"
        yield from recall_table({name: fold.mean for name, fold in result.fold_reports.items()})
    tied = [
        f"{name} {report.tied_image_to_text + report.tied_text_to_image}"
        for name, report in result.reports.items()
    ]
    queries = run["images"] + run["captions"]
    yield f"queries with a tied ground truth, of {queries:,}: {', '.join(tied)}"


def _took(seconds: float | None, pairs: int | None = None) -> str:
    """Wall time, and pairs a second; of what an earlier run of a job began neither is known."""
    if seconds is None:
        return "(not all in this run)"
    return f"in {seconds:.1f} s" + (f" ({pairs / seconds:,.0f} pairs/s)" if pairs else "")


def recall_table(reports: dict[str, RecallReport]) -> list[str]:
    """R@K in both directions, and rsum, for each model."""
    rows = []
    for name, report in reports.items():
        rows.append([name, "image → text", *_cells(report.image_to_text), f"{report.rsum:.2f}"])
        rows.append(["", "text → image", *_cells(report.text_to_image), ""])
    return table(rows, ["model", "direction", *_NUMBERS], right=_NUMBERS)


def _cells(recall: Recall) -> list[str]:
    percent = [f"{value:.2f}" for value in (recall.r1, recall.r5, recall.r10)]
    return [*percent, f"{recall.median_rank:.0f}", f"{recall.mean_rank:.2f}"]
