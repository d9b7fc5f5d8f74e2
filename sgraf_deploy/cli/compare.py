"""`sgraf-deploy compare`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import PATH, check_result_files
from sgraf_deploy.cli.option_types import FiniteRange
from sgraf_deploy.cli.terminal import echo

if TYPE_CHECKING:
    from sgraf_deploy.bench.changes import Change
    from sgraf_deploy.bench.compare import Comparison, Limits, Row
    from sgraf_deploy.bench.saved import SavedReport

_RECALL = ("engine", "figure", "before", "after", "lost, points", "99 % interval", "verdict")
_TIME = ("engine", "scope", "before", "after", "slower by, %", "99 % interval", "verdict")


def _pair(_: click.Context, option: click.Parameter, given: Sequence[str]) -> list[tuple[str, str]]:
    """The labels on either side of each `=`."""
    from sgraf_deploy.errors import InputError

    pairs = []
    for text in given:
        before, equals, after = text.partition("=")
        if not equals or not before or not after:
            raise InputError(option.opts[0], expected="BEFORE=AFTER", got=text)
        pairs.append((before, after))
    return pairs


@click.command(short_help="Compare two reports of bench: may the second build go live?")
@click.argument("before", type=PATH, metavar="BEFORE.json")
@click.argument("after", type=PATH, metavar="AFTER.json")
@click.option(
    "--max-drop-recall",
    type=FiniteRange(min=0),
    default=0.5,
    show_default=True,
    metavar="POINTS",
    help="Most percentage points that an R@K may drop; rsum, the sum of six, may drop by twice as "
    "much.",
)
@click.option(
    "--max-slowdown",
    type=FiniteRange(min=0),
    default=10.0,
    show_default=True,
    metavar="PERCENT",
    help="Most percent that scoring, or all from end to end, may take longer.",
)
@click.option(
    "--pair",
    "pairs",
    multiple=True,
    callback=_pair,
    metavar="BEFORE=AFTER",
    help="Engines to compare, by their labels in the two reports, such as 'ort fp32=native fp32'. "
    "Repeat it for several. Default: those that both reports have.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="Model whose R@K is compared. Default: all members together.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 also if something is undecided.")
@click.option(
    "--json",
    "json_file",
    type=PATH,
    metavar="FILE",
    help="Also write the comparison to this file, as JSON.",
)
@click.option(
    "--plot",
    type=PATH,
    metavar="FILE.svg",
    help="Also draw every change with its interval beside its limit into this file.",
)
def compare(
    *,
    before: Path,
    after: Path,
    max_drop_recall: float,
    max_slowdown: float,
    pairs: list[tuple[str, str]],
    model: str | None,
    strict: bool,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Compare two reports that `sgraf-deploy bench --json` wrote, in Markdown.

    They must be of the same data. Recall is compared query by query; time as the ratio to the
    literal loop of the same round, which must have run on the same kind of machine. Something is
    worse only beyond its limit and if chance does not explain it; where the sample is too small to
    tell, it is undecided. The command exits with 1 if anything is worse.
    """
    from sgraf_deploy.bench.compare import Limits, compare_reports
    from sgraf_deploy.bench.intervals import intervals_svg
    from sgraf_deploy.bench.saved import read_report
    from sgraf_deploy.files.writer import write_file, write_json

    check_result_files({"--json": json_file, "--plot": plot})
    reports = read_report(before), read_report(after)
    limits = Limits(max_drop_recall, max_slowdown)
    found = compare_reports(*reports, limits, pairs=pairs, model=model)
    if json_file is not None:
        write_json(json_file, found.to_json(), what="--json")
    if plot is not None:
        write_file(plot, intervals_svg(found), what="--plot")
    for line in comparison_lines(found, (before, after), reports, limits):
        echo(line)
    _fail_on(found, strict=strict)


def comparison_lines(
    found: Comparison, files: Sequence[Path], reports: Sequence[SavedReport], limits: Limits
) -> Iterator[str]:
    """The comparison as Markdown, verdict first."""
    yield f"**{found.verdict}**{_beyond(found)}"
    yield ""
    for name, file, report in zip(("before", "after"), files, reports, strict=True):
        run = report.run
        yield f"- {name}: `{file}`, bundle {run.bundle_sha256[:16]}…, {run.time}"
    data = reports[0].run.data
    split = "random inputs" if data.split is None else f"split {data.split}"
    yield f"- on {split}: {data.images:,} images × {data.captions:,} captions"
    for note in found.notes:
        yield f"- {note}"
    if found.recall:
        yield from (
            "",
            f"R@K of {found.model} in percent; at most {limits.drop:g} points may be lost, of rsum "
            f"{2 * limits.drop:g}",
            "",
        )
        yield from _table(_RECALL, found.recall, ".2f", "images")
    if found.time:
        yield from (
            "",
            f"time in literal loops; at most {limits.slowdown:g} % may be added",
            "",
        )
        yield from _table(_TIME, found.time, ".4f", "rounds")


def _beyond(found: Comparison) -> str:
    """The figures that decide the verdict."""
    rows = [
        f"{row.engine}, {row.figure}"
        for row in (*found.recall, *found.time)
        if row.change.verdict == found.verdict
    ]
    return f": {'; '.join(rows)}" if found.verdict in {"worse", "undecided"} else ""


def _table(columns: Sequence[str], rows: Iterable[Row], form: str, unit: str) -> Iterator[str]:
    from sgraf_deploy.cards.text import markdown_table

    cells = (
        (
            *(row.engine, row.figure, f"{row.before:{form}}", f"{row.after:{form}}"),
            *(f"{row.change.harm:+.2f}", _interval(row.change), _verdict(row.change, unit)),
        )
        for row in rows
    )
    yield from markdown_table(columns, ([_escaped(x) for x in row] for row in cells))


def _interval(change: Change) -> str:
    known = change.high - change.low < float("inf")
    return f"{change.low:+.2f} to {change.high:+.2f}" if known else "unknown"


def _verdict(change: Change, unit: str) -> str:
    if change.verdict != "undecided":
        return change.verdict
    if change.size == 1:
        return f"undecided: a single {unit.removesuffix('s')}"
    if change.needed is None:
        return "undecided: too near its limit"
    return f"undecided: about {change.needed:,} {unit} would decide, not {change.size:,}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _fail_on(found: Comparison, *, strict: bool) -> None:
    from sgraf_deploy.errors import GateError

    if found.verdict == "worse" or (strict and found.verdict == "undecided"):
        raise GateError("the second report is not as good as the first", got=found.verdict)
