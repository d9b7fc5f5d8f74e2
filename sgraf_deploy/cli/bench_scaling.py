"""`sgraf-deploy bench scaling`: the requested sizes, the tables and the plot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.bench_report import withheld_lines
from sgraf_deploy.cli.bench_subject import (
    COUNT,
    Subject,
    engine_options,
    one_engine,
    repeats,
    subject_options,
)
from sgraf_deploy.cli.common import PATH, check_result_files, megabytes
from sgraf_deploy.cli.terminal import echo, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.bench.scaling import Point, ScalingReport, Size

_SIZE = re.compile(r"([1-9][0-9]{0,8})[x×]([1-9][0-9]{0,8})")


@click.command(short_help="Measure speed and memory as the matrix and the captions grow.")
@click.option(
    "--engine",
    "engines",
    default="auto",
    show_default=True,
    metavar="NAME[:PRECISION]",
    callback=one_engine,
    help="Engine to measure: a name that `sgraf-deploy doctor` lists, or auto.",
)
@click.option(
    "--size",
    "texts",
    multiple=True,
    metavar="IMAGESxCAPTIONS",
    help="Size of a matrix to measure, such as 1000x5000; repeat it for several. Default: sizes "
    "from 10⁴ to 10⁷ pairs.",
)
@click.option(
    "--max-pairs",
    type=COUNT,
    metavar="N",
    help="Leave out sizes of more than N pairs. Default: no limit.",
)
@click.option("--plot", type=PATH, metavar="FILE.svg", help="Also draw the results into this file.")
@repeats(5)
@engine_options
@subject_options
def scaling(
    *,
    subject: Subject,
    texts: tuple[str, ...],
    max_pairs: int | None,
    plot: Path | None,
    repeats: int,
) -> None:
    """Measure an engine's speed and memory as the matrix grows, and its speed as captions grow.

    Regions and captions are random. Without BUNDLE, the only *.sgraf of this folder is measured, or
    else the embedded demo.
    """
    subject.check()
    from sgraf_deploy.bench.scaling import ScalingOptions, choose_sizes, measure_scaling

    check_result_files({"--json": subject.json_file, "--plot": plot})
    sizes = parse_sizes(texts) if texts else ScalingOptions.sizes
    choose_sizes(sizes, max_pairs)  # raises before the work
    with subject.opened() as (opened, _), progress_bars() as bars:
        echo(f"{opened.path.name} ({opened.manifest.module}), random regions and ids")
        (engine,) = subject.choices(opened)
        options = ScalingOptions(
            engine, subject.engine_options(), sizes=sizes, max_pairs=max_pairs, repeats=repeats
        )
        report = measure_scaling(opened, options, bars("scaling"))
    subject.show(report, scaling_lines(report))
    if plot is not None:
        write_plot(plot, report)


def parse_sizes(texts: Sequence[str]) -> tuple[Size, ...]:
    """Parse every `IMAGESxCAPTIONS`; InputError names the first text that is not of this form."""
    from sgraf_deploy.bench.scaling import Size
    from sgraf_deploy.errors import InputError

    sizes = []
    for text in texts:
        match = _SIZE.fullmatch(text)
        if match is None:
            raise InputError("--size", expected="IMAGESxCAPTIONS like 1000x5000", got=text)
        sizes.append(Size(int(match[1]), int(match[2])))
    return tuple(sizes)


def scaling_lines(report: ScalingReport) -> Iterator[str]:
    """The report as text: first the growing matrix, then the growing captions."""
    run = report.run
    fewest, most = run["words_while_the_matrix_grows"]
    yield (
        f"engine {run['engine']}, {run['executed']} on {run['device']}: {run['processor']}, "
        f"{run['workers']} tiles at a time; medians of {run['repeats']} rounds"
    )
    yield ""
    yield f"the matrix grows: captions of {fewest} to {most} words; memory is the peak of RssAnon"
    yield from size_table(report.sizes)
    yield ""
    size = report.lengths[0].plan
    yield f"captions grow: {size['images']:,} images × {size['captions']:,} captions of one length"
    yield from length_table(report.lengths)
    yield from withheld_lines([point.cost for point in (*report.sizes, *report.lengths)])


def size_table(points: Sequence[Point]) -> list[str]:
    """Speed, cost and memory by size."""
    sides = ("images", "captions", "pairs")
    headers = (*sides, "pairs/s", "cost per pair", "peak", "encoded", "result", "beyond these")
    rows = [
        (
            *(f"{point.plan[name]:,}" for name in sides),
            f"{point.pairs_per_second:,.0f}",
            point.cost.shown(".3f"),
            _bytes(point.rss_anon_peak),
            _bytes(point.plan["encoded_bytes"]),
            _bytes(point.plan["result_bytes"]),
            _bytes(point.rss_anon_beyond),
        )
        for point in points
    ]
    return table(rows, headers, headers)


def length_table(points: Sequence[Point]) -> list[str]:
    """Speed, cost and amount of arithmetic by words per caption."""
    headers = ("words", "pairs/s", "cost per pair", "arithmetic per pair", "GFLOP/s")
    rows = [
        (
            f"{point.plan['mean_words']:.0f}",
            f"{point.pairs_per_second:,.0f}",
            point.cost.shown(".3f"),
            f"{point.flop_per_pair / points[0].flop_per_pair:.3f}",
            f"{point.flop_per_pair * point.pairs_per_second / 1e9:.1f}",
        )
        for point in points
    ]
    return table(rows, headers, headers)


def _bytes(size: int | None) -> str:
    return "unknown" if size is None else megabytes(size)


def write_plot(path: Path, report: ScalingReport) -> None:
    """Draw pairs per second over the number of pairs, and over words per caption, side by side."""
    from sgraf_deploy.bench.plot import Panel, svg
    from sgraf_deploy.files.writer import write_file

    run = report.run
    sizes = [(float(point.pairs), point.pairs_per_second) for point in report.sizes]
    lengths = [(point.plan["mean_words"], point.pairs_per_second) for point in report.lengths]
    panels = (
        Panel("The matrix grows", "pairs: images × captions", "pairs/s", sizes),
        Panel("Captions grow", "words of every caption", "pairs/s", lengths),
    )
    caption = f"{run['module']}, {run['engine']} {run['executed']} on {run['processor']}"
    write_file(path, svg(panels, caption), what="--plot")
