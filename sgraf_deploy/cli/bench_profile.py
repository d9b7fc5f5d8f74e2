"""`sgraf-deploy bench profile`: tables of the scorer's time by stage and kind of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.bench_subject import COUNT, Subject, one_engine, subject_options
from sgraf_deploy.cli.terminal import echo, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.bench.timings_report import TimingsReport


@click.command(short_help="Show where the scorer's time goes, stage by stage.")
@click.option(
    "--engine",
    "engines",
    default="auto",
    show_default=True,
    metavar="NAME",
    callback=one_engine,
    help="The engine that is profiled, in fp32: native or ort. auto takes native where it is "
    "available, as it does for scoring on a CPU.",
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

    The matrix is scored once as it is and once profiled, so that what profiling costs is seen.
    Engine native squares the difference of contexts and words within the context products.
    Without BUNDLE: the only *.sgraf of this folder, else the embedded demo.
    """
    subject.check()
    subject = _on_the_cpu(subject)
    from sgraf_deploy.bench.run import random_workload
    from sgraf_deploy.bench.timings import measure_timings

    with subject.opened() as (opened, _), progress_bars() as bars:
        workload = random_workload(opened, images, captions)
        echo(f"{opened.path.name} ({opened.manifest.module}), {workload.name}")
        (engine,) = subject.engines
        options = subject.engine_options()
        report = measure_timings(opened, workload, engine, options, bars)
    subject.show(report, profile_lines(report))


def _on_the_cpu(subject: Subject) -> Subject:
    """With the engine that is profiled, in fp32.

    Raises InputError for an engine without stages, whether it works here or not, and
    UnavailableError for one that does not work here.
    """
    from sgraf_deploy.bench.timings import check_profiled
    from sgraf_deploy.engines.policy import AUTO

    subject = replace(subject, device="cpu", precision="fp32")
    if subject.engines != (AUTO,):
        check_profiled(*subject.engines)
    (choice,) = subject.choices(None)
    check_profiled(choice.engine)
    return replace(subject, engines=(choice.engine,))


def profile_lines(report: TimingsReport) -> Iterator[str]:
    """The report for people: stages, kinds of work, what is not arithmetic."""
    run, products = report.run, report.products
    yield (
        f"engine {run['engine']}, {run['executed']} on {run['processor']}, {report.workers} tiles "
        f"at a time; {report.seconds:.2f} s, {100 * report.slowdown:+.0f} % by the profiler"
    )
    threads = "" if products.threads is None else f" on {products.threads} threads"
    yield f"matrix products of {products.library}{threads}: {products.rate / 1e9:,.0f} GFLOP/s"
    yield (
        "milliseconds of all threads; GFLOP and GFLOP/s of one thread in products alone, and all "
        "threads' rate beside the matrix products'"
    )
    yield from stage_table(report)
    yield ""
    yield from kind_table(report)
    yield f"not arithmetic: {100 * report.not_arithmetic:.1f} %"


def stage_table(report: TimingsReport) -> list[str]:
    """Time, share, operations and rate by stage, and their sum."""
    rows = [
        (
            stage.member,
            stage.stage.label,
            f"{stage.total:,.1f}",
            _percent(report.share(stage.total)),
            f"{stage.flop / 1e9:,.2f}" if stage.flop else "",
            "" if stage.gflop_per_second is None else f"{stage.gflop_per_second:.1f}",
            _percent(report.of_product_rate(stage), digits=0),
        )
        for stage in report.stages
    ]
    spent = sum(stage.total for stage in report.stages)
    rows.append(("", "all stages", f"{spent:,.1f}", _percent(report.share(spent)), "", "", ""))
    headers = ("member", "stage", "ms", "share", "GFLOP", "GFLOP/s", "of products")
    return table(rows, headers, headers[2:])


def kind_table(report: TimingsReport) -> list[str]:
    """Time and share by what is done, and of the whole run, profiled or not."""
    whole = {"profiled run": report.total, "unprofiled run": report.unprofiled_total}
    rows = [
        (kind, f"{milliseconds:,.1f}", _percent(report.share(milliseconds)))
        for kind, milliseconds in (report.kinds() | whole).items()
    ]
    headers = ("all stages", "ms", "share")
    return table(rows, headers, headers[1:])


def _percent(share: float | None, digits: int = 1) -> str:
    return "" if share is None else f"{100 * share:.{digits}f} %"
