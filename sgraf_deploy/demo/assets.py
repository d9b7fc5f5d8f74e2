"""The demo's files: checkpoints and vocabulary from the package, and scenes from a seed.

`make demo-checkpoints` trains the checkpoints again.
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
"""The name that follows from the checkpoints' `data_name`."""

SPLIT = "test"
SCENES = 500
"""The number of held-out scenes, none of which was trained on."""

DATA = "scenes"
BUNDLE = "demo.sgraf"

PACKAGED = Path(__file__).parent / "checkpoints"
"""The folder of the packaged files."""


def demo_split(images: int | None = None) -> PrecompSplit:
    """The first `images` held-out scenes, or all of them, with five captions each."""
    return scene_split(SceneOptions(), SPLIT, images or SCENES)


def export_demo(target: Path) -> Exported:
    """Export the packaged checkpoints to a bundle, through the gate."""
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    options = ExportOptions(vocabulary=PACKAGED / VOCABULARY)
    return export_bundle([PACKAGED / name for name in CHECKPOINTS], target, options)


def lay_out(folder: Path) -> None:
    """Write checkpoints, vocabulary and held-out scenes into a folder.

    The folder of an earlier demo is overwritten. Raises InputError for any other existing folder,
    and for one that has other content under a name that the demo uses.
    """
    split = demo_split()
    contents = {name: (PACKAGED / name).read_bytes() for name in (*CHECKPOINTS, VOCABULARY)}
    contents |= {f"{DATA}/{name}": text.encode() for name, text in texts_of(split).items()}
    if os.path.lexists(folder):
        _check_overwritable(folder, contents)
    with os_errors(f"demo {folder}", InputError):
        (folder / DATA).mkdir(parents=True, exist_ok=True)
    for name in (*CHECKPOINTS, VOCABULARY):
        write_file(folder / name, contents[name], what="demo")
    write_split(folder / DATA, split)


def _check_overwritable(folder: Path, contents: dict[str, bytes]) -> None:
    """Raise InputError unless the files of the demo's names in a folder are those of the demo."""
    hint = "choose another folder with -o, or remove it"
    existing = {name for name in contents if os.path.lexists(folder / name)}
    if not existing.intersection((*CHECKPOINTS, VOCABULARY)):
        raise InputError(f"{folder} exists and is not the folder of a demo", hint=hint)
    others = [
        name
        for name, content in contents.items()
        if name in existing and _read(folder / name) != content
    ]
    texts = [name for name in contents if name.startswith(f"{DATA}/")]
    regions = f"{DATA}/{SPLIT}_ims.npy"
    # Another version of NumPy may round regions differently: they are the demo's if the texts are.
    if os.path.lexists(folder / regions) and not set(texts) <= existing - set(others):
        others.append(regions)
    if not _is_demo_bundle(folder / BUNDLE):
        others.append(BUNDLE)
    if others:
        raise InputError(
            f"{folder} is not overwritten",
            expected="only files that the demo wrote",
            got=foreign(others),
            hint=hint,
        )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _is_demo_bundle(bundle: Path) -> bool:
    """Whether a bundle was made of the packaged checkpoints, or does not exist."""
    if not os.path.lexists(bundle):
        return True
    try:
        members = Bundle.open(bundle).manifest.members
    except BundleError:
        return False
    packaged = {sha256((PACKAGED / name).read_bytes()).hexdigest() for name in CHECKPOINTS}
    return {member.checkpoint.sha256 for member in members.values()} <= packaged
