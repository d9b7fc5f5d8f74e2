"""`sgraf-deploy bench`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from sgraf_deploy.cli.bench_gpu import gpu
from sgraf_deploy.cli.bench_modes import check_mode
from sgraf_deploy.cli.bench_profile import profile_lines
from sgraf_deploy.cli.bench_report import report_lines
from sgraf_deploy.cli.bench_scaling import parse_sizes, scaling_lines, write_plot
from sgraf_deploy.cli.common import (
    CAPTION_COUNT,
    CAPTION_WORDS,
    CHECKPOINT_HELP,
    ENGINE_DIR_HELP,
    PATH,
    UNVERIFIED_HELP,
    check_result_file,
    dimensions,
    show_finding,
)
from sgraf_deploy.cli.subcommands import CommandWithSubcommands
from sgraf_deploy.cli.terminal import echo, progress_bars, warn
from sgraf_deploy.config import MODULES, PRECISIONS, Precision

if TYPE_CHECKING:
    from sgraf_deploy.bench.run import BenchOptions, BenchReport, Workload
    from sgraf_deploy.bundle import Bundle
    from sgraf_deploy.runtime.engine import EngineOptions
    from sgraf_deploy.runtime.policy import Choice

_COUNT = click.IntRange(min=1)
_SIDE, _DEMO_IMAGES = 100, 200
_BY_MODE = {"compare": ("auto", "torch"), "scaling": ("auto",), "profile": ("ort:fp32",)}
"""The engines where none is named."""


class Report(Protocol):
    """What every mode makes."""

    def to_json(self) -> dict[str, Any]:
        """The whole report as a JSON object."""


@click.command(
    cls=CommandWithSubcommands,
    short_help="Measure parity and speed of engines against the PyTorch reference.",
)
@click.argument("bundle", type=PATH, required=False)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME[:PRECISION]",
    help="One of those that doctor lists, or auto; repeatable. If absent, auto and torch; with "
    "--scaling auto, with --profile ort.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of engines that name none; if absent fp32, for GPU engines fp16, if the bundle has it.",
)
@click.option("--data", type=PATH, metavar="DIR", help="Precomp data: R@K is compared, too.")
@click.option("--split", metavar="NAME", help="The split of --data.")
@click.option("--limit-images", type=int, metavar="K", help="Only the first K images of it.")
@CAPTION_COUNT
@CAPTION_WORDS
@click.option(
    "--random",
    type=click.Choice(MODULES),
    help="Instead of a BUNDLE: the paper's dimensions and random weights.",
)
@click.option("--images", type=_COUNT, metavar="N", help="Random ones; 100, or 200 with --profile.")
@click.option("--captions", type=_COUNT, metavar="N", help="Of these; 100, or 1000 with --profile.")
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
    default=2,
    show_default=True,
    help="Rounds before them; the first one's times are reported apart.",
)
@click.option(
    "--queries",
    type=_COUNT,
    metavar="N",
    default=60,
    show_default=True,
    help="Of the latency against 10 images; half as many against 100, a third against 1,000.",
)
@click.option(
    "--scaling",
    is_flag=True,
    help="Instead: speed and memory as the matrix grows, and speed as captions grow.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="IMAGESxCAPTIONS",
    help="With --scaling: in place of sizes from 10⁴ to 10⁷ pairs; repeatable.",
)
@click.option("--max-pairs", type=_COUNT, metavar="N", help="With --scaling: no larger size.")
@click.option("--plot", type=PATH, metavar="FILE.svg", help="With --scaling: also draw it.")
@click.option(
    "--profile",
    is_flag=True,
    help="Instead: where the scorer's time goes on engine ort, stage by stage.",
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
@click.option("--engine-dir", type=PATH, metavar="DIR", help=ENGINE_DIR_HELP)
@click.option("--allow-unverified", is_flag=True, help=UNVERIFIED_HELP)
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Also write the report here.")
@click.pass_context
def bench(
    context: click.Context,
    /,
    *,
    scaling: bool,
    profile: bool,
    **options: Any,
) -> None:
    """Measure parity and speed of a BUNDLE's engines against the literal PyTorch reference.

    Without BUNDLE: the only *.sgraf of this folder, else the embedded demo. Exits 1 if a bound
    is missed. A bundle that is called like a command below is given as ./NAME.
    """
    _check_options(context, options)
    check_result_file(options["json_file"], "--json")
    run = {"scaling": _scaling, "profile": _profile, "compare": _compare}
    mode = "scaling" if scaling else "profile" if profile else "compare"
    run[mode](options | {"mode": mode})


bench.add_command(gpu)


def _compare(options: dict[str, Any]) -> None:
    """Parity and speed."""
    from sgraf_deploy.bench.run import run_bench

    with _opened(options) as (opened, demo), progress_bars() as bars:
        chosen = _bench_options(opened, options)
        workload = _workload(opened, options, demo=demo)
        echo(f"{opened.path.name} ({opened.manifest.module}), {workload.name}")
        for finding in workload.findings:
            show_finding(finding)
        report = run_bench(opened, workload, chosen, bars)
    _show(report, report_lines(report), options)
    for message in report.warnings[len(workload.warnings) :]:
        warn(message)
    _fail_on(report)


def _scaling(options: dict[str, Any]) -> None:
    """Speed and memory by size."""
    from sgraf_deploy.bench.scaling import (
        ScalingOptions,
        choose_sizes,
        measure_scaling,
    )

    check_result_file(options["plot"], "--plot")
    sizes = parse_sizes(options["sizes"]) if options["sizes"] else ScalingOptions.sizes
    choose_sizes(sizes, options["max_pairs"])  # raises before the work
    with _opened(options) as (opened, _), progress_bars() as bars:
        echo(f"{opened.path.name} ({opened.manifest.module}), random regions and ids")
        (engine,) = _choices(opened, options)
        chosen = ScalingOptions(
            engine,
            _engine_options(options),
            sizes=sizes,
            max_pairs=options["max_pairs"],
            repeats=options["repeats"],
        )
        report = measure_scaling(opened, chosen, bars("scaling"))
    _show(report, scaling_lines(report), options)
    if options["plot"] is not None:
        write_plot(options["plot"], report)


def _profile(options: dict[str, Any]) -> None:
    """The scorer's stages."""
    _choices(None, options)  # raises without ONNX Runtime, which the next line needs
    from sgraf_deploy.bench.profile import measure_profile
    from sgraf_deploy.bench.run import random_workload
    from sgraf_deploy.runtime.engine import EngineOptions

    with _opened(options) as (opened, _), progress_bars() as bars:
        images, captions = options["images"] or 200, options["captions"] or 1000
        workload = random_workload(opened, images, captions)
        echo(f"{opened.path.name} ({opened.manifest.module}), {workload.name}")
        threads = EngineOptions(options["threads"])
        report = measure_profile(opened, workload, threads, bars("profiling"))
    _show(report, profile_lines(report), options)


