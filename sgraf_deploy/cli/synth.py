"""`sgraf-deploy synth`: writes a folder of synthetic precomp data."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sgraf_deploy.cli.common import PATH, megabytes
from sgraf_deploy.cli.terminal import echo, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.data.precomp import PrecompSplit

F = TypeVar("F", bound=Callable[..., Any])

SPLITS = ("train", "dev", "test")

RECORD = "synth.json"
"""The file with the options that the scenes were made with; a folder without it is not replaced."""

_WRITTEN_FILES = {
    RECORD,
    *(f"{name}_{end}" for name in SPLITS for end in ("ims.npy", "caps.txt", "ids.txt")),
}
_EXAMPLES = 3
_COUNT = click.IntRange(min=1)


def _scenes(name: str, default: int, split: str) -> Callable[[F], F]:
    text = f"Number of scenes in the {split} split."
    return click.option(
        name, type=_COUNT, metavar="N", default=default, show_default=True, help=text
    )


@click.command(short_help="Write a precomp folder of synthetic scenes to try the program with.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    metavar="DIR",
    help="Folder to write; it may exist only with --force.",
)
@_scenes("--train", 3000, "training")
@_scenes("--dev", 200, "validation")
@_scenes("--test", 500, "test")
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="Random seed; the same options and seed give the same data.",
)
@click.option(
    "--img-dim",
    type=int,
    metavar="N",
    default=64,
    show_default=True,
    help="Number of features of a region.",
)
@click.option(
    "--noise",
    type=float,
    metavar="X",
    default=1.5,
    show_default=True,
    help="Expected norm of the Gaussian noise on a region's features, where the code of an "
    "attribute has norm 1.",
)
@click.option("--force", is_flag=True, help="Replace an existing folder that synth wrote.")
def synth(
    *,
    output: Path,
    train: int,
    dev: int,
    test: int,
    seed: int,
    img_dim: int,
    noise: float,
    force: bool,
) -> None:
    """Write synthetic scenes as precomp data, in the splits train, dev and test.

    A scene has two to four objects with attributes and places, 36 noisy regions and five captions.
    No scene is in two splits, and a split does not depend on the sizes of the others.
    """
    from sgraf_deploy.data.synthetic.splits import SceneOptions, scene_split, write_split
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.files.folders import Rules, staged_folder
    from sgraf_deploy.files.writer import write_json

    rules = Rules("scenes", InputError, _check_replaceable)
    options = SceneOptions(seed=seed, img_dim=img_dim, noise=noise)
    sizes = dict(zip(SPLITS, (train, dev, test), strict=True))
    made_by = {"seed": seed, "img_dim": img_dim, "noise": noise, "images": sizes}
    rows, examples = [], []
    with staged_folder(output, rules, force=force) as folder, progress_bars() as bars:
        progress = bars("writing scenes")
        for done, (name, images) in enumerate(sizes.items()):
            progress(done, len(sizes))
            split = scene_split(options, name, images)
            write_split(folder, split)
            rows.append(_row(split))
            examples = _examples(split)
        write_json(folder / RECORD, made_by)
        progress(len(sizes), len(sizes))
    headers = ("split", "images", "captions", "features")
    for line in (*table(rows, headers, headers[1:3]), *examples):
        echo(line)
    echo(f"wrote {output}")
    command = ["sgraf-deploy", "train", str(output), "--module", "SGR", "-o", "sgr.pth.tar"]
    echo(f"next: {shlex.join([*command, '--warmup-epochs', '1'])}")


def _check_replaceable(target: Path) -> None:
    """Raise InputError for a folder that contains anything but the files that synth writes."""
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.files.folders import foreign

    names = {path.name for path in target.iterdir()}
    extra_files = sorted(names - _WRITTEN_FILES)
    if RECORD not in names or extra_files:
        raise InputError(
            f"{target} exists already and is not replaced",
            expected="a folder with only the files that synth writes",
            got=foreign(extra_files) if extra_files else f"no {RECORD}",
            hint="remove it, or choose another folder with -o",
        )


def _row(split: PrecompSplit) -> tuple[str, str, str, str]:
    captions = f"{len(split.captions):,}"
    return split.name, f"{split.images:,}", captions, megabytes(split.regions.nbytes)


def _examples(split: PrecompSplit) -> list[str]:
    """The names of the first scenes, each followed by a caption."""
    lines = []
    for row, name in enumerate((split.ids or [])[:_EXAMPLES]):
        lines += [name, f"    {split.captions[split.captions_per_image * row]}"]
    return lines
