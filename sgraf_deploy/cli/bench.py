"""`sgraf-deploy bench`: compares engines with the literal loop; subcommands measure the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.bench_gpu import gpu
from sgraf_deploy.cli.bench_profile import profile
from sgraf_deploy.cli.bench_report import report_lines
from sgraf_deploy.cli.bench_scaling import scaling
from sgraf_deploy.cli.bench_subject import (
    COUNT,
    Subject,
    command_line,
    engine_options,
    repeats,
    subject_options,
)
from sgraf_deploy.cli.common import (
    CAPTION_COUNT,
    CAPTION_WORDS,
    DATASET,
    HTML,
    LIMIT_IMAGES,
    PATH,
    check_dataset,
    check_result_files,
    dimensions,
    gathered,
    show_finding,
)
from sgraf_deploy.cli.subcommands import CommandWithSubcommands
from sgraf_deploy.cli.terminal import echo, progress_bars, warn

if TYPE_CHECKING:
    from sgraf_deploy.bench.published import Dataset
    from sgraf_deploy.bench.run import BenchOptions, BenchReport
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.evaluation.workload import Workload

_SIDE, _DEMO_IMAGES = 100, 200


@dataclass(frozen=True)
class Compared:
    """The data that engines are compared on: a split of precomp data, or random regions and ids."""

    data: Path | None
    split: str | None
    limit_images: int | None
    captions_per_image: int
    max_caption_words: int | None
    images: int | None
    captions: int | None

    def check(self, subject: Subject) -> None:
        """Raise InputError for options that contradict each other."""
        from sgraf_deploy.errors import InputError

        if subject.random is not None and self.data is not None:
            raise InputError("--random", expected="no --data together with it", got=self.data)
        if (self.data is None) != (self.split is None):
            raise InputError("--data and --split", expected="both or neither")
        if self.data is not None and (self.images or self.captions):
            raise InputError("--images and --captions", expected="no --data together with them")
        if self.limit_images is not None and self.data is None:
            raise InputError("--limit-images", expected="--data DIR together with it", got="none")

    def workload(self, bundle: Bundle, *, demo: bool) -> Workload:
        """The regions and captions to measure on; for the demo's bundle, the demo's scenes."""
        from sgraf_deploy.bench.run import random_workload
        from sgraf_deploy.data.precomp import open_precomp
        from sgraf_deploy.evaluation.workload import split_workload

        if self.data is not None and self.split is not None:
            opened = open_precomp(
                self.data,
                self.split,
                captions_per_image=self.captions_per_image,
                model=dimensions(bundle),
                limit_images=self.limit_images,
            )
            return split_workload(bundle, opened, self.max_caption_words)
        if demo:
            from sgraf_deploy.demo.assets import demo_split

            return split_workload(bundle, demo_split(_DEMO_IMAGES))
        return random_workload(bundle, self.images or _SIDE, self.captions or _SIDE)


@dataclass(frozen=True)
class Rounds:
    """How many rounds and queries are measured."""

    repeats: int
    warmup: int
    queries: int


@dataclass(frozen=True)
class Pictured:
    """The files for a picture and for a page of the report."""

    plot: Path | None
    html: Path | None
    dataset: Dataset | None

    def check(self, json_file: Path | None) -> None:
        """Raise InputError for a file that cannot be written, or that is the report's, too."""
        check_result_files({"--json": json_file, "--plot": self.plot, "--html": self.html})
        check_dataset(self.dataset, self.html)

    def write(self, report: BenchReport) -> None:
        """Write those that were asked for."""
        if self.plot is None and self.html is None:
            return
        from sgraf_deploy.bench.page import bench_page
        from sgraf_deploy.bench.picture import comparison_svg
        from sgraf_deploy.files.writer import write_file

        value = report.to_json() | {"command": command_line()}
        if self.plot is not None:
            write_file(self.plot, comparison_svg(value), what="--plot")
        if self.html is not None:
            write_file(self.html, bench_page(value, self.dataset), what="--html")


