"""Reads a bundle member's original weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.checkpoint import read_checkpoint, read_reference

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle


def member_weights(
    bundle: Bundle, member: str, checkpoints: Sequence[Path]
) -> dict[str, NDArray[Any]]:
    """A member's original weights: from `checkpoints` if any are given, else from `reference/`.

    Raises CheckpointError if no given file is the one that the member was exported from, and
    BundleError if the bundle was exported without its reference and no file is given.
    """
    entry = bundle.manifest.members[member]
    if not checkpoints:
        return read_reference(bundle.reference_path(member), entry.config)
    found = []
    for path in checkpoints:
        checkpoint = read_checkpoint(path)
        if checkpoint.sha256 == entry.checkpoint.sha256:
            return checkpoint.weights
        found.append(f"{path} ({checkpoint.sha256[:12]}…)")
    raise CheckpointError(
        f"no given checkpoint is the one that member {member} was exported from",
        expected=f"{entry.checkpoint.file} ({entry.checkpoint.sha256[:12]}…)",
        got=", ".join(found),
        hint="pass that file to --checkpoint",
    )