def _show(report: Report, lines: Iterator[str], options: dict[str, Any]) -> None:
    """Write the report if that is asked for; show it in any case."""
    from sgraf_deploy.files import write_json

    try:
        if options["json_file"] is not None:
            write_json(
                options["json_file"], report.to_json() | {"command": _command()}, what="--json"
            )
    finally:
        for line in lines:
            echo(line)


def _fail_on(report: BenchReport) -> None:
    from sgraf_deploy.errors import GateError

    if report.failed:
        raise GateError("a bound is missed", got="; ".join(report.failed))


def _check_options(context: click.Context, options: dict[str, Any]) -> None:
    from sgraf_deploy.errors import InputError

    check_mode(context)
    data = options["data"]
    if options["random"] is not None and (options["bundle"] is not None or data is not None):
        raise InputError("--random", expected="no BUNDLE and no --data beside it")
    if (data is None) != (options["split"] is None):
        raise InputError("--data and --split", expected="both or neither")
    if data is not None and (options["images"] or options["captions"]):
        raise InputError("--images and --captions", expected="no --data beside them")
    if options["limit_images"] is not None and data is None:
        raise InputError("--limit-images", expected="--data DIR beside it", got="none")


def _bench_options(bundle: Bundle, options: dict[str, Any]) -> BenchOptions:
    from sgraf_deploy.bench.run import BenchOptions
    from sgraf_deploy.bench.speed import SpeedOptions

    engines = _choices(bundle, options)
    given = _engine_options(options)
    try:
        import torch

        threads = given.threads or torch.get_num_threads()
        torch.set_num_threads(threads)
        given = replace(given, threads=threads)
    except ImportError:  # said, with the command that installs it, where the reference is opened
        pass
    speed = SpeedOptions(options["repeats"], options["warmup"], options["queries"])
    return BenchOptions(engines, given, speed)


