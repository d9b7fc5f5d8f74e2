"""`sgraf-deploy bench --profile`: tables of where the scorer's time goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sgraf_deploy.cli.terminal import table

if TYPE_CHECKING:
    from sgraf_deploy.bench.profile import ProfileReport


def profile_lines(report: ProfileReport) -> Iterator[str]:
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


def stage_table(report: ProfileReport) -> list[str]:
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


def kind_table(report: ProfileReport) -> list[str]:
    """Time and share by what is done."""
    rows = [
        (kind, f"{milliseconds:,.1f}", _share(milliseconds, report))
        for kind, milliseconds in report.kinds().items()
    ]
    headers = ("all stages", "ms", "share")
    return table(rows, headers, headers[1:])


def _share(milliseconds: float, report: ProfileReport) -> str:
    return f"{100 * milliseconds / report.total:.1f} %"
