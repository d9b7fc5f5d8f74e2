"""`sgraf-deploy bench`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from sgraf_deploy.cli.bench_report import report_lines
from sgraf_deploy.cli.common import (
    CHECKPOINT_HELP,
    PATH,
    check_result_file,
    progress_bars,
    warn,
)
from sgraf_deploy.config import MODULES, PRECISIONS, Module, Precision

if TYPE_CHECKING:
    from sgraf_deploy.bench.run import BenchOptions, BenchReport, EngineChoice, Workload
    from sgraf_deploy.bundle import Bundle

_COUNT = click.IntRange(min=1)
_SIDE, _DEMO_IMAGES = 100, 200


@click.command(short_help="Measure parity and speed of engines against the PyTorch reference.")
@click.argument("bundle", type=PATH, required=False)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME[:PRECISION]",
    help="ort, torch, torch-reference or auto; repeatable. If absent, all that work here.",
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
