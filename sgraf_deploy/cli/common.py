"""Options and output that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sgraf_deploy.config import PRECISIONS, Precision

if TYPE_CHECKING:
    from sgraf_deploy.runtime.halving import Progress
    from sgraf_deploy.runtime.scorer import Scorer

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
BUNDLE = click.argument("bundle", type=PATH)


def scorer_options(command: F) -> F:
    """The options that say what a scorer runs on."""
    for option in (
        click.option(
            "--checkpoint",
            "checkpoints",
            type=PATH,
            multiple=True,
            metavar="FILE",
            help="Original weights, for a bundle exported with --no-reference; repeatable.",
        ),
        click.option("--device", help="cpu, cuda or cuda:N, for the torch engines."),
        click.option("--threads", type=click.IntRange(min=1), help="CPU threads."),
        click.option(
            "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True
        ),
        click.option(
            "--engine",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="ort, torch or torch-reference; auto takes the fastest that works here.",
        ),
    ):
        command = option(command)
    return command


def data_options(command: F) -> F:
    """The options that name a split of a precomp folder."""
    for option in (
        click.option("--limit-images", type=int, metavar="K", help="Only the first K images."),
        click.option("--split", required=True, metavar="NAME", help="dev, test, testall, …"),
        click.option(
            "--data",
            type=PATH,
            required=True,
            metavar="DIR",
            help="Folder with SPLIT_ims.npy and SPLIT_caps.txt.",
        ),
    ):
        command = option(command)
    return command


def load_scorer(
    bundle: Path,
    engine: str,
    precision: Precision,
    threads: int | None,
    device: str | None,
    checkpoints: Sequence[Path],
) -> Scorer:
    """Load a bundle as the shared options say."""
    from sgraf_deploy.runtime.engine import EngineOptions
    from sgraf_deploy.runtime.scorer import load

    options = EngineOptions(threads=threads, device=device, checkpoints=tuple(checkpoints))
    return load(bundle, engine=engine, precision=precision, options=options)


def describe_scorer(scorer: Scorer) -> str:
    """One line: what runs where."""
    name = scorer.bundle.path.name
    members = " + ".join(scorer.members)
    engine = f"engine {scorer.engine_name}, {scorer.executed} on {scorer.device}"
    return f"{name} ({scorer.bundle.manifest.module}: {members}), {engine}"


@contextmanager
def progress_bars() -> Iterator[Callable[[str], Progress]]:
    """Give a function from a stage's name to its progress callback.

    Bars with a time estimate go to stderr, and only where that is a terminal.
    """
    bars: list[Any] = []
    stream = click.get_text_stream("stderr")

    def stage(label: str) -> Progress:
        _finish(bars)
        state: dict[str, Any] = {}

        def update(done: int, total: int) -> None:
            if not state:
                bar = click.progressbar(
                    length=total,
                    label=f"{label:<18}",
                    file=stream,
                    show_eta=True,
                    hidden=not stream.isatty(),
                )
                bars.append(bar)
                state["bar"] = bar.__enter__()
            state["bar"].update(done - state["bar"].pos)

        return update

    try:
        yield stage
    finally:
        _finish(bars)


def _finish(bars: list[Any]) -> None:
    while bars:
        bars.pop().__exit__(None, None, None)


def warn(message: str) -> None:
    """A line on stderr."""
    click.echo(f"Warning: {message}", err=True)


def megabytes(size: int) -> str:
    """A size for people, in MB of 10⁶ bytes."""
    return f"{size / 1e6:,.1f} MB"


def table(rows: Sequence[Sequence[Any]], headers: Sequence[str], **options: Any) -> str:
    """A plain text table; numbers are shown as they are given."""
    from tabulate import tabulate

    return tabulate(rows, headers=headers, disable_numparse=True, **options)