def _engine_options(options: dict[str, Any]) -> EngineOptions:
    from sgraf_deploy.runtime.engine import EngineOptions

    return EngineOptions(
        options["threads"],
        options["device"],
        tuple(options["checkpoints"]),
        options["engine_dir"],
        options["allow_unverified"],
    )


def _choices(bundle: Bundle | None, options: dict[str, Any]) -> tuple[Choice, ...]:
    """What is measured; without a bundle, on one that has everything but compiled engines.

    An engine that does not work here is an error, before anything long begins.
    """
    from sgraf_deploy.runtime.machine import Machine
    from sgraf_deploy.runtime.policy import choose, parse_request

    machine = Machine(bundle, _engine_options(options))
    wanted = options["engines"] or _BY_MODE[options["mode"]]
    requests = [parse_request(text, options["precision"], options["device"]) for text in wanted]
    return tuple(dict.fromkeys(choose(request, machine) for request in requests))


def _precisions(engines: Iterable[Choice]) -> tuple[Precision, ...]:
    wanted = {choice.precision for choice in engines}
    return tuple(precision for precision in PRECISIONS if precision in wanted)


@contextmanager
def _opened(options: dict[str, Any]) -> Iterator[tuple[Bundle, bool]]:
    """The bundle to measure, and whether it is the embedded demo."""
    from sgraf_deploy.bench.run import default_bundle
    from sgraf_deploy.bundle import Bundle

    bundle, random = options["bundle"], options["random"]
    path = bundle if bundle or random else default_bundle(Path())
    if path is not None:
        yield Bundle.open(path), False
        return
    precisions = _precisions(_choices(None, options))
    with tempfile.TemporaryDirectory() as folder:
        if random is not None:
            from sgraf_deploy.bench.random_model import (
                export_random,
                model_config,
                random_checkpoint,
            )

            checkpoint = random_checkpoint(model_config(random))
            yield export_random(checkpoint, Path(folder), precisions), False
        else:
            from sgraf_deploy.demo.assets import export_demo

            yield export_demo(Path(folder) / "demo.sgraf").bundle, True


def _workload(bundle: Bundle, options: dict[str, Any], *, demo: bool) -> Workload:
    from sgraf_deploy.bench.run import random_workload, split_workload

    data = options["data"]
    if demo and data is None:
        from sgraf_deploy.demo.assets import demo_split

        return split_workload(bundle, demo_split(_DEMO_IMAGES))
    if data is None:
        return random_workload(bundle, options["images"] or _SIDE, options["captions"] or _SIDE)
    from sgraf_deploy.data.precomp import open_precomp

    opened = open_precomp(
        data,
        options["split"],
        captions_per_image=options["captions_per_image"],
        model=dimensions(bundle),
        limit_images=options["limit_images"],
    )
    return split_workload(bundle, opened, options["max_caption_words"])


def _command() -> str:
    import shlex
    import sys

    return shlex.join(["sgraf-deploy", *sys.argv[1:]])
