"""Package folders: each appears whole or not at all, and lists its files in `contents.json`.

The list is what makes a folder one that may be replaced: nothing else is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from sgraf_deploy import __version__
from sgraf_deploy.bundle.bundle import Bundle, hash_file
from sgraf_deploy.bundle.manifest import FileRef
from sgraf_deploy.errors import InputError
from sgraf_deploy.files.folders import Rules, foreign, list_files, staged_folder
from sgraf_deploy.files.writer import write_file, write_json
from sgraf_deploy.schema import Document, decode, encode, parse

Kind = Literal["web", "triton"]

CONTENTS = "contents.json"

_AWAY = "choose another name or move it away"

DOCUMENT = Document("list of a package's files", InputError, _AWAY, most_bytes=16 * 2**20)


@dataclass(frozen=True)
class Contents:
    """What a package says of itself: its kind, the bundle that it was made of, and every file."""

    kind: Kind
    program: str
    bundle: str
    files: tuple[FileRef, ...]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(ref.bytes for ref in self.files)


@contextmanager
def staged_package(target: Path, kind: Kind, bundle: Bundle, *, force: bool) -> Iterator[Package]:
    """Yield an empty package to fill, which becomes `target`, with its list of files, at the end.

    After an error `target` is as it was. Raises InputError for a target that cannot be written, for
    an existing one without `force`, and with it for one that is no package of this kind or holds
    anything else.
    """
    rules = Rules(f"{kind} package", InputError, partial(check_replaceable, kind))
    with staged_folder(target, rules, force=force) as folder:
        package = Package(folder)
        yield package
        files = tuple(sorted(package.files, key=lambda ref: ref.file))
        contents = Contents(kind, __version__, bundle.sha256, files)
        write_json(folder / CONTENTS, encode(contents), what="list of files")


class Package:
    """A package that is being written, and the files that it has so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[FileRef] = []

    def put(self, name: str, content: bytes | str) -> FileRef:
        """Write a file, and the folders that lead to it."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content, what="package")
        self.files.append(hash_file(path, relative_to=self._folder))
        return self.files[-1]


def read_contents(folder: Path) -> Contents:
    """What a package says of itself; InputError for a folder that is none."""
    try:
        content = DOCUMENT.read(folder / CONTENTS)
    except OSError as error:
        found = f"no {CONTENTS}" if isinstance(error, FileNotFoundError) else error.strerror
        raise InputError(f"{folder} exists and is no package", got=found, hint=_AWAY) from error
    try:
        return decode(Contents, parse(content, DOCUMENT), DOCUMENT)
    except InputError as error:
        reason = f"{CONTENTS}: {error.reason}"
        raise InputError(f"{folder} exists and is no package", got=reason, hint=_AWAY) from error


def check_replaceable(kind: Kind, folder: Path) -> None:
    """Raise InputError unless a folder is a package of this kind and holds nothing else."""
    contents = read_contents(folder)
    if contents.kind != kind:
        raise InputError(f"package {folder}", expected=kind, got=contents.kind, hint=_AWAY)
    known = {CONTENTS, *(ref.file for ref in contents.files)}
    extra = [name for name in list_files(folder) if name not in known]
    if extra:
        raise InputError(
            f"package {folder} is not replaced",
            expected=f"nothing in it but what its {CONTENTS} names",
            got=foreign(extra),
            hint="move them away or choose another name",
        )
