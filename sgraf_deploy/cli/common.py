"""Options and output that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

import click

from sgraf_deploy.cli.option_types import THREADS, byte_count
from sgraf_deploy.cli.terminal import echo, progress_bars, streams, warn
from sgraf_deploy.config import CAPTIONS_PER_IMAGE, PRECISIONS, Precision
from sgraf_deploy.data.bound import MAX_WORDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.captions import CaptionStats
    from sgraf_deploy.data.findings import Finding
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.runtime.scorer import Scorer

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class _BundlePath(click.Path):
    """A bundle's folder; or an address on the Hub, which is fetched and becomes a commit's."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        """The folder's path, or the address with the commit that its revision names now."""
        from sgraf_deploy.bundle.hub import fetch, is_address

        if not is_address(value):
            return Path(os.fsdecode(super().convert(value, param, ctx)))
        with progress_bars() as bars:
            found = fetch(os.fspath(value), stage=bars)
        if found.address != value:
            echo(f"{value} is {found.address}", err=True)
        return found.address


BUNDLE_PATH = _BundlePath()
BUNDLE = click.argument("bundle", type=BUNDLE_PATH)
CHECKPOINTS = click.option(
    "--checkpoint",
    "checkpoints",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Checkpoint with the original weights, needed for a bundle exported with --no-reference. "
    "Repeat it for each member.",
)
ENGINE_DIR = click.option(
    "--engine-dir",
    type=PATH,
    metavar="DIR",
    help="Folder with the compiled TensorRT plans. Default: engines/ inside the bundle.",
)
ALLOW_UNVERIFIED = click.option(
    "--allow-unverified",
    is_flag=True,
    help="Also open TensorRT plans that were not yet compared with the reference on this GPU. "
    "They are compared before they are used, but loading one means trusting whoever built it.",
)


def gathered(kind: type[Any], name: str) -> Callable[[F], F]:
    """A decorator that passes the options which a dataclass names as one argument of that class."""
    names = {field.name for field in fields(kind)}

    def decorate(command: F) -> F:
        @wraps(command)
        def call(**options: Any) -> Any:
            gathered_options = {key: options.pop(key) for key in names & options.keys()}
            return command(**options, **{name: kind(**gathered_options)})

        return call  # type: ignore[return-value]

    return decorate


def _caption_words(_: click.Context, option: click.Parameter, value: int) -> int | None:
    """The limit that was asked for; None for 0, which means no limit."""
    from sgraf_deploy.data.bound import LEAST_WORDS
    from sgraf_deploy.errors import InputError

    if value == 0:
        return None
    if value < LEAST_WORDS:
        expected = f"at least {LEAST_WORDS}, or 0 for no limit"
        raise InputError(option.opts[0], expected=expected, got=value)
    return value


CAPTION_WORDS = click.option(
    "--max-caption-words",
    type=int,
    default=MAX_WORDS,
    show_default=True,
    metavar="N",
    callback=_caption_words,
    help="Refuse captions of more than N words, counting <start> and <end>; 0 means no limit.",
)


def scorer_options(command: F) -> F:
    """Add the options for a scorer's engine, precision and device, and its captions' length."""
    for option in (
        CAPTION_WORDS,
        CHECKPOINTS,
        ALLOW_UNVERIFIED,
        ENGINE_DIR,
        click.option(
            "--device",
            metavar="NAME",
            help="Device to run on: cpu, cuda or cuda:N. Default: the engine's own device; with "
            "--engine auto, a GPU only if compiled plans were verified on it.",
        ),
        click.option(
            "--threads",
            type=THREADS,
            metavar="N",
            help="Number of CPU threads. Default: the engine's own choice.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            help="Precision of the graphs to run. Default: fp32; for GPU engines fp16, if the "
            "bundle has it.",
        ),
        click.option(
            "--engine",
            default="auto",
            show_default=True,
            metavar="NAME[:PRECISION]",
            help="Engine that runs the model; `sgraf-deploy doctor` lists them, and auto takes the "
            "fastest that works here.",
        ),
    ):
        command = option(command)
    return command


