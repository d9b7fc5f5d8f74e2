"""`sgraf-deploy bench gpu`: everything that only a GPU can show."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    CAPTION_COUNT,
    CAPTION_WORDS,
    PATH,
    check_result_file,
    count,
    dimensions,
    megabytes,
)
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
    "gpu", cls=CommandWithSubcommands, short_help="Everything that only a GPU can show, in steps."
)
@click.option(
    "--results",
    type=PATH,
    default=RESULTS,
    show_default=True,
    metavar="DIR",
    help="Where gpu.json and summary.json go, and what an earlier run found is read.",
)
@click.option("--work", type=PATH, metavar="DIR", help="Bundles and data; if absent in --results.")
@click.option("--prepared", type=PATH, metavar="DIR", help="What `prepare` wrote, as real data.")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME[:PRECISION]",
    help="Repeatable; if absent fused, torch, trt and ort-cuda.",
)
@click.option(
    "--module", "modules", type=click.Choice(MODULES), multiple=True, help="If absent both."
)
@click.option(
    "--only",
    multiple=True,
    metavar="STEP",
    help="Only steps of this name, in which * stands for anything, and what they need; repeatable.",
)
@click.option("--again", is_flag=True, help="Run steps that failed before once more.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Begin no step after so many minutes; one that runs is not ended.",
)
@click.option("--small", is_flag=True, help="A trial, on a CPU too: sizes that prove nothing.")
@click.option("--dry-run", is_flag=True, help="List the steps and how long each may take.")
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
    """Measure every engine on this machine's GPU, and say of every bound whether it is met.

    Each step is a process of its own with a time limit of at most nine minutes. What it found is
    written before the next one begins: the same command goes on where an earlier run ended. A
    bundle folder of the name gpu is measured with `bench ./gpu`. Exits 1 if a bound is missed or
    a step failed.
    """
    from sgraf_deploy.bench.gpu.plan import DEFAULT_ENGINES, PlanOptions, make_plan
    from sgraf_deploy.bench.gpu.run import StepRun, World
    from sgraf_deploy.bench.gpu.state import resume, save
    from sgraf_deploy.bench.gpu.steps import select
    from sgraf_deploy.bench.gpu.unpack import PACKAGES, read_index

    options = PlanOptions(
        work=(work or results / "work").absolute(),
        engines=engines or DEFAULT_ENGINES,
        modules=tuple(one for one in MODULES if not modules or one in modules),
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
    left = run.run()
    _conclude(run.state, results, left, minutes)


def _conclude(state: State, results: Path, left: list[Step], minutes: float | None) -> None:
    """Write and show the summary; GateError where something is not as it must be."""
    from sgraf_deploy.bench.gpu.summary import FILE, summarise
    from sgraf_deploy.errors import GateError
    from sgraf_deploy.files.writer import write_json

    summary = summarise([state])
    write_json(results / FILE, summary, what="summary")
    _show(summary)
    echo(f"wrote {results / 'gpu.json'} and {results / FILE}")
    if left:
        names = ", ".join(step.name for step in left)
        echo(f"stopped: the {minutes:g} minutes are used up; not begun: {names}")
        echo("the same command goes on from here")
    broken = [one.step for one in state.records if one.outcome in ("failed", "timed out")]
    if broken:
        hint = "their ends of standard error are in gpu.json; --again runs them once more"
        raise GateError("steps failed", got=", ".join(broken), hint=hint)
    _fail_on_missed(summary)


def _fail_on_missed(summary: dict[str, Any]) -> None:
    from sgraf_deploy.errors import GateError

    missed = [
        one["what"]
        for machine in summary["machines"]
        for one in machine["bounds"]
        if one["met"] == "missed"
    ]
    if missed:
        raise GateError("bounds are missed", got="; ".join(dict.fromkeys(missed)))


@gpu.command(short_help="Say of every bound what several runs found.")
@click.argument("results", type=PATH, nargs=-1, required=True, metavar="RESULTS...")
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Also write it here.")
def summary(*, results: tuple[Path, ...], json_file: Path | None) -> None:
    """Merge RESULTS, files of `bench gpu` or folders with one, machine by machine.

    Of a step that several of them took, the last one's counts. Every bound is met, missed or not
    run, with the reason. Exits 1 if one is missed.
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


