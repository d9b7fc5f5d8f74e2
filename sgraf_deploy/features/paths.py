"""The photographs that paths name, with their ids: files, and what lies in folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.data.files import read_lines
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.disk import PathLike

SUFFIXES = frozenset(
    {
        *("avif", "bmp", "gif", "heic", "heif", "jfif", "jpe"),
        *("jpeg", "jpg", "png", "tif", "tiff", "webp"),
    }
)
"""The ends of names, in any case, by which photographs are told from other files of a folder."""

_SHOWN = 3
_LISTED = "the names of the photographs"


def looks_like_photo(given: object) -> bool:
    """Whether this may be a photograph: bytes, a path, or a text that ends as one's name does."""
    if isinstance(given, str):
        return os.path.splitext(given)[1][1:].lower() in SUFFIXES
    return isinstance(given, bytes | os.PathLike)


@dataclass(frozen=True)
class Photo:
    """A photograph: the id under which its regions are kept, and its file."""

    id: str
    path: Path


@dataclass(frozen=True)
class Found:
    """Photographs in their order; `left_out` other files lay in the folders, by their suffixes."""

    photos: tuple[Photo, ...]
    left_out: int


def find_photos(paths: Sequence[PathLike], ids: PathLike | None = None) -> Found:
    """Find photographs: files, and those in folders and in the folders below them.

    The id of a file is its name, and that of a file in a folder its path below this folder, with
    `/`. Paths come in the order given; what lies in a folder is sorted by id. Hidden files and
    folders are not looked at. A file that is named is taken whatever its suffix, so that one which
    is no photograph becomes an error of its own. `ids` is a file with one id a line: only these
    photographs are taken, in this order.

    Raises:
        DataError: a path that does not exist or cannot be read, no photograph at all, two of the
            same id, an id that cannot be a line of a text file, or one of `ids` that is not there.

    Example:
        >>> found = find_photos(["photos"])
        >>> [photo.id for photo in found.photos]
        ['cat.jpg', 'trip/sea.png']
    """
    photos: list[Photo] = []
    left_out = 0
    for given in paths:
        path = Path(given)
        if not path.is_dir():
            photos.append(Photo(path.name, _existing(path)))
            continue
        inside = list(_below(path))
        fit = [file for file in inside if file.suffix[1:].lower() in SUFFIXES]
        left_out += len(inside) - len(fit)
        photos += sorted(
            (Photo(file.relative_to(path).as_posix(), file) for file in fit),
            key=lambda photo: photo.id,
        )
    if not photos:
        shown = ", ".join(str(Path(given)) for given in paths[:_SHOWN]) + ", …" * (
            len(paths) > _SHOWN
        )
        got = f"{left_out:,} other files" if left_out else "nothing"
        expected = "files, or folders with files of " + ", ".join(sorted(SUFFIXES))
        raise DataError(f"no photograph in {shown}", expected=expected, got=got)
    _check_ids(photos)
    return Found(_chosen(photos, ids) if ids is not None else tuple(photos), left_out)


def _existing(path: Path) -> Path:
    try:
        path.stat()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"photograph {path}", expected="a file or a folder", got=reason) from error
    return path


def _below(root: Path) -> Iterator[Path]:
    """The files below a folder, hidden ones aside; a folder that links lead to again once only."""

    def fail(error: OSError) -> None:
        reason = error.strerror or type(error).__name__
        raise DataError(f"folder {error.filename} cannot be read", got=reason) from error

    seen: set[str] = set()
    for parent, folders, files in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _check_ids(photos: Sequence[Photo]) -> None:
    """Raise DataError for ids that are not unique, or that `{split}_ids.txt` cannot hold."""
    counts = Counter(photo.id for photo in photos)
    twice = [id_ for id_, number in counts.items() if number > 1]
    if twice:
        first, second = [photo.path for photo in photos if photo.id == twice[0]][:2]
        raise DataError(
            f"two photographs have the id {twice[0]}",
            expected="a name of its own for each",
            got=f"{first} and {second}" + (f", and {len(twice) - 1} more" * (len(twice) > 1)),
            hint="name a folder that is above both: the folders below it are then part of the ids",
        )
    for photo in photos:
        if photo.id != photo.id.strip() or not photo.id.isprintable():
            raise DataError(
                f"photograph {str(photo.path)!r}",
                expected="a name in UTF-8 without control characters or spaces at its ends",
                hint="rename the file: its name is a line of SPLIT_ids.txt",
            )


def _chosen(photos: Sequence[Photo], ids: PathLike) -> tuple[Photo, ...]:
    """The photographs that a file of ids names, in its order."""
    by_id = {photo.id: photo for photo in photos}
    wanted = read_lines(ids, _LISTED)
    missing = [id_ for id_ in wanted if id_ not in by_id]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise DataError(
            f"{_LISTED} in {ids}",
            expected=f"ids such as {photos[0].id}",
            got=f"{len(missing):,} of {len(wanted):,} that no photograph has: {shown}",
            hint="an id is a file's name, or its path below the folder that was named",
        )
    twice = [id_ for id_, number in Counter(wanted).items() if number > 1]
    if twice:
        raise InputError(f"{_LISTED} in {ids}", expected="each id once", got=f"{twice[0]} twice")
    return tuple(by_id[id_] for id_ in wanted)