NO_PRUNE = click.option(
    "--no-prune",
    is_flag=True,
    help="Have every member of an ensemble score every pair, also where it cannot change the "
    "result; only engine native leaves members out.",
)


CAPTION_COUNT = click.option(
    "--captions-per-image",
    type=click.IntRange(min=1),
    default=CAPTIONS_PER_IMAGE,
    show_default=True,
    metavar="N",
    help="Number of captions of each image in the data, which follow one another.",
)


LIMIT_IMAGES = click.option(
    "--limit-images",
    type=int,
    metavar="K",
    help="Use only the split's first K images and their captions. Default: all of them.",
)


def split_options(*, required: bool) -> Callable[[F], F]:
    """A decorator that adds the options which name a split of a precomp folder.

    --data and --split may be left out where they are not `required`.
    """
    options = (
        CAPTION_COUNT,
        LIMIT_IMAGES,
        click.option(
            "--split",
            required=required,
            metavar="NAME",
            help="Name of the split, such as dev, test or testall.",
        ),
        click.option(
            "--data",
            type=PATH,
            required=required,
            metavar="DIR",
            help="Folder of precomp data, with SPLIT_ims.npy and SPLIT_caps.txt.",
        ),
    )

    def decorate(command: F) -> F:
        for option in options:
            command = option(command)
        return command

    return decorate


data_options = split_options(required=True)


def image_row(split: PrecompSplit, name: str, option: str) -> int:
    """The row of an image; a name goes before a number that is also one."""
    from sgraf_deploy.errors import InputError

    named = [] if split.ids is None else [row for row, id_ in enumerate(split.ids) if id_ == name]
    if len(named) > 1:
        got = f"{name}, which {len(named)} of them have: rows {named[0]}, {named[1]}, …"
        raise InputError(option, expected="a name that one image has, or a row", got=got)
    if named:
        return named[0]
    if re.fullmatch("[0-9]{1,18}", name) and int(name) < split.images:
        return int(name)
    names = "a name in its ids, or " if split.ids else ""
    expected = f"{names}a row from 0 to {split.images - 1}"
    raise InputError(option, expected=expected, got=name)


HTML = click.option(
    "--html",
    type=PATH,
    metavar="FILE",
    help="Also write the report to this file, as one HTML page without scripts.",
)
DATASET = click.option(
    "--dataset",
    type=click.Choice(["f30k", "coco"]),
    help="Say that the data are Flickr30K's or MSCOCO's test split. With --html the paper's own "
    "figures then stand beside.",
)


def check_dataset(dataset: str | None, html: Path | None) -> None:
    """Raise InputError for --dataset without the page that it is for."""
    from sgraf_deploy.errors import InputError

    if dataset is not None and html is None:
        raise InputError("--dataset", expected="--html FILE together with it", got="none")


def dimensions(bundle: Bundle) -> tuple[int, int]:
    """The regions per image, and their img_dim, that a bundle's models take."""
    return bundle.manifest.regions, bundle.manifest.img_dim


def load_scorer(
    bundle: Bundle | Path | str,
    *,
    engine: str,
    precision: Precision | None,
    threads: int | None,
    device: str | None,
    checkpoints: Sequence[Path],
    engine_dir: Path | None,
    allow_unverified: bool,
    max_caption_words: int | None,
    no_prune: bool = False,
) -> Scorer:
    """Load a bundle with the options that `scorer_options`, and perhaps `NO_PRUNE`, add."""
    from sgraf_deploy.engines.base import EngineOptions
    from sgraf_deploy.runtime.scorer import load

    options = EngineOptions(threads, device, tuple(checkpoints), engine_dir, allow_unverified)
    return load(
        bundle,
        engine,
        precision,
        options=options,
        max_words=max_caption_words,
        prune=not no_prune,
    )


