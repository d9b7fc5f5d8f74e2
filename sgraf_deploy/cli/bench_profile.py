"""`sgraf-deploy bench profile`: tables of where the scorer's time goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.bench_subject import COUNT, Subject, one_engine, subject_options
from sgraf_deploy.cli.terminal import echo, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.bench.timings import TimingsReport


@click.command(short_help="Where the scorer's time goes, stage by stage.")
@click.option(
    "--engine",
    "engines",
    type=click.Choice(["ort"]),
    default="ort",
    show_default=True,
    callback=one_engine,
    help="The engine that is profiled, in fp32.",
)
@click.option(
    "--images",
    type=COUNT,
    metavar="N",
    default=200,
    show_default=True,
    help="Random images.",
)
@click.option(
    "--captions",
    type=COUNT,
    metavar="N",
    default=1000,
    show_default=True,
    help="Random captions.",
)
@subject_options
def profile(*, subject: Subject, images: int, captions: int) -> None:
    """Show where an engine's time goes while it scores, stage by stage.

    Without BUNDLE: the only *.sgraf of this folder, else the embedded demo.
    """
    subject.check()
    subject.choices(None)  # raises without ONNX Runtime, which the next line needs
    from sgraf_deploy.bench.run import random_workload
    from sgraf_deploy.bench.timings import measure_timings

    with subject.opened() as (opened, _), progress_bars() as bars:
        workload = random_workload(opened, images, captions)
        echo(f"{opened.path.name} ({opened.manifest.module}), {workload.name}")
        report = measure_timings(opened, workload, subject.engine_options(), bars("profiling"))
    subject.show(report, timings_lines(report))


def timings_lines(report: TimingsReport) -> Iterator[str]:
    """The report for people: stages, kinds of work, what is not arithmetic."""
    run = report.run
    yield (
        f"engine ort, fp32 on {run['processor']}, {report.workers} tiles at a time; "
        f"{report.seconds:.2f} s, {100 * report.slowdown:+.0f} % by the profiler"
    )
    yield "milliseconds of all threads; GFLOP/s of one thread, in products alone"
    yield from stage_table(report)
    yield ""
    yield from kind_table(report)
    yield f"not arithmetic: {100 * report.not_arithmetic:.1f} %"


def stage_table(report: TimingsReport) -> list[str]:
    """Time, share and rate by stage."""
    rows = [
        (
            stage.member,
            stage.stage.label,
            f"{stage.total:,.1f}",
            _share(stage.total, report),
            "" if stage.gflop_per_second is None else f"{stage.gflop_per_second:.1f}",
        )
        for stage in report.stages
    ]
    headers = ("member", "stage", "ms", "share", "GFLOP/s")
    return table(rows, headers, headers[2:])


def kind_table(report: TimingsReport) -> list[str]:
    """Time and share by what is done."""
    rows = [
        (kind, f"{milliseconds:,.1f}", _share(milliseconds, report))
        for kind, milliseconds in report.kinds().items()
    ]
    headers = ("all stages", "ms", "share")
    return table(rows, headers, headers[1:])


def _share(milliseconds: float, report: TimingsReport) -> str:
    return f"{100 * milliseconds / report.total:.1f} %"
