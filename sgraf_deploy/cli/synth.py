"""`sgraf-deploy synth`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import PATH, megabytes
from sgraf_deploy.cli.terminal import echo, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.data.precomp import PrecompSplit

SPLITS = ("train", "dev", "test")

RECORD = "synth.json"
"""What the scenes were made by; a folder without it is never replaced."""

_OURS = {
    RECORD,
    *(f"{name}_{end}" for name in SPLITS for end in ("ims.npy", "caps.txt", "ids.txt")),
}
_EXAMPLES = 3
_COUNT = click.IntRange(min=1)


@click.command(short_help="Write a precomp folder of synthetic scenes, to try things on.")
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="A new folder.")
@click.option(
    "--train", type=_COUNT, metavar="N", default=3000, show_default=True, help="Scenes to train on."
)
@click.option(
    "--dev", type=_COUNT, metavar="N", default=200, show_default=True, help="Scenes to validate on."
)
@click.option(
    "--test", type=_COUNT, metavar="N", default=500, show_default=True, help="Scenes held out."
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="Everything follows from it.",
)
@click.option(
    "--img-dim", type=int, metavar="N", default=64, show_default=True, help="Size of a feature."
)
@click.option(
    "--noise",
    type=float,
    metavar="X",
    default=1.5,
    show_default=True,
    help="Noise, beside codes of norm 1.",
)
@click.option("--force", is_flag=True, help="Replace a folder that synth wrote, in one step.")
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
    """Write synthetic scenes as precomp data: splits train, dev and test.

    A scene is two to four objects with attributes and places, 36 noisy regions and five captions.
    No scene is in two splits, and a split does not depend on the size of the others.
    """
    from sgraf_deploy.data.synthetic.splits import SceneOptions, scene_split, write_split
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.files.folders import Rules, staged_folder
    from sgraf_deploy.files.writer import write_json

    rules = Rules("scenes", InputError, _check_ours)
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


def _check_ours(target: Path) -> None:
    """Raise InputError for a folder that holds anything but what synth wrote."""
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.files.folders import foreign

    names = {path.name for path in target.iterdir()}
    others = sorted(names - _OURS)
    if RECORD not in names or others:
        raise InputError(
            f"{target} exists already and is not replaced",
            expected="a folder of nothing but what synth wrote",
            got=foreign(others) if others else f"no {RECORD}",
            hint="remove it, or choose another -o",
        )


def _row(split: PrecompSplit) -> tuple[str, str, str, str]:
    captions = f"{len(split.captions):,}"
    return split.name, f"{split.images:,}", captions, megabytes(split.regions.nbytes)


def _examples(split: PrecompSplit) -> list[str]:
    """A few scenes in words, each with a caption."""
    lines = []
    for row, name in enumerate((split.ids or [])[:_EXAMPLES]):
        lines += [name, f"    {split.captions[split.captions_per_image * row]}"]
    return lines