def describe_scorer(scorer: Scorer) -> str:
    """One line with the bundle, its members, the engine, the precision and the device."""
    name = scorer.bundle.path.name
    members = " + ".join(scorer.members)
    engine = f"engine {scorer.engine_name}, {scorer.executed} on {scorer.device}"
    return f"{name} ({scorer.bundle.manifest.module}: {members}), {engine}"


def _resident(
    context: click.Context, option: click.Parameter, value: str | None
) -> int | Literal["all"]:
    """The bytes that were asked for, or `all`; 0 for none."""
    return "all" if value == "all" else byte_count(context, option, value) or 0


RESIDENT = click.option(
    "--resident",
    metavar="BYTES",
    callback=_resident,
    help="Bytes of a gallery's images, such as 8GB, that stay on the engine's device: those that "
    "were used last; or all. Default: none, as the system keeps in memory what is read often.",
)


def check_result_file(path: Path | None, option: str) -> None:
    """Raise InputError for a result file that could not be written, before the work begins."""
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.files.writer import check_file

    if path is None:
        return
    if os.fspath(path) == "-":
        hint = "choose a file name; what is printed goes to standard output anyway"
        raise InputError(option, expected="a file", got="-", hint=hint)
    target, _ = check_file(path, what=option)
    for stream in streams():
        if _goes_to(stream, target):
            raise InputError(
                f"{option} {path}",
                expected="a file that nothing else is written to",
                got="the file that this command's output is redirected to",
                hint="choose another file name",
            )


def check_result_files(files: Mapping[str, Path | None]) -> None:
    """The same for each of several, by their options; also if two of them are one file."""
    from sgraf_deploy.errors import InputError

    taken: dict[str, str] = {}
    for option, path in files.items():
        check_result_file(path, option)
        other = option if path is None else taken.setdefault(os.path.realpath(path), option)
        if other != option:
            raise InputError(f"{other} and {option}", expected="two different files", got=path)


def _goes_to(stream: TextIO, path: Path) -> bool:
    """Whether an output stream is redirected to this file: replacing it would lose the output."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except (OSError, ValueError):  # the file does not exist, or the stream has no file
        return False


def show_finding(finding: Finding) -> None:
    """Print a warning to standard error, or a note to standard output."""
    if finding.is_warning:
        warn(finding.message)
    else:
        echo(f"note: {finding.message}")


def check_regions_fit(bundle: Bundle, regions: NDArray[Any], name: str) -> None:
    """Raise DataError for regions that do not fit the bundle, and warn of suspicious ones."""
    from sgraf_deploy.data.checks import region_findings
    from sgraf_deploy.data.regions import check_regions

    survey = check_regions(regions, *dimensions(bundle), name)
    for finding in region_findings(survey, bundle.manifest.region_statistics):
        show_finding(finding)


def encoded_texts(
    scorer: Scorer, captions: list[str]
) -> tuple[list[NDArray[np.int32]], CaptionStats]:
    """Captions as token ids, with a warning for whatever is suspicious about them."""
    from sgraf_deploy.data.checks import check_captions
    from sgraf_deploy.data.vocabulary import Vocabulary
    from sgraf_deploy.runtime.tokens import bundle_tokenizer

    vocabulary = Vocabulary.load(scorer.bundle.vocabulary_path())
    tokenizer = bundle_tokenizer(scorer.bundle, vocabulary, scorer.max_words)
    token_ids, words, findings = check_captions(captions, tokenizer, vocabulary)
    for finding in findings:
        show_finding(finding)
    return token_ids, words


def megabytes(size: int) -> str:
    """A size in bytes as text: in MB of 10⁶ bytes, or in kB if it is below 1 MB."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def count(number: int, noun: str) -> str:
    """A number with its noun, `1 image` or `1,000 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