@click.command(
    cls=CommandWithSubcommands,
    moved={"--scaling": "scaling", "--profile": "profile"},
    short_help="Measure parity and speed of engines against the PyTorch reference.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    default=("auto", "torch"),
    show_default=True,
    metavar="NAME[:PRECISION]",
    help="Engine to measure: a name that `sgraf-deploy doctor` lists, or auto. Repeat it for "
    "several.",
)
@click.option(
    "--data",
    type=PATH,
    metavar="DIR",
    help="Folder of precomp data to measure on; R@K is then compared, too. Default: random input.",
)
@click.option("--split", metavar="NAME", help="Name of the split of --data, such as test.")
@LIMIT_IMAGES
@CAPTION_COUNT
@CAPTION_WORDS
@click.option(
    "--images",
    type=COUNT,
    metavar="N",
    help="Number of random images, if there is no --data. Default: 100.",
)
@click.option(
    "--captions",
    type=COUNT,
    metavar="N",
    help="Number of random captions, if there is no --data. Default: 100.",
)
@repeats(10)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    metavar="N",
    default=2,
    show_default=True,
    help="Number of warm-up rounds before them; the times of the first are reported separately.",
)
@click.option(
    "--queries",
    type=COUNT,
    metavar="N",
    default=60,
    show_default=True,
    help="Number of queries that measure the latency against 10 images. Half as many run against "
    "100 images and a third against 1,000.",
)
@click.option(
    "--plot",
    type=PATH,
    metavar="FILE.svg",
    help="SVG file for a picture of R@K and speed, besides the printed report.",
)
@HTML
@DATASET
@engine_options
@subject_options
@gathered(Compared, "compared")
@gathered(Rounds, "rounds")
@gathered(Pictured, "pictured")
def bench(*, subject: Subject, compared: Compared, rounds: Rounds, pictured: Pictured) -> None:
    """Measure parity and speed of a BUNDLE's engines against the literal PyTorch reference.

    Without BUNDLE, the only *.sgraf of this folder is measured, or else the embedded demo with
    200 of its scenes. The command exits with 1 if a bound is missed. A bundle with the name of a
    command below is given as ./NAME.
    """
    compared.check(subject)
    subject.check()
    pictured.check(subject.json_file)
    from sgraf_deploy.bench.run import run_bench

    with subject.opened() as (opened, demo), progress_bars() as bars:
        options = _options(opened, subject, rounds)
        workload = compared.workload(opened, demo=demo)
        echo(f"{opened.path.name} ({opened.manifest.module}), {workload.name}")
        for finding in workload.findings:
            show_finding(finding)
        report = run_bench(opened, workload, options, bars)
    subject.show(report, report_lines(report))
    pictured.write(report)
    for message in report.warnings[len(workload.warnings) :]:
        warn(message)
    _fail_on(report)


for _subcommand in (scaling, profile, gpu):
    bench.add_command(_subcommand)


def _options(bundle: Bundle, subject: Subject, rounds: Rounds) -> BenchOptions:
    """The engines, the threads of all of them, and the rounds."""
    from sgraf_deploy.bench.run import BenchOptions
    from sgraf_deploy.bench.speed import SpeedOptions

    engines = subject.choices(bundle)
    given = subject.engine_options()
    try:
        import torch

        threads = given.threads or torch.get_num_threads()
        torch.set_num_threads(threads)
        given = replace(given, threads=threads)
    except ImportError:  # opening the reference reports it, with the command that installs it
        pass
    return BenchOptions(engines, given, SpeedOptions(rounds.repeats, rounds.warmup, rounds.queries))


def _fail_on(report: BenchReport) -> None:
    from sgraf_deploy.errors import GateError

    if report.failed:
        raise GateError("a bound is missed", got="; ".join(report.failed))
