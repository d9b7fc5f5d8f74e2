"""The splits of a `*_precomp` folder, and descriptions of files that have a wrong name."""

from __future__ import annotations

import difflib
from pathlib import Path

from sgraf_deploy.data import foreign_regions, foreign_text
from sgraf_deploy.data.layout import Dimensions
from sgraf_deploy.errors import DataError
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.formats import Format

IMAGES = "_ims.npy"
CAPTIONS = "_caps.txt"
NAMES = "_ids.txt"
BOXES = "_boxes.npy"
SIZES = "_sizes.npy"

_ALTERNATIVES = {IMAGES: ("_im", "_feat"), CAPTIONS: ("_cap", ".")}
"""How the names of other files with the same purpose go on after the split's name."""

_SYNONYMS = (
    {"dev", "val", "valid", "validation"},
    {"test", "testall", "testing"},
    {"train", "trn", "training"},
)
"""Names that are common for the same split."""


def list_splits(folder: PathLike, ends: tuple[str, ...] = (IMAGES, CAPTIONS)) -> list[str]:
    """The splits that have all of these files in a folder, sorted.

    Raises DataError if the folder cannot be read.
    """
    names = _names(Path(folder), ends)
    splits = (name.removesuffix(ends[0]) for name in names if name.endswith(ends[0]))
    return sorted(split for split in splits if all(f"{split}{end}" in names for end in ends))


def find_split(
    root: Path, split: str, ends: tuple[str, ...], model: Dimensions | None
) -> tuple[Path, ...]:
    """The files of a split; DataError names the missing ones and what there is instead."""
    splits = list_splits(root, ends)
    files = tuple(root / f"{split}{end}" for end in ends)
    if split in splits:
        return files
    missing = [file.name for file in files if not file.exists()]
    got = f"the splits {', '.join(splits)}" if splits else "no split at all"
    others = _others(root, split, ends, model)
    hint = next((kind.hint for _, kind in others if kind.hint), None)
    if others:
        got = f"{' and '.join(f'{path.name}, {kind.name}' for path, kind in others)}; {got}"
    elif likely := _likely(split, splits):
        hint = f"use the split that exists: {likely}"
    raise DataError(
        f"data folder {root} has no split {split!r}",
        expected=" and ".join(missing) or f"a split in {root} itself",
        got=got,
        hint=hint,
    )


def _names(root: Path, ends: tuple[str, ...]) -> set[str]:
    try:
        return {entry.name for entry in root.iterdir()}
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"data folder {root} cannot be read",
            expected=f"a folder with {' and '.join(f'SPLIT{end}' for end in ends)}",
            got=reason,
        ) from error


def _others(
    root: Path, split: str, ends: tuple[str, ...], model: Dimensions | None
) -> list[tuple[Path, Format]]:
    """Files that are probably meant to be the missing ones, each with its format."""
    others = []
    for end in ends:
        target = root / f"{split}{end}"
        if target.exists():
            continue
        used = {f"{name}{end}" for name in list_splits(root, ends)}
        names = sorted(_names(root, ends) - used)
        beginnings = [f"{split}{suffix}".lower() for suffix in _ALTERNATIVES[end]]
        likely = (name for start in beginnings for name in names if name.lower().startswith(start))
        name = next(likely, None)
        if name is not None:
            others.append((root / name, _describe(root / name, target, end, model)))
    return others


def _describe(source: Path, target: Path, end: str, model: Dimensions | None) -> Format:
    if source.is_dir():
        order = ", in the order of the captions" if end == IMAGES else ""
        return Format("a folder", f"write its content to {target.name}{order}")
    try:
        if end == IMAGES:
            return foreign_regions.describe(source, target, model)
        return foreign_text.describe_other(source, target)
    except OSError as error:
        return Format(f"which cannot be read ({error.strerror or type(error).__name__})")


def _likely(split: str, splits: list[str]) -> str | None:
    """The split that was probably meant."""
    wanted = split.lower()
    for names in _SYNONYMS:
        if wanted in names:
            for name in splits:
                if name.lower() in names:
                    return name
    close = difflib.get_close_matches(wanted, [name.lower() for name in splits], 1)
    return next((name for name in splits if name.lower() in close), None)
