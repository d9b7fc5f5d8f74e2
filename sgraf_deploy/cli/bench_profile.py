"""`sgraf-deploy bench profile`: tables of the scorer's time by stage and kind of work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.bench_subject import COUNT, Subject, one_engine, subject_options
from sgraf_deploy.cli.terminal import echo, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.bench.profile import ProfileReport


@click.command(short_help="Show where the scorer's time goes, stage by stage.")
@click.option(
    "--engine",
    "engines",
    type=click.Choice(["ort"]),
    default="ort",
    show_default=True,
    callback=one_engine,
    help="Engine to profile, in fp32.",
)
@click.option(
    "--images",
    type=COUNT,
    metavar="N",
    default=200,
    show_default=True,
    help="Number of random images.",
)
@click.option(
    "--captions",
    type=COUNT,
    metavar="N",
    default=1000,
    show_default=True,
    help="Number of random captions.",
)
@subject_options
def profile(*, subject: Subject, images: int, captions: int) -> None:
    """Show where an engine's time goes while it scores, stage by stage.

    Without BUNDLE, the only *.sgraf of this folder is profiled, or else the embedded demo.
    """
    subject.check()
    subject.choices(None)  # raises without ONNX Runtime, which the next line needs
    from sgraf_deploy.bench.profile import measure_profile
    from sgraf_deploy.bench.run import random_workload

    with subject.opened() as (opened, _), progress_bars() as bars:
        workload = random_workload(opened, images, captions)
        echo(f"{opened.path.name} ({opened.manifest.module}), {workload.name}")
        report = measure_profile(opened, workload, subject.engine_options(), bars("profiling"))
    subject.show(report, profile_lines(report))


def profile_lines(report: ProfileReport) -> Iterator[str]:
    """The report as text: stages, kinds of work, and the share that is not arithmetic."""
    run = report.run
    yield (
        f"engine ort, fp32 on {run['processor']}, {report.workers} tiles at a time; "
        f"{report.seconds:.2f} s, {100 * report.slowdown:+.0f} % by the profiler"
    )
    yield "milliseconds summed over all threads; GFLOP/s per thread, in matrix products only"
    yield from stage_table(report)
    yield ""
    yield from kind_table(report)
    yield f"not arithmetic: {100 * report.not_arithmetic:.1f} %"


def stage_table(report: ProfileReport) -> list[str]:
    """Milliseconds, share and GFLOP/s by stage."""
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


def kind_table(report: ProfileReport) -> list[str]:
    """Milliseconds and share by kind of work."""
    rows = [
        (kind, f"{milliseconds:,.1f}", _share(milliseconds, report))
        for kind, milliseconds in report.kinds().items()
    ]
    headers = ("all stages", "ms", "share")
    return table(rows, headers, headers[1:])


def _share(milliseconds: float, report: ProfileReport) -> str:
    return f"{100 * milliseconds / report.total:.1f} %"
