"""`sgraf-deploy bench`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from sgraf_deploy.cli.common import (
    CHECKPOINT_HELP,
    PATH,
    check_result_file,
    megabytes,
    progress_bars,
    table,
    warn,
)
from sgraf_deploy.config import MODULES, PRECISIONS, Module, Precision

if TYPE_CHECKING:
    from sgraf_deploy.bench.parity import Parity
    from sgraf_deploy.bench.run import BenchOptions, BenchReport, EngineChoice, Workload
    from sgraf_deploy.bundle import Bundle

_COUNT = click.IntRange(min=1)
_SIDE, _DEMO_IMAGES = 100, 200
_RECALLS = ("R@1", "R@5", "R@10")


@click.command(short_help="Measure parity and speed of engines against the PyTorch reference.")
@click.argument("bundle", type=PATH, required=False)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME[:PRECISION]",
    help="ort, torch, torch-reference, fused or auto; repeatable. If absent, ort and torch.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Of engines that name none.",
)
@click.option("--data", type=PATH, metavar="DIR", help="Precomp data: R@K is compared, too.")
@click.option("--split", metavar="NAME", help="The split of --data.")
@click.option("--limit-images", type=int, metavar="K", help="Only the first K images of it.")
@click.option(
    "--random",
    type=click.Choice(MODULES),
    help="Instead of a BUNDLE: the paper's dimensions and random weights.",
)
@click.option("--images", type=_COUNT, metavar="N", help="Without --data; 100 if absent.")
@click.option("--captions", type=_COUNT, metavar="N", help="Without --data; 100 if absent.")
@click.option(
    "--repeats",
    type=_COUNT,
    metavar="N",
    default=5,
    show_default=True,
    help="Rounds that count.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    metavar="N",
    default=1,
    show_default=True,
    help="Rounds before them.",
)
@click.option("--threads", type=_COUNT, metavar="N", help="CPU threads of every engine.")
@click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N.")
@click.option(
    "--checkpoint",
    "checkpoints",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help=CHECKPOINT_HELP,
)
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Also write the report here.")
def bench(
    *,
    bundle: Path | None,
    random: Module | None,
    data: Path | None,
    split: str | None,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Measure parity and speed of a BUNDLE's engines against the literal PyTorch reference.

    Without BUNDLE: the only *.sgraf of this folder, else the embedded demo. Exits 1 if a bound
    is missed.
    """
    from sgraf_deploy.bench.run import run_bench
    from sgraf_deploy.bundle import write_json

    _check_options(bundle, random, data, split, options)
    check_result_file(json_file, "--json")
    chosen = _bench_options(options)
    with _opened(bundle, random, chosen) as (opened, demo), progress_bars() as bars:
        workload = _workload(opened, data, split, options, demo=demo)
        click.echo(f"{opened.path.name} ({opened.manifest.module}), {workload.name}")
        for message in workload.warnings:
            warn(message)
        report = run_bench(opened, workload, chosen, bars)
    try:
        if json_file is not None:
            write_json(json_file, report.to_json() | {"command": _command()})
    finally:
        for line in report_lines(report):
            click.echo(line)
    for message in report.warnings[len(workload.warnings) :]:
        warn(message)
    _fail_on(report)


def _fail_on(report: BenchReport) -> None:
    from sgraf_deploy.errors import GateError

    if report.failed:
        raise GateError("a bound is missed", got="; ".join(report.failed))


def _check_options(
    bundle: Path | None,
    random: Module | None,
    data: Path | None,
    split: str | None,
    options: dict[str, Any],
) -> None:
    from sgraf_deploy.errors import InputError

    if random is not None and (bundle is not None or data is not None):
        raise InputError("--random", expected="no BUNDLE and no --data beside it")
    if (data is None) != (split is None):
        raise InputError("--data and --split", expected="both or neither")
    if data is not None and (options["images"] or options["captions"]):
        raise InputError("--images and --captions", expected="no --data beside them")
    if options["limit_images"] is not None and data is None:
        raise InputError("--limit-images", expected="--data DIR beside it", got="none")


