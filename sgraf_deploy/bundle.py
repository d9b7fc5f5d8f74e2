"""The artifact on disk: open a bundle, verify its files, write its manifest.

A bundle is a folder that `atomic.staged_folder` publishes whole; what is in it is described in
`manifest`. Nothing of it is trusted before its size and sha256 have been compared.
"""

from __future__ import annotations

import json
import os
import stat
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from sgraf_deploy.atomic import MANIFEST, recover
from sgraf_deploy.config import GraphName, Precision
from sgraf_deploy.errors import BundleError
from sgraf_deploy.manifest import FileRef, GraphFile, Manifest, Member, migrate, parse_json

ENGINES_FOLDER = "engines"
"""Compiled plans: each has its own sidecar, and they are no part of the bundle's identity."""

_EXPORT = "export the bundle again with `sgraf-deploy export --force`"
_OPEN_ATTEMPTS = 5


class Bundle:
    """An opened bundle: its folder, its manifest, and `sha256`, the bundle's identity.

    The identity is the hash of the manifest's canonical JSON as written, and so covers every
    file that the manifest names. Files are verified when they are asked for.
    """

    def __init__(self, path: Path, manifest: Manifest, sha256: str) -> None:
        """Take over what `open` has read; `path` is absolute, without links."""
        self.path = path
        self.manifest = manifest
        self.sha256 = sha256
        self._verified: dict[FileRef, tuple[int, int]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open the bundle at `path`, completing an interrupted replacement of it first.

        Raises BundleError if it is not there, is no bundle, or its manifest cannot be used.
        """
        folder = Path(os.path.realpath(path))
        text = _read_manifest(folder)
        try:
            raw = parse_json(text)
            manifest = Manifest.from_json(migrate(raw))
        except BundleError as error:
            raise BundleError(f"{folder / MANIFEST}: {error}") from error
        return cls(folder, manifest, _identity(raw))

    def file(self, ref: FileRef) -> Path:
        """The absolute path of a file, once its size and sha256 are as the manifest says.

        A file is hashed again only if its size or modification time changed. Raises BundleError.
        """
        try:
            path = (self.path / ref.file).resolve(strict=True)
            status = path.stat()
        except FileNotFoundError as error:
            raise self._damaged(ref, "a file", "none") from error
        except (OSError, RuntimeError) as error:
            raise self._damaged(ref, "a readable file", error) from error
        if not path.is_relative_to(self.path):
            raise self._damaged(ref, "a file inside the bundle", f"a link to {path}")
        if not stat.S_ISREG(status.st_mode):
            raise self._damaged(ref, "a file", "something else")
        if status.st_size != ref.bytes:
            raise self._damaged(ref, f"{ref.bytes} bytes", f"{status.st_size} bytes")
        stamp = (status.st_mtime_ns, status.st_size)
        if self._verified.get(ref) != stamp:
            try:
                found = _hash(path)
            except OSError as error:
                raise self._damaged(ref, "a readable file", error) from error
            if found != ref.sha256:
                raise self._damaged(ref, f"sha256 {ref.sha256}", found)
            self._verified[ref] = stamp
        return path

    def member(self, member: str) -> Member:
        """The member of that name, `sgr` or `saf-2`; BundleError if the bundle does not have it."""
        if member not in self.manifest.members:
            raise BundleError(
                f"bundle {self.path} has no such member",
                expected=" or ".join(self.manifest.members),
                got=member,
            )
        return self.manifest.members[member]

    def graph(self, member: str, graph: GraphName, precision: Precision) -> GraphFile:
        """What the manifest says about one graph; BundleError if the bundle does not have it."""
        found = self.member(member).graphs
        if precision not in found:
            raise BundleError(
                f"bundle {self.path} has no {precision} graphs",
                expected=" or ".join(found),
                got=precision,
                mend=f"choose `--precision {next(iter(found))}` or {_EXPORT}",
            )
        if graph not in found[precision]:
            raise BundleError(
                f"bundle {self.path} has no such graph",
                expected=", ".join(found[precision]),
                got=graph,
            )
        return found[precision][graph]

    def graph_path(self, member: str, graph: GraphName, precision: Precision) -> Path:
        """The verified ONNX file of one graph; BundleError if it is absent or damaged."""
        return self.file(self.graph(member, graph, precision).ref)

    def reference_path(self, member: str) -> Path:
        """The verified file of a member's original weights; BundleError if they were left out."""
        return self._optional(
            self.member(member).reference,
            f"the original weights of {member}",
            "give the checkpoint with `--checkpoint FILE`",
        )

    def gate_path(self) -> Path:
        """The verified file of the gate's inputs and logits; BundleError if it was left out."""
        return self._optional(
            self.manifest.gate,
            "the gate's inputs and logits",
            "give the checkpoint with `--checkpoint FILE`",
        )

    def vocabulary_path(self) -> Path:
        """The verified vocabulary file; BundleError for a bundle that works on token ids."""
        return self._optional(
            self.manifest.vocabulary,
            "a vocabulary: it works on token ids",
            "give token ids, or export again with `--vocab FILE`",
        )

    def verify_files(self) -> tuple[str, ...]:
        """Check every file; return those that the manifest does not name, `engines/` aside.

        Raises BundleError that names each missing or damaged file.
        """
        failures = []
        for ref in self.manifest.files:
            try:
                self.file(ref)
            except BundleError as error:
                failures.append((ref.file, error))
        if len(failures) == 1:
            raise failures[0][1]
        if failures:
            raise BundleError(
                f"{len(failures)} of {len(self.manifest.files)} files of bundle {self.path} are "
                f"missing or damaged: {', '.join(name for name, _ in failures)}",
                mend=self._mend(),
            ) from failures[0][1]
        named = {MANIFEST, *(ref.file for ref in self.manifest.files)}
        return tuple(name for name in _names(self.path) if name not in named)

    def _optional(self, ref: FileRef | None, what: str, mend: str) -> Path:
        if ref is None:
            raise BundleError(f"bundle {self.path} was exported without {what}", mend=mend)
        return self.file(ref)

    def _damaged(self, ref: FileRef, expected: str, got: object) -> BundleError:
        return BundleError(
            f"file {ref.file} of bundle {self.path}",
            expected=expected,
            got=got,
            mend=self._mend(),
        )

    def _mend(self) -> str:
        try:
            same = _identity(parse_json((self.path / MANIFEST).read_bytes())) == self.sha256
        except (OSError, BundleError):
            same = True
        return _EXPORT if same else "the bundle was replaced meanwhile: open it again"


def hash_file(path: Path, *, relative_to: Path) -> FileRef:
    """Describe a file that lies in the bundle folder `relative_to`; BundleError if it cannot."""
    try:
        name = path.relative_to(relative_to).as_posix()
        return FileRef(name, _hash(path), path.stat().st_size)
    except (OSError, ValueError) as error:
        raise BundleError(f"file {path} cannot be put into a bundle", got=error) from error


def write_json(path: Path, value: object) -> None:
    """Write JSON for people: in the given order, one field a line; BundleError if it is none."""
    text = _layout(path, value)
    try:
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot write {path}", got=error) from error


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write `manifest.json`; BundleError, and nothing written, if it could not be read back."""
    path = folder / MANIFEST
    value = manifest.to_json()
    try:
        Manifest.from_json(parse_json(_layout(path, value)))
    except BundleError as error:
        raise BundleError(f"{path} would not be readable: {error}") from error
    write_json(path, value)
    return path


def _layout(path: Path, value: object) -> str:
    try:
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"cannot write {path}", got=error) from error


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    for _ in range(_OPEN_ATTEMPTS):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            # A replacement by two renames may be under way, or may have been interrupted.
            recover(folder)
        except NotADirectoryError:
            break
        except OSError as error:
            raise BundleError(f"cannot read {path}", got=error.strerror) from error
    if folder.is_dir():
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST}",
            mend="give a folder that `sgraf-deploy export` wrote",
        )
    if folder.exists():
        raise BundleError(
            f"{folder} is a file, not a bundle folder",
            mend=f"if it is a checkpoint, run `sgraf-deploy export {folder}`",
        )
    raise BundleError(f"there is no bundle {folder}", mend="write one with `sgraf-deploy export`")


def _identity(raw: Any) -> str:
    """The sha256 of a manifest's JSON, whatever its layout."""
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> list[str]:
    """The files and links below a folder as relative POSIX paths, compiled engines left out."""
    names = []
    for parent, folders, files in os.walk(folder):
        if Path(parent) == folder and ENGINES_FOLDER in folders:
            folders.remove(ENGINES_FOLDER)
        links = [name for name in folders if Path(parent, name).is_symlink()]
        names += [Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(names)
