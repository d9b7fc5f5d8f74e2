"""The model card in a bundle's folder: `README.md`, which is no part of the bundle's identity.

The manifest does not name it, so that it may be edited. Its last line holds the sha256 of the lines
above: a card that is as it was written may be replaced, and one that was edited is the user's.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from sgraf_deploy.errors import BundleError
from sgraf_deploy.files.writer import write_file

CARD = "README.md"
"""The name under which the Hub shows a file as the page of a repository."""

_SEAL = re.compile(rb"<!-- sgraf-deploy card, sha256 ([0-9a-f]{64}) -->\n")


def is_unedited(path: Path) -> bool:
    """Whether the file at a path is a card as `write_card` wrote it; raises OSError."""
    *lines, last = path.read_bytes().splitlines(keepends=True) or [b""]
    seal = _SEAL.fullmatch(last)
    return seal is not None and sha256(b"".join(lines)).hexdigest() == seal[1].decode()


def write_card(folder: Path, text: str, *, force: bool = False) -> Path:
    """Write a card into a bundle's folder; returns its path.

    Raises BundleError if it cannot be written, and for a card that was edited unless `force`.
    """
    path = folder / CARD
    try:
        edited = path.exists() and not is_unedited(path)
    except OSError as error:
        raise BundleError(f"model card {path} cannot be read", got=error.strerror) from error
    if edited and not force:
        raise BundleError(
            f"model card {path}",
            expected="none, or one that nobody edited",
            got="another text",
            hint="move it away, or lose what it says with --force",
        )
    text = text if text.endswith("\n") else f"{text}\n"
    seal = f"<!-- sgraf-deploy card, sha256 {sha256(text.encode()).hexdigest()} -->\n"
    write_file(path, text + seal, what="model card", error=BundleError)
    return path
