"""What the demo is made of: checkpoints and vocabulary from the package, scenes from a seed.

`make demo-checkpoints` trains the checkpoints anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.synthesis import SceneOptions, scene_split, write_split
from sgraf_deploy.errors import InputError

if TYPE_CHECKING:
    from sgraf_deploy.export.exporter import Exported

CHECKPOINTS = ("sgr.pth.tar", "saf.pth.tar")
VOCABULARY = "scenes_vocab.json"
"""As the checkpoints' `data_name` says."""

SPLIT = "test"
SCENES = 500
"""Held out: none of them was trained on."""

DATA = "scenes"
BUNDLE = "demo.sgraf"

PACKAGED = Path(__file__).parent / "checkpoints"
"""The files of the package."""


def demo_split(images: int | None = None) -> PrecompSplit:
    """The held-out scenes, or the first of them, with five captions each."""
    return scene_split(SceneOptions(), SPLIT, images or SCENES)


def export_demo(target: Path) -> Exported:
    """Export the packaged checkpoints to a bundle, through the gate."""
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    options = ExportOptions(vocabulary=PACKAGED / VOCABULARY)
    return export_bundle([PACKAGED / name for name in CHECKPOINTS], target, options)


def lay_out(folder: Path) -> None:
    """Put checkpoints, vocabulary and held-out scenes into a folder of their own.

    One that holds an earlier demo is written over; raises InputError for any other that exists.
    """
    ours = (*CHECKPOINTS, VOCABULARY)
    if folder.exists() and not all((folder / name).is_file() for name in ours):
        mend = "choose another -o, or remove it"
        raise InputError(f"{folder} exists and holds no demo", mend=mend)
    (folder / DATA).mkdir(parents=True, exist_ok=True)
    for name in ours:
        shutil.copyfile(PACKAGED / name, folder / name)
    write_split(folder / DATA, demo_split())
