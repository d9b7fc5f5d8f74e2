"""`sgraf-deploy bench gpu`: measures everything that needs a GPU, step by step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE_PATH,
    CAPTION_COUNT,
    CAPTION_WORDS,
    LIMIT_IMAGES,
    PATH,
    check_result_file,
    count,
    dimensions,
    megabytes,
)
from sgraf_deploy.cli.option_types import FiniteRange
from sgraf_deploy.cli.subcommands import CommandWithSubcommands
from sgraf_deploy.cli.terminal import echo, table
from sgraf_deploy.config import MODULES

if TYPE_CHECKING:
    from sgraf_deploy.bench.gpu.prepare import Contents
    from sgraf_deploy.bench.gpu.state import State
    from sgraf_deploy.bench.gpu.steps import Step
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.precomp import PrecompSplit

RESULTS = Path("sgraf-gpu")
_DEMO_IMAGES = 200


@click.command(
    "gpu", cls=CommandWithSubcommands, short_help="Measure everything that needs a GPU, in steps."
)
@click.option(
    "--results",
    type=PATH,
    default=RESULTS,
    show_default=True,
    metavar="DIR",
    help="Folder to write gpu.json and summary.json to, and to read an earlier run's results from.",
)
@click.option(
    "--work",
    type=PATH,
    metavar="DIR",
    help="Folder for bundles and data. Default: work/ inside --results.",
)
@click.option(
    "--prepared",
    type=PATH,
    metavar="DIR",
    help="Folder that `bench gpu prepare` wrote, with a model and real data. Default: the embedded "
    "demo.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME[:PRECISION]",
    help="Engine to measure; repeat it for several. Default: fused, torch, trt and ort-cuda.",
)
@click.option(
    "--module",
    "modules",
    type=click.Choice(MODULES),
    multiple=True,
    help="Model to measure; repeat it for several. Default: both.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="STEP",
    help="Run only the steps with this name, in which * matches anything, and the steps that they "
    "need; repeat it for several. Default: all steps.",
)
@click.option("--again", is_flag=True, help="Run the steps that failed in an earlier run again.")
@click.option(
    "--minutes",
    type=FiniteRange(min=0, min_open=True),
    metavar="N",
    help="Start no step after this many minutes; a step that runs is not interrupted. Default: no "
    "limit.",
)
@click.option(
    "--small",
    is_flag=True,
    help="Try the steps out with small sizes, also on a CPU; the results prove nothing.",
)
@click.option(
    "--dry-run", is_flag=True, help="List the steps and the time limit of each, and run none."
)
def gpu(
    *,
    results: Path,
    work: Path | None,
    prepared: Path | None,
    engines: tuple[str, ...],
    modules: tuple[str, ...],
    only: tuple[str, ...],
    again: bool,
    minutes: float | None,
    small: bool,
    dry_run: bool,
) -> None:
    """Measure every engine on this machine's GPU, and check every bound.

    Each step runs in a process of its own, with a time limit of at most nine minutes. Its result is
    written before the next step starts, so the same command continues where an earlier run ended.
    The command exits with 1 if a bound is missed or a step failed. A bundle folder named gpu is
    measured with `bench ./gpu`.
    """
    from sgraf_deploy.bench.gpu.plan import DEFAULT_ENGINES, PlanOptions, make_plan
    from sgraf_deploy.bench.gpu.run import StepRun, World
    from sgraf_deploy.bench.gpu.state import resume, save
    from sgraf_deploy.bench.gpu.steps import select
    from sgraf_deploy.bench.gpu.unpack import PACKAGES, read_index

    options = PlanOptions(
        work=(work or results / "work").absolute(),
        engines=engines or DEFAULT_ENGINES,
        modules=tuple(module for module in MODULES if not modules or module in modules),
        small=small,
        prepared=None if prepared is None else prepared.absolute(),
        key="demo" if prepared is None else read_index(prepared)[1],
    )
    steps = select(make_plan(options), only)
    if dry_run:
        _list(steps)
        return
    _make_folders(results, options.work)
    state = resume(results, options.key, small=small).with_command(_command())
    run = StepRun(
        steps,
        state,
        save=lambda state: save(results, state),
        tell=echo,
        packages=options.data / PACKAGES,
        world=World(),
        again=again,
        minutes=minutes,
    )
    not_started = run.run()
    _conclude(run.state, results, not_started, minutes)


def _conclude(state: State, results: Path, not_started: list[Step], minutes: float | None) -> None:
    """Write and show the summary; raise GateError for a failed step or a missed bound."""
    from sgraf_deploy.bench.gpu.summary import FILE, summarise
    from sgraf_deploy.errors import GateError
    from sgraf_deploy.files.writer import write_json

    summary = summarise([state])
    write_json(results / FILE, summary, what="summary")
    _show(summary)
    echo(f"wrote {results / 'gpu.json'} and {results / FILE}")
    if not_started:
        names = ", ".join(step.name for step in not_started)
        echo(f"stopped: the {minutes:g} minutes are used up; not started: {names}")
        echo("run the same command again to continue from here")
    failed = [record.step for record in state.records if record.outcome in ("failed", "timed out")]
    if failed:
        hint = "the end of their standard error is in gpu.json; --again runs them again"
        raise GateError("steps failed", got=", ".join(failed), hint=hint)
    _fail_on_missed(summary)


def _fail_on_missed(summary: dict[str, Any]) -> None:
    from sgraf_deploy.errors import GateError

    missed = [
        bound["what"]
        for machine in summary["machines"]
        for bound in machine["bounds"]
        if bound["met"] == "missed"
    ]
    if missed:
        raise GateError("bounds are missed", got="; ".join(dict.fromkeys(missed)))


@gpu.command(short_help="Merge the results of several runs and check every bound.")
@click.argument("results", type=PATH, nargs=-1, required=True, metavar="RESULTS...")
@click.option(
    "--json",
    "json_file",
    type=PATH,
    metavar="FILE",
    help="Also write the summary to this file, as JSON.",
)
def summary(*, results: tuple[Path, ...], json_file: Path | None) -> None:
    """Merge RESULTS, which are gpu.json files of `bench gpu` or their folders, by machine.

    If several of them ran the same step, the last result counts. Every bound is shown as met,
    missed or not run, with the reason. The command exits with 1 if a bound is missed.
    """
    from sgraf_deploy.bench.gpu.state import read_state
    from sgraf_deploy.bench.gpu.summary import summarise
    from sgraf_deploy.files.writer import write_json

    check_result_file(json_file, "--json")
    merged = summarise([read_state(path) for path in results])
    if json_file is not None:
        write_json(json_file, merged, what="--json")
    _show(merged)
    _fail_on_missed(merged)


@gpu.command(short_help="Collect a model and data into one folder for a GPU machine.")
@click.argument("bundle", type=BUNDLE_PATH, required=False)
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Folder to write.")
@click.option(
    "--checkpoint",
    "checkpoints",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Checkpoint to export, SGR or SAF, instead of a BUNDLE; repeat it for both.",
)
@click.option(
    "--vocab", type=PATH, metavar="FILE", help="Vocabulary that the checkpoints were trained with."
)
@click.option("--data", type=PATH, metavar="DIR", help="Folder of precomp data to compare R@K on.")
@click.option("--split", metavar="NAME", help="Name of the split of --data, such as test.")
@LIMIT_IMAGES
@CAPTION_COUNT
@CAPTION_WORDS
@click.option(
    "--packages",
    type=PATH,
    metavar="DIR",
    help="Folder of Python packages for that machine, as `pip install --target DIR` writes it. "
    "Default: no packages.",
)
@click.option(
    "--part-mb",
    type=click.IntRange(min=1),
    default=48,
    show_default=True,
    metavar="N",
    help="Largest size of a written file, in MB of 10⁶ bytes; larger content is split.",
)
@click.option("--force", is_flag=True, help="Replace a folder that was prepared before.")
def prepare(*, output: Path, part_mb: int, force: bool, **options: Any) -> None:
    """Collect a BUNDLE and a split to compare R@K on, for a GPU machine that has neither.

    Without a BUNDLE or --checkpoint, the embedded demo and 200 of its scenes are collected.
    Captions are stored as token ids, so that the GPU machine needs no tokenizer. The random models
    for speed are made there.
    """
    from sgraf_deploy.bench.gpu.prepare import prepare as write

    with _contents(options) as contents:
        index = write(contents, output, part_bytes=part_mb * 10**6, force=force)
    content = index.content
    echo(f"{content['module']}, {content['images']:,} images × {content['captions']:,} captions")
    for name, size in content["bytes"].items():
        if size:
            kind = f" ({content['regions_dtype']})" if name == "regions.npy" else ""
            echo(f"{name}{kind}: {megabytes(size)}")
    total = sum(part.bytes for part in index.parts)
    parts = count(len(index.parts), "part")
    echo(f"wrote {output}: {parts}, {megabytes(total)} compressed, and prepared.json")
    echo("copy all of it into one folder on the machine with a GPU, and run there:")
    echo(f"    sgraf-deploy bench gpu --prepared {output.name}")


@contextmanager
def _contents(options: dict[str, Any]) -> Iterator[Contents]:
    """What is collected; a bundle that is exported for it exists as long as the context."""
    from sgraf_deploy.bench.gpu.prepare import Contents
    from sgraf_deploy.errors import InputError

    given = options["bundle"] is not None or bool(options["checkpoints"])
    if options["bundle"] is not None and options["checkpoints"]:
        raise InputError("BUNDLE and --checkpoint", expected="only one of them", got="both")
    if given != (options["data"] is not None) or given != (options["split"] is not None):
        expected = "a BUNDLE or --checkpoint together with --data and --split, or none of them"
        raise InputError("what to prepare", expected=expected, got="only some of them")
    with tempfile.TemporaryDirectory() as folder:
        bundle = _bundle(options, Path(folder) / "model.sgraf")
        split = _split(options, bundle)
        yield Contents(bundle, split, options["packages"], options["max_caption_words"])


def _bundle(options: dict[str, Any], target: Path) -> Bundle:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    if options["bundle"] is not None:
        return Bundle.open(options["bundle"])
    if options["checkpoints"]:
        chosen = ExportOptions(vocabulary=options["vocab"])
        return export_bundle(options["checkpoints"], target, chosen).bundle
    from sgraf_deploy.demo.assets import export_demo

    return export_demo(target).bundle


def _split(options: dict[str, Any], bundle: Bundle) -> PrecompSplit:
    from sgraf_deploy.data.precomp import open_precomp
    from sgraf_deploy.demo.assets import demo_split

    limit = options["limit_images"]
    if options["data"] is None:
        return demo_split(limit or _DEMO_IMAGES)
    return open_precomp(
        options["data"],
        options["split"],
        captions_per_image=options["captions_per_image"],
        model=dimensions(bundle),
        limit_images=limit,
    )


def _list(steps: list[Step]) -> None:
    """Print the steps in order, each with its time limit and the steps that it needs."""
    rows = [
        (step.name, f"{step.seconds / 60:.0f} min", ", ".join(step.needs), step.shown)
        for step in steps
    ]
    for line in table(rows, ("step", "at most", "needs", "command"), ("at most",)):
        echo(line)
    total = sum(step.seconds for step in steps) / 60
    echo(f"{len(steps)} steps, {total:.0f} minutes at most")


def _show(summary: dict[str, Any]) -> None:
    from sgraf_deploy.bench.gpu.summary import rows_of

    for heading, measured, rows in rows_of(summary):
        echo()
        echo(heading)
        for step, figures in measured:
            echo(f"  {step}: {figures}")
        for line in table(rows, ("bound", "of", "required", "measured")):
            echo(line)


def _make_folders(*folders: Path) -> None:
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.files.disk import os_errors

    for folder in folders:
        with os_errors(f"folder {folder}", InputError):
            folder.mkdir(parents=True, exist_ok=True)


def _command() -> str:
    import sys

    from sgraf_deploy.bench.gpu.steps import shown_command

    return shown_command(["sgraf-deploy", *sys.argv[1:]])
