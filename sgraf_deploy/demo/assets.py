"""What the demo is made of: checkpoints and vocabulary from the package, scenes from a seed.

`make demo-checkpoints` trains the checkpoints anew.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.synthetic.splits import SceneOptions, scene_split, texts_of, write_split
from sgraf_deploy.errors import BundleError, InputError
from sgraf_deploy.files.disk import os_errors
from sgraf_deploy.files.folders import foreign
from sgraf_deploy.files.writer import write_file

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

    One that holds an earlier demo is written over. Raises InputError for any other that exists, and
    for one that has something else under a name of the demo's.
    """
    split = demo_split()
    contents = {name: (PACKAGED / name).read_bytes() for name in (*CHECKPOINTS, VOCABULARY)}
    contents |= {f"{DATA}/{name}": text.encode() for name, text in texts_of(split).items()}
    if os.path.lexists(folder):
        _check_ours(folder, contents)
    with os_errors(f"demo {folder}", InputError):
        (folder / DATA).mkdir(parents=True, exist_ok=True)
    for name in (*CHECKPOINTS, VOCABULARY):
        write_file(folder / name, contents[name], what="demo")
    write_split(folder / DATA, split)


def _check_ours(folder: Path, contents: dict[str, bytes]) -> None:
    """Raise InputError unless what an existing folder has under the demo's names is the demo's."""
    hint = "choose another -o, or remove it"
    there = {name for name in contents if os.path.lexists(folder / name)}
    if not there.intersection((*CHECKPOINTS, VOCABULARY)):
        raise InputError(f"{folder} exists and holds no demo", hint=hint)
    others = [name for name in contents if name in there and _read(folder / name) != contents[name]]
    texts = [name for name in contents if name.startswith(f"{DATA}/")]
    regions = f"{DATA}/{SPLIT}_ims.npy"
    # Another NumPy may round regions otherwise: they are the demo's if their texts are.
    if os.path.lexists(folder / regions) and not set(texts) <= there - set(others):
        others.append(regions)
    if not _is_ours(folder / BUNDLE):
        others.append(BUNDLE)
    if others:
        raise InputError(
            f"{folder} is not written over",
            expected="the demo's own files",
            got=foreign(others),
            hint=hint,
        )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _is_ours(bundle: Path) -> bool:
    """Whether a bundle was made of the packaged checkpoints, or there is none."""
    if not os.path.lexists(bundle):
        return True
    try:
        members = Bundle.open(bundle).manifest.members
    except BundleError:
        return False
    packaged = {sha256((PACKAGED / name).read_bytes()).hexdigest() for name in CHECKPOINTS}
    return {member.checkpoint.sha256 for member in members.values()} <= packaged