def _bench_options(options: dict[str, Any]) -> BenchOptions:
    from sgraf_deploy.bench.run import BenchOptions, available_engines
    from sgraf_deploy.bench.speed import SpeedOptions
    from sgraf_deploy.runtime.engine import EngineOptions, choose_engine

    threads = options["threads"]
    try:
        import torch

        threads = threads or torch.get_num_threads()
        torch.set_num_threads(threads)
    except ImportError:  # said, with the command that installs it, where the reference is opened
        pass
    engines = options["engines"]
    if not engines:
        engines, reasons = available_engines(options["device"])
        for name, reason in reasons.items():
            click.echo(f"note: engine {name} is left out: {reason}")
        if not engines:
            choose_engine()  # raises, with the command that installs one
    return BenchOptions(
        tuple(_engine(text, options["precision"]) for text in engines),
        EngineOptions(threads, options["device"], tuple(options["checkpoints"])),
        SpeedOptions(repeats=options["repeats"], warmup=options["warmup"]),
    )


def _engine(text: str, precision: Precision) -> EngineChoice:
    """`NAME` or `NAME:PRECISION`; an engine that does not work here is an error, at once."""
    from sgraf_deploy.bench.run import EngineChoice
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.runtime.engine import check_engine

    name, colon, own = text.partition(":")
    if colon and own not in PRECISIONS:
        raise InputError(f"--engine {text}", expected=f"{name}:fp32 or {name}:fp16")
    check_engine(name)
    return EngineChoice(name, cast(Precision, own) if colon else precision)


@contextmanager
def _opened(
    bundle: Path | None, random: Module | None, options: BenchOptions
) -> Iterator[tuple[Bundle, bool]]:
    """The bundle to measure, and whether it is the embedded demo."""
    from sgraf_deploy.bench.run import default_bundle
    from sgraf_deploy.bundle import Bundle

    path = bundle if bundle or random else default_bundle(Path())
    if path is not None:
        yield Bundle.open(path), False
        return
    with tempfile.TemporaryDirectory() as folder:
        if random is not None:
            from sgraf_deploy.bench.random_model import (
                export_random,
                model_config,
                random_checkpoint,
            )

            wanted = {choice.precision for choice in options.engines}
            precisions = tuple(p for p in PRECISIONS if p in wanted)
            checkpoint = random_checkpoint(model_config(random))
            yield export_random(checkpoint, Path(folder), precisions), False
        else:
            from sgraf_deploy.demo.assets import export_demo

            yield export_demo(Path(folder) / "demo.sgraf").bundle, True


def _workload(
    bundle: Bundle,
    data: Path | None,
    split: str | None,
    options: dict[str, Any],
    *,
    demo: bool,
) -> Workload:
    from sgraf_deploy.bench.run import random_workload, split_workload

    if demo and data is None:
        from sgraf_deploy.demo.assets import demo_split

        return split_workload(bundle, demo_split(_DEMO_IMAGES))
    if data is None or split is None:
        return random_workload(bundle, options["images"] or _SIDE, options["captions"] or _SIDE)
    from sgraf_deploy.data.precomp import open_precomp

    opened = open_precomp(data, split, limit_images=options["limit_images"])
    return split_workload(bundle, opened)


def _command() -> str:
    import shlex
    import sys

    return shlex.join(["sgraf-deploy", *sys.argv[1:]])


def report_lines(report: BenchReport) -> Iterator[str]:
    """The report for people: accuracy, parity, speed, latency, memory."""
    yield f"on {report.run['processor']}, {report.run['threads']} threads"
    yield ""
    if any(report.reference.values()):
        yield "R@K; differences from the literal loop in brackets"
        yield recall_table(report)
        yield ""
    yield from parity_lines(report)
    yield ""
    yield from speed_lines(report)
    yield ""
    yield from latency_lines(report)
    if report.memory.peak is not None:
        yield f"peak memory of this process: {megabytes(report.memory.peak)}"