@gpu.command(short_help="Collect what a bare machine lacks into one folder.")
@click.argument("bundle", type=PATH, required=False)
@click.option(
    "-o", "--output", type=PATH, required=True, metavar="DIR", help="The folder to write."
)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="In place of BUNDLE: checkpoints to export, SGR, SAF or both; repeatable.",
)
@click.option("--vocab", type=PATH, metavar="FILE", help="Their vocabulary.")
@click.option("--data", type=PATH, metavar="DIR", help="Precomp data.")
@click.option("--split", metavar="NAME", help="The split of --data.")
@click.option("--limit-images", type=int, metavar="K", help="Only the first K images of it.")
@CAPTION_COUNT
@CAPTION_WORDS
@click.option(
    "--packages",
    type=PATH,
    metavar="DIR",
    help="Python packages for that machine, as `pip install --target DIR` puts them.",
)
@click.option(
    "--part-mb",
    type=click.IntRange(min=1),
    default=48,
    show_default=True,
    metavar="N",
    help="Cut into files of at most so many MB.",
)
@click.option("--force", is_flag=True, help="Replace what was prepared before.")
def prepare(*, output: Path, part_mb: int, force: bool, **options: Any) -> None:
    """Collect a BUNDLE and a split to compare R@K on, for a machine that has neither.

    Without a BUNDLE or --checkpoint: the embedded demo, 200 of its scenes. Captions are taken along
    as token ids, so that no tokenizer is needed there. Random models for speed are made there.
    """
    from sgraf_deploy.bench.gpu.prepare import prepare as write

    with _contents(options) as contents:
        index = write(contents, output, part_bytes=part_mb * 10**6, force=force)
    found = index.content
    echo(f"{found['module']}, {found['images']:,} images × {found['captions']:,} captions")
    for name, size in found["bytes"].items():
        if size:
            kind = f" ({found['regions_dtype']})" if name == "regions.npy" else ""
            echo(f"{name}{kind}: {megabytes(size)}")
    total = sum(part.bytes for part in index.parts)
    parts = count(len(index.parts), "part")
    echo(f"wrote {output}: {parts}, {megabytes(total)} compressed, and prepared.json")
    echo("bring all of it into one folder on the machine with a GPU, and run there:")
    echo(f"    sgraf-deploy bench gpu --prepared {output.name}")


@contextmanager
def _contents(options: dict[str, Any]) -> Iterator[Contents]:
    """What is to be collected; a bundle that is made for it lives as long as the block."""
    from sgraf_deploy.bench.gpu.prepare import Contents
    from sgraf_deploy.errors import InputError

    given = options["bundle"] is not None or bool(options["checkpoints"])
    if options["bundle"] is not None and options["checkpoints"]:
        raise InputError("BUNDLE and --checkpoint", expected="one of them", got="both")
    if given != (options["data"] is not None) or given != (options["split"] is not None):
        expected = "a BUNDLE or --checkpoint, --data and --split, or none of them"
        raise InputError("what is compared", expected=expected, got="some of them")
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
    """The steps, in order."""
    rows = [
        (step.name, f"{step.seconds / 60:.0f} min", ", ".join(step.needs), step.shown)
        for step in steps
    ]
    for line in table(rows, ("step", "at most", "needs", "command"), ("at most",)):
        echo(line)
    total = sum(step.seconds for step in steps) / 60
    echo(f"{len(steps)} steps, {total:.0f} minutes if every one took all that it may")


def _show(summary: dict[str, Any]) -> None:
    from sgraf_deploy.bench.gpu.summary import rows_of

    for heading, measured, rows in rows_of(summary):
        echo()
        echo(heading)
        for step, found in measured:
            echo(f"  {step}: {found}")
        for line in table(rows, ("bound", "of", "wanted", "found")):
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
