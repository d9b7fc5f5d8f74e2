"""`sgraf-deploy synth`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import PATH, megabytes, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.data.synthesis import SceneOptions

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
def synth(
    *, output: Path, train: int, dev: int, test: int, seed: int, img_dim: int, noise: float
) -> None:
    """Write synthetic scenes as precomp data: splits train, dev and test.

    A scene is two to four objects with attributes and places, 36 noisy regions and five captions.
    No scene is in two splits, and a split does not depend on the size of the others.
    """
    from sgraf_deploy.data.synthesis import SceneOptions, scene_split, write_split

    options = SceneOptions(seed=seed, img_dim=img_dim, noise=noise)
    sizes = {"train": train, "dev": dev, "test": test}
    staged = _stage(output)
    rows = []
    try:
        with progress_bars() as bars:
            progress = bars("writing scenes")
            for done, (name, images) in enumerate(sizes.items()):
                progress(done, len(sizes))
                split = scene_split(options, name, images)
                write_split(staged, split)
                rows.append(_row(split))
            progress(len(sizes), len(sizes))
        staged.chmod(0o755)
        staged.rename(output)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    click.echo(table(rows, ("split", "images", "captions", "features"), ("images", "captions")))
    for line in _examples(options):
        click.echo(line)
    click.echo(f"wrote {output}")
    click.echo(f"next: sgraf-deploy train {output} --module SGR -o sgr.pth.tar --warmup-epochs 1")


def _stage(output: Path) -> Path:
    """A new folder beside the one to be; InputError where that cannot be made or is there."""
    import tempfile

    from sgraf_deploy.errors import InputError

    if output.exists():
        raise InputError(f"{output} exists already", mend="remove it, or choose another -o")
    if not output.parent.is_dir():
        got = f"no folder {output.parent}"
        raise InputError(f"-o {output}", expected="a folder to put it in", got=got)
    return Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))


def _row(split: PrecompSplit) -> tuple[str, str, str, str]:
    captions = f"{len(split.captions):,}"
    return split.name, f"{split.images:,}", captions, megabytes(split.regions.nbytes)


def _examples(options: SceneOptions) -> list[str]:
    """A few scenes of the test split in words, each with a caption."""
    from sgraf_deploy.data.synthesis import scene_split

    split = scene_split(options, "test", _EXAMPLES)
    return [
        f"{split.ids[row] if split.ids else row}\n    {split.captions[5 * row]}"
        for row in range(_EXAMPLES)
    ]
