"""Options and output that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from sgraf_deploy.cli.terminal import echo, streams, warn
from sgraf_deploy.config import CAPTIONS_PER_IMAGE, PRECISIONS, Precision
from sgraf_deploy.data.bound import MAX_WORDS

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.findings import Finding
    from sgraf_deploy.runtime.scorer import Scorer

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
BUNDLE = click.argument("bundle", type=PATH)
CHECKPOINTS = click.option(
    "--checkpoint",
    "checkpoints",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Original weights, for a bundle exported with --no-reference; repeatable.",
)
ENGINE_DIR = click.option(
    "--engine-dir",
    type=PATH,
    metavar="DIR",
    help="Folder of compiled TensorRT plans. By default engines/ inside the bundle.",
)
ALLOW_UNVERIFIED = click.option(
    "--allow-unverified",
    is_flag=True,
    help="Open TensorRT plans that you never compared with the reference on this GPU, trusting "
    "whoever built them. They are compared before they are used.",
)


def _caption_words(_: click.Context, option: click.Parameter, value: int) -> int | None:
    """The bound that was asked for, None where 0 lifts it."""
    from sgraf_deploy.data.bound import LEAST_WORDS
    from sgraf_deploy.errors import InputError

    if value == 0:
        return None
    if value < LEAST_WORDS:
        expected = f"at least {LEAST_WORDS}, or 0 for any number"
        raise InputError(option.opts[0], expected=expected, got=value)
    return value


CAPTION_WORDS = click.option(
    "--max-caption-words",
    type=int,
    default=MAX_WORDS,
    show_default=True,
    metavar="N",
    callback=_caption_words,
    help="Refuse captions of more words, <start> and <end> included; 0 lifts the bound.",
)


def scorer_options(command: F) -> F:
    """The options that say what a scorer runs on, and how long its captions may be."""
    for option in (
        CAPTION_WORDS,
        CHECKPOINTS,
        ALLOW_UNVERIFIED,
        ENGINE_DIR,
        click.option(
            "--device",
            metavar="NAME",
            help="cpu, cuda or cuda:N; if absent the engine's own, for auto a GPU only if compiled "
            "engines were verified on it.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="N",
            help="CPU threads; the engine's own choice if absent.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            help="Which graphs to run; if absent fp32, for GPU engines fp16, if the bundle has it.",
        ),
        click.option(
            "--engine",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="One of those that doctor lists; auto takes the fastest that works here.",
        ),
    ):
        command = option(command)
    return command


CAPTION_COUNT = click.option(
    "--captions-per-image",
    type=click.IntRange(min=1),
    default=CAPTIONS_PER_IMAGE,
    show_default=True,
    metavar="N",
    help="Captions of each image in the data, one after the other.",
)


def data_options(command: F) -> F:
    """The options that name a split of a precomp folder."""
    for option in (
        CAPTION_COUNT,
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


def dimensions(bundle: Bundle) -> tuple[int, int]:
    """The regions of an image, and the img_dim, that a bundle's models take."""
    return bundle.manifest.regions, bundle.manifest.img_dim


def load_scorer(
    bundle: Bundle | Path,
    *,
    engine: str,
    precision: Precision | None,
    threads: int | None,
    device: str | None,
    checkpoints: Sequence[Path],
    engine_dir: Path | None,
    allow_unverified: bool,
    max_caption_words: int | None,
) -> Scorer:
    """Load a bundle as the shared options say."""
    from sgraf_deploy.engines.base import EngineOptions
    from sgraf_deploy.runtime.scorer import load

    options = EngineOptions(threads, device, tuple(checkpoints), engine_dir, allow_unverified)
    return load(bundle, engine, precision, options=options, max_words=max_caption_words)


def describe_scorer(scorer: Scorer) -> str:
    """One line: what runs where."""
    name = scorer.bundle.path.name
    members = " + ".join(scorer.members)
    engine = f"engine {scorer.engine_name}, {scorer.executed} on {scorer.device}"
    return f"{name} ({scorer.bundle.manifest.module}: {members}), {engine}"


def check_result_file(path: Path | None, option: str) -> None:
    """Refuse a file that could not be written, before the work that it is to hold the result of."""
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.files.writer import check_file

    if path is None:
        return
    target, _ = check_file(path, what=option)
    for stream in streams():
        if _goes_to(stream, target):
            raise InputError(
                f"{option} {path}",
                expected="a file of its own",
                got="the one that this command's output goes to",
                hint="choose another name",
            )


def _goes_to(stream: TextIO, path: Path) -> bool:
    """Whether an output stream is redirected to a file: replacing that would lose the output."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except (OSError, ValueError):  # there is no such file yet, or no file behind the stream
        return False


def show_finding(finding: Finding) -> None:
    """A warning on stderr, a note on stdout."""
    if finding.is_warning:
        warn(finding.message)
    else:
        echo(f"note: {finding.message}")


def megabytes(size: int) -> str:
    """A size for people, in MB of 10⁶ bytes; in kB below one of them."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def count(number: int, one: str) -> str:
    """A number with its noun, `1 image` or `1,000 images`."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"
