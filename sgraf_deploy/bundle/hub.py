"""Bundles on the Hugging Face Hub: from `hf://OWNER/NAME@REVISION` to a folder on this machine.

What comes from the Hub is untrusted. First `manifest.json` is read, and then exactly the files that
it names are fetched: no compiled plans, and nothing else that the repository may hold. A file whose
size or sha256 is not the manifest's is refused before a bundle is made of it.

`huggingface_hub` keeps the files in its cache, which the user's other programs share. There they
are links, which a bundle may not be made of, so it is a folder of its own: OWNER--NAME/COMMIT/NAME
below `sgraf-deploy` in the Hub's cache of assets (HF_ASSETS_CACHE). It appears whole or not at all.
Its files are second names of those in the cache, or copies where a disk has no such names. A commit
that is there is opened without any request.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from sgraf_deploy.bundle.hub_client import Address, HubClient
from sgraf_deploy.bundle.manifest import DOCUMENT, MANIFEST, FileRef, Manifest, parse_json
from sgraf_deploy.bundle.migrations import migrate
from sgraf_deploy.errors import BundleError
from sgraf_deploy.files.disk import link_or_copy, os_errors
from sgraf_deploy.files.folders import Rules, staged_folder
from sgraf_deploy.progress import Progress, Stage

MOST_BYTES = 16 * 2**30
"""The most bytes that the files of a bundle may have together to be fetched."""

PATIENCE = 600.0
"""Seconds that a process waits for another that publishes the same commit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """A bundle's folder on this machine, and its address with the commit as its revision."""

    folder: Path
    address: str


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is meant as an address on the Hub."""
    return os.fspath(path).startswith("hf:/")


def fetch(address: str, *, stage: Stage = lambda name: None) -> Fetched:
    """Fetch a bundle from the Hub unless its commit is here; its files are checked.

    `stage` is told when the files are about to be fetched, and its progress counts bytes. Raises
    UnavailableError without `huggingface_hub`, and BundleError for an address, a repository or a
    bundle that cannot be used, and where the Hub cannot be reached.
    """
    given = Address.parse(address)
    client = HubClient(given)
    commit, manifest = (given.revision, None) if given.is_commit else client.manifest()
    pinned, target = given.at(commit), client.folder(commit) / given.name
    if not _is_there(target):
        client = HubClient(pinned)
        if manifest is None:
            _, manifest = client.manifest()
        _publish(pinned, target, _files(client, manifest, stage))
    log.info("%s is %s, kept in %s", given, pinned, target)
    return Fetched(target, str(pinned))


def _files(client: HubClient, manifest: Path, stage: Stage) -> dict[str, Path]:
    """Every file of the bundle in the Hub's cache, by its name in the bundle, and checked."""
    place = f"{client.address}: {MANIFEST}"
    try:
        named = Manifest.from_json(migrate(parse_json(DOCUMENT.read(manifest)))).files
    except BundleError as error:
        raise error.at(place) from error
    total = sum(ref.bytes for ref in named)
    if total > MOST_BYTES:
        raise BundleError(
            place,
            expected=f"files of at most {MOST_BYTES:,} bytes together",
            got=f"{total:,} bytes",
            hint=f"fetch it with `hf download {client.address.repository} --local-dir DIR`",
        )
    progress = stage("fetching the bundle")
    found, done = {MANIFEST: manifest}, 0
    for ref in named:
        path = client.file(ref.file, ref.bytes, _Arriving(progress, done, ref.bytes, total))
        _check(client.address, ref, path)
        found[ref.file] = path
        done += ref.bytes
        if progress is not None:
            progress(done, total)
    return found


class _Arriving:
    """Counts the bytes of one file as they arrive, of which there may be more after a retry."""

    def __init__(self, progress: Progress | None, before: int, size: int, total: int) -> None:
        self._progress, self._before, self._size, self._total = progress, before, size, total
        self._count = 0

    def __call__(self, count: int) -> None:
        self._count = min(max(self._count + count, 0), self._size)
        if self._progress is not None:
            self._progress(self._before + self._count, self._total)


def _check(address: Address, ref: FileRef, path: Path) -> None:
    """Raise BundleError unless a fetched file is the one that the manifest names."""
    try:
        with path.open("rb") as file:
            size, found = os.fstat(file.fileno()).st_size, file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{address}: file {ref.file}", got=error.strerror) from error
    if (size, found) != (ref.bytes, ref.sha256):
        raise BundleError(
            f"{address}: file {ref.file}",
            expected=f"{ref.bytes} bytes with sha256 {ref.sha256}",
            got=f"{size} bytes with {found}",
            hint=f"it was changed or damaged: `hf cache rm model/{address.repository}` removes "
            "what was fetched; if it fails again, ask its owner",
        )


def _publish(address: Address, target: Path, files: Mapping[str, Path]) -> None:
    """Make the bundle's folder of the checked files, unless another process has just done so."""
    rules = Rules("bundle", BundleError, lambda folder: None)
    try:
        with staged_folder(target, rules, patience=PATIENCE) as folder:
            for name, path in files.items():
                with os_errors(f"{address}: file {name}", BundleError):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    link_or_copy(path, folder / name)
    except BundleError:
        if not _is_there(target):
            raise


def _is_there(target: Path) -> bool:
    return (target / MANIFEST).is_file()