def recall_table(report: BenchReport) -> str:
    """R@K of every model by every engine."""
    rows = []
    for model, reference in report.reference.items():
        if reference is None:
            continue
        rows.append((model, "literal loop", *_recalls(reference, None)))
        for engine, parities in report.parity.items():
            for parity in parities:
                if parity.model == model and parity.recall is not None:
                    rows.append((model, engine, *_recalls(parity.recall, parity.deltas)))
    directions = [f"{arrow} {name}" for arrow in ("i→t", "t→i") for name in _RECALLS]
    return table(rows, ("model", "engine", *directions, "rsum"), (*directions, "rsum"))


def _recalls(report: Any, deltas: dict[str, float] | None) -> list[str]:
    values = {
        f"{arrow} {name}": getattr(side, f"r{name[2:]}")
        for arrow, side in (("i→t", report.image_to_text), ("t→i", report.text_to_image))
        for name in _RECALLS
    } | {"rsum": report.rsum}
    moved = {name: (deltas or {}).get(name, 0.0) for name in values}
    return [
        f"{value:.2f}" + (f" ({moved[name]:+.2f})" if abs(moved[name]) > 1e-9 else "")
        for name, value in values.items()
    ]


def parity_lines(report: BenchReport) -> Iterator[str]:
    """How far the logits are from the literal loop's, and the bounds."""
    ranked = any(report.reference.values())
    rows = [
        (engine, *_parity_row(parity, ranked=ranked))
        for engine, parities in report.parity.items()
        for parity in parities
    ]
    numbers = ["largest", "mean", "of std", "Spearman", *(["ranks changed"] if ranked else [])]
    yield "difference of logits from the literal loop's, in float32"
    yield table(rows, ("engine", "model", *numbers, "bounds"), numbers)


def _parity_row(parity: Parity, *, ranked: bool) -> tuple[str, ...]:
    share = parity.largest / parity.deviation if parity.deviation else float("nan")
    changed = [f"{len(parity.ranks.changes):,}"] if ranked and parity.ranks else []
    verdict = "MISSED: " + ", ".join(map(str, parity.missed)) if parity.missed else "met"
    return (
        *(parity.model, f"{parity.largest:.1e}", f"{parity.mean:.1e}", f"{100 * share:.3g} %"),
        *(f"{parity.spearman:.6f}", *changed, verdict),
    )


def speed_lines(report: BenchReport) -> Iterator[str]:
    """Throughput by scope."""
    found = report.throughput
    rows = []
    for speed in found.speeds:
        share = speed.percent_of_product_rate
        rows.append(
            (
                speed.engine,
                *(f"{rate:,.0f}" for rate in speed.rates.values()),
                f"{speed.times_literal:.2f}",
                "" if share is None else f"{share:.0f} %",
            )
        )
    yield (
        f"throughput, medians of {report.run['repeats']} interleaved rounds on {found.images} "
        f"images × {found.captions} captions; matrix products of {found.product_library}: "
        f"{found.product_rate / 1e9:.0f} GFLOP/s"
    )
    units = ("images/s", "captions/s", "pairs/s scored", "pairs/s end to end", "× literal")
    yield table(rows, ("engine", *units, "of product rate"), (*units, "of product rate"))


def latency_lines(report: BenchReport) -> Iterator[str]:
    """Milliseconds of one caption against galleries of several sizes."""
    rows = [
        (one.engine, f"{one.candidates:,}", *_percentiles(one.score), *_percentiles(one.end_to_end))
        for one in report.latency
    ]
    if not rows:
        return
    numbers = [f"{scope}{percent}" for scope in ("p", "e2e p") for percent in (50, 95, 99)]
    yield "latency of one caption against encoded images, ms: scored, and from its ids (e2e)"
    yield table(rows, ("engine", "images", *numbers), ("images", *numbers))


def _percentiles(timing: Any) -> list[str]:
    return [f"{1e3 * timing.percentile(percent):.2f}" for percent in (50, 95, 99)]
