"""The artifact on disk: open a bundle, verify its files, write its manifest.

A bundle is a folder that `staged_bundle` publishes whole; `manifest` describes what is in it. No
file is used before its size and sha256 have been compared, and no graph that needs another file.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from sgraf_deploy.bundle.card import CARD, is_unedited
from sgraf_deploy.bundle.graph_check import check_graph
from sgraf_deploy.bundle.hub import fetch, is_address
from sgraf_deploy.bundle.manifest import (
    DOCUMENT,
    EXPORT_AGAIN,
    MANIFEST,
    PLANS_FOLDER,
    FileRef,
    GraphFile,
    Manifest,
    Member,
    parse_json,
)
from sgraf_deploy.bundle.migrations import migrate
from sgraf_deploy.config import GRAPHS, PRECISIONS, GraphName, Precision
from sgraf_deploy.errors import BundleError
from sgraf_deploy.files.disk import kind_of
from sgraf_deploy.files.folders import Rules, foreign, list_files, recover, staged_folder
from sgraf_deploy.files.writer import write_json

_PLAN_FILES = re.compile(
    rf"[\w-]+-({'|'.join(PRECISIONS)})-({'|'.join(GRAPHS)})(\.json|-[0-9a-f]{{16}}\.plan)"
    r"|timing\.cache|\.[^/]+\.tmp-[0-9a-f]{16}"
    r"|onnxruntime/TensorrtExecutionProvider_[^/]*\.(engine|profile|timing)"
)
"""What this program and ONNX Runtime write into the folder of plans."""

_OPEN_ATTEMPTS = 5


class Bundle:
    """An opened bundle: its folder, its manifest, and `sha256`, the bundle's identity.

    The identity is the hash of the manifest's canonical JSON as written, and so covers every
    file that the manifest names. Files are verified when they are asked for. `source` is the
    address of a bundle from the Hub, with its commit; None for another.

    Example:
        >>> bundle = sgraf_deploy.Bundle.open("f8k.sgraf")
        >>> bundle
        Bundle(f8k.sgraf, SGRAF, fp32 + fp16)
        >>> len(bundle.sha256), bundle.source, bundle.verify_files()
        (64, None, ())
    """

    def __init__(
        self, path: Path, manifest: Manifest, sha256: str, source: str | None = None
    ) -> None:
        """Take over what `open` has read; `path` is absolute, without links."""
        self.path = path
        self.manifest = manifest
        self.sha256 = sha256
        self.source = source
        self._verified: dict[FileRef, tuple[int, int]] = {}
        made = () if manifest.extractor is None else manifest.extractor.graphs
        self._graphs = frozenset((*manifest.graphs, *made))

    def __repr__(self) -> str:
        precisions = " + ".join(self.manifest.precisions)
        return f"Bundle({self.short_name}, {self.manifest.module}, {precisions})"

    @property
    def short_name(self) -> str:
        """The folder's name, cut where it is long."""
        name = self.path.name
        return name if len(name) <= 40 else f"{name[:39]}…"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open the bundle at `path`, completing an interrupted replacement of it first.

        A path that begins with `hf://` is an address on the Hub, whose files are fetched unless
        they are here. Raises BundleError if it is not there, is no bundle, or its manifest cannot
        be used, and UnavailableError for an address without the package `huggingface_hub`.
        """
        source = None
        if is_address(path):
            fetched = fetch(os.fspath(path))
            path, source = fetched.folder, fetched.address
        folder = Path(os.path.realpath(path))
        text = _read_manifest(folder)
        try:
            raw = parse_json(text)
            manifest = Manifest.from_json(migrate(raw))
        except BundleError as error:
            raise error.at(folder / MANIFEST) from error
        return cls(folder, manifest, _identity(raw), source)

    def file(self, ref: FileRef) -> Path:
        """The absolute path of a file, once its size and sha256 are as the manifest says.

        A graph must also need no other file. A file is read again only if its size or its
        modification time has changed. Raises BundleError.
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
            raise self._damaged(ref, "a file", kind_of(status.st_mode))
        if status.st_size != ref.bytes:
            raise self._damaged(ref, f"{ref.bytes} bytes", f"{status.st_size} bytes")
        stamp = (status.st_mtime_ns, status.st_size)
        if self._verified.get(ref) != stamp:
            try:
                found = _hash(path)
                if found != ref.sha256:
                    raise self._damaged(ref, f"sha256 {ref.sha256}", found)
                if ref in self._graphs:
                    check_graph(path)
            except OSError as error:
                raise self._damaged(ref, "a readable file", error) from error
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
                hint=f"choose `--precision {next(iter(found))}` or {EXPORT_AGAIN}",
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

    def combined_path(self, precision: Precision) -> Path:
        """The verified ONNX file of all members in one graph, for other programs.

        Raises BundleError if it is damaged, or the bundle was exported without it.
        """
        found = self.manifest.combined.get(precision)
        if found is None:
            raise BundleError(
                f"bundle {self.path} has no combined graph in {precision}",
                expected=" or ".join(self.manifest.combined) or "one",
                got="none",
                hint="export it again with `sgraf-deploy export --combined --force`",
            )
        return self.file(found.ref)

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

    def extractor_files(self) -> dict[str, Path]:
        """The verified files of what makes regions of photographs: `recipe`, `backbone`, ….

        Raises BundleError for a bundle that was exported without an extractor, and for damage.
        """
        found = self.manifest.extractor
        if found is None:
            raise BundleError(
                f"bundle {self.path} was exported without an extractor: it takes regions alone",
                hint="export it again with `sgraf-deploy export --extractor SPEC --force`",
            )
        return {
            name: self.file(ref) for name, ref in {"recipe": found.recipe, **found.files}.items()
        }

    def verify_files(self) -> tuple[str, ...]:
        """Check every file; return those that the manifest does not name, plans and card left out.

        Raises a BundleError that names each missing, damaged or refused file.
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
                f"missing, damaged or refused: {', '.join(name for name, _ in failures)}",
                got=failures[0][1].reason,
                hint=self._hint(),
            ) from failures[0][1]
        return tuple(_extra_files(self.path, self.manifest))

    def _optional(self, ref: FileRef | None, what: str, hint: str) -> Path:
        if ref is None:
            raise BundleError(f"bundle {self.path} was exported without {what}", hint=hint)
        return self.file(ref)

    def _damaged(self, ref: FileRef, expected: str, got: object) -> BundleError:
        return BundleError(
            f"file {ref.file} of bundle {self.path}",
            expected=expected,
            got=got,
            hint=self._hint(),
        )

    def _hint(self) -> str:
        try:
            same = _identity(parse_json(DOCUMENT.read(self.path / MANIFEST))) == self.sha256
        except (OSError, BundleError):
            same = True
        if self.source is not None:
            return f"remove {self.path}, and open {self.source} again"
        return EXPORT_AGAIN if same else "the bundle was replaced meanwhile: open it again"


def hash_file(path: Path, *, relative_to: Path) -> FileRef:
    """Describe a file that lies in the bundle folder `relative_to`; BundleError if it cannot."""
    try:
        name = path.relative_to(relative_to).as_posix()
        return FileRef(name, _hash(path), path.stat().st_size)
    except (OSError, ValueError) as error:
        raise BundleError(f"file {path} cannot be put into a bundle", got=error) from error


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write `manifest.json`; BundleError, and nothing written, if it could not be read back."""
    path = folder / MANIFEST
    value = manifest.to_json()
    try:
        Manifest.from_json(parse_json(json.dumps(value, indent=1)))
    except BundleError as error:
        raise error.at(f"{path} would not be readable") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} would not be readable", got=error) from error
    write_json(path, value, what="manifest", error=BundleError)
    return path


