"""The options that `sgraf-deploy bench` and its subcommands share: the bundle and the engines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from sgraf_deploy.cli.common import (
    ALLOW_UNVERIFIED,
    BUNDLE_PATH,
    CHECKPOINTS,
    ENGINE_DIR,
    PATH,
    check_result_file,
    gathered,
)
from sgraf_deploy.cli.option_types import THREADS
from sgraf_deploy.cli.terminal import echo
from sgraf_deploy.config import MODULES, PRECISIONS, Module, Precision

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.engines.base import EngineOptions
    from sgraf_deploy.engines.policy import Choice

F = TypeVar("F", bound=Callable[..., Any])

COUNT = click.IntRange(min=1)


def repeats(default: int) -> Callable[[F], F]:
    """The option --repeats."""
    return click.option(
        "--repeats",
        type=COUNT,
        metavar="N",
        default=default,
        show_default=True,
        help="Number of measured rounds.",
    )


class Report(Protocol):
    """The report that every command of bench makes."""

    def to_json(self) -> dict[str, Any]:
        """The whole report as a JSON object."""


@dataclass(frozen=True)
class Subject:
    """A bundle, or a random model in its place, and the engines that score with it."""

    bundle: Path | str | None
    random: Module | None
    engines: tuple[str, ...]
    json_file: Path | None
    threads: int | None
    precision: Precision | None = None
    device: str | None = None
    checkpoints: tuple[Path, ...] = ()
    engine_dir: Path | None = None
    allow_unverified: bool = False

    def check(self) -> None:
        """Raise InputError for contradicting options or a report file that cannot be written."""
        from sgraf_deploy.errors import InputError

        if self.random is not None and self.bundle is not None:
            raise InputError("--random", expected="no BUNDLE together with it", got=self.bundle)
        check_result_file(self.json_file, "--json")

    def engine_options(self) -> EngineOptions:
        """The options that engines are opened with."""
        from sgraf_deploy.engines.base import EngineOptions

        return EngineOptions(
            self.threads,
            self.device,
            self.checkpoints,
            self.engine_dir,
            self.allow_unverified,
        )

    def choices(self, bundle: Bundle | None) -> tuple[Choice, ...]:
        """The engines to measure; `None` stands for a bundle with every graph but no plans.

        An engine that does not work here raises UnavailableError, before any long work begins.
        """
        from sgraf_deploy.engines.machine import Machine
        from sgraf_deploy.engines.policy import choose, parse_request

        machine = Machine(bundle, self.engine_options())
        requests = [parse_request(text, self.precision, self.device) for text in self.engines]
        return tuple(dict.fromkeys(choose(request, machine) for request in requests))

    @contextmanager
    def opened(self) -> Iterator[tuple[Bundle, bool]]:
        """The bundle to measure, and whether it is the embedded demo."""
        from sgraf_deploy.bench.run import default_bundle
        from sgraf_deploy.bundle.bundle import Bundle

        path = self.bundle if self.bundle or self.random else default_bundle(Path())
        if path is not None:
            yield Bundle.open(path), False
            return
        precisions = _precisions(self.choices(None))
        with tempfile.TemporaryDirectory() as folder:
            if self.random is not None:
                from sgraf_deploy.bench.random_model import (
                    export_random,
                    model_config,
                    random_checkpoint,
                )

                checkpoint = random_checkpoint(model_config(self.random))
                yield export_random(checkpoint, Path(folder), precisions), False
            else:
                from sgraf_deploy.demo.assets import export_demo

                yield export_demo(Path(folder) / "demo.sgraf").bundle, True

    def show(self, report: Report, lines: Iterable[str]) -> None:
        """Write the report if a file was given, and print it even if writing fails."""
        from sgraf_deploy.files.writer import write_json

        try:
            if self.json_file is not None:
                content = report.to_json() | {"command": command_line()}
                write_json(self.json_file, content, what="--json")
        finally:
            for line in lines:
                echo(line)


def subject_options(command: F) -> F:
    """Add BUNDLE, --random and the options of every command of bench, passed as `subject`."""
    command = gathered(Subject, "subject")(command)
    for option in (
        click.option(
            "--json",
            "json_file",
            type=PATH,
            metavar="FILE",
            help="Also write the report to this file, as JSON.",
        ),
        click.option(
            "--threads",
            type=THREADS,
            metavar="N",
            help="Number of CPU threads of every engine. Default: PyTorch's number for `bench`, "
            "the engine's own choice for its subcommands.",
        ),
        click.option(
            "--random",
            type=click.Choice(MODULES),
            help="Measure a model of the paper's dimensions with random weights instead of a "
            "BUNDLE.",
        ),
        click.argument("bundle", type=BUNDLE_PATH, required=False),
    ):
        command = option(command)
    return command


def engine_options(command: F) -> F:
    """Add the options for the engines' precision, device, weights and plans."""
    for option in (
        ALLOW_UNVERIFIED,
        ENGINE_DIR,
        CHECKPOINTS,
        click.option(
            "--device",
            metavar="NAME",
            help="Device to run on: cpu, cuda or cuda:N. Default: the engine's own device; for "
            "auto, a GPU only if compiled plans were verified on it.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            help="Precision of engines that are given without one. Default: fp32; for GPU engines "
            "fp16, if the bundle has it.",
        ),
    ):
        command = option(command)
    return command


def one_engine(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """The callback of an `--engine` that may be given only once."""
    return (value,)


def _precisions(engines: Iterable[Choice]) -> tuple[Precision, ...]:
    wanted = {choice.precision for choice in engines}
    return tuple(precision for precision in PRECISIONS if precision in wanted)


def command_line() -> str:
    """What was typed, for a report."""
    import shlex
    import sys

    return shlex.join(["sgraf-deploy", *sys.argv[1:]])