def staged_bundle(
    target: Path,
    *,
    force: bool = False,
    step: Callable[[str], None] | None = None,
    exchange: Callable[[Path, Path], bool] | None = None,
) -> AbstractContextManager[Path]:
    """`staged_folder` for a bundle; `force` replaces one that `check_replaceable` lets pass."""
    rules = Rules("bundle", BundleError, check_replaceable)
    return staged_folder(target, rules, force=force, step=step, exchange=exchange)


def check_replaceable(folder: Path) -> None:
    """Raise BundleError unless a folder is a bundle and holds nothing but what belongs to one.

    That is what its manifest names, compiled plans in their folder, and a card that nobody edited.
    """
    away = "choose another name or move it away"
    try:
        text = DOCUMENT.read(folder / MANIFEST)
    except OSError as error:
        found = f"no {MANIFEST}" if isinstance(error, FileNotFoundError) else error.strerror
        raise BundleError(f"{folder} exists and is not a bundle", got=found, hint=away) from error
    try:
        manifest = Manifest.from_json(migrate(parse_json(text)))
    except BundleError as error:
        reason = f"{MANIFEST}: {error.reason}"
        raise BundleError(f"{folder} exists and is not a bundle", got=reason, hint=away) from error
    extra = _extra_files(folder, manifest)
    extra += _edited_card(folder)
    extra += [
        f"{PLANS_FOLDER}/{name}"
        for name in list_files(folder / PLANS_FOLDER)
        if not _PLAN_FILES.fullmatch(name)
    ]
    if extra:
        raise BundleError(
            f"bundle {folder} is not replaced",
            expected="nothing in it but what its manifest names",
            got=foreign(extra),
            hint="move them away or choose another name",
        )


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    for _ in range(_OPEN_ATTEMPTS):
        try:
            return DOCUMENT.read(path)
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
            hint="give a folder that `sgraf-deploy export` wrote",
        )
    if folder.exists():
        raise BundleError(
            f"{folder} is a file, not a bundle folder",
            hint=f"if it is a checkpoint, run `sgraf-deploy export {folder}`",
        )
    raise BundleError(f"there is no bundle {folder}", hint="write one with `sgraf-deploy export`")


def _identity(raw: Any) -> str:
    """The sha256 of a manifest's JSON, whatever its layout."""
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _edited_card(folder: Path) -> list[str]:
    """The card's name, if it holds anything that would be lost with it."""
    try:
        return [] if is_unedited(folder / CARD) else [CARD]
    except FileNotFoundError:
        return []
    except OSError:
        return [CARD]


def _extra_files(folder: Path, manifest: Manifest) -> list[str]:
    """The files of a bundle that its manifest does not name, compiled plans and card left out."""
    named = {MANIFEST, CARD, *(ref.file for ref in manifest.files)}
    plans = f"{PLANS_FOLDER}/"
    return [name for name in list_files(folder) if name not in named and not name.startswith(plans)]
