"""Collects a bundle and data for a GPU machine into one folder, in parts of limited size.

It collects a bundle, a split's regions and its captions as token ids, so that the GPU machine needs
no tokenizer, and optionally a folder of Python packages for that machine, such as TensorRT for RTX.
Random models are made from a seed on the machine where they are measured.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import lzma
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sgraf_deploy.bench.gpu.unpack import (
    CAPTIONS,
    INDEX,
    MODEL,
    PACKAGES,
    REGIONS,
    SCHEMA,
    SPARE,
    Part,
    Prepared,
    read_index,
)
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import readable
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.evaluate import check_for
from sgraf_deploy.files.folders import Rules, staged_folder
from sgraf_deploy.files.writer import staged_file, write_file, write_json
from sgraf_deploy.schema import encode

PART_BYTES = 48 * 10**6
"""The default size of a part: small enough for common limits of 64 MiB per upload."""

SPARES = ("safetensors",)
"""Packages that engines need besides PyTorch, and that a machine with only PyTorch may lack. Their
compiled parts run with any CPython of the platform."""

_ENGINES = "engines"
"""The folder of a bundle that is not collected: plans are built where they run."""


@dataclass(frozen=True)
class Contents:
    """What to collect; `packages` is a folder that `pip install --target` wrote."""

    bundle: Bundle
    split: PrecompSplit
    packages: Path | None = None
    max_words: int | None = MAX_WORDS


def prepare(
    contents: Contents, target: Path, *, part_bytes: int = PART_BYTES, force: bool = False
) -> Prepared:
    """Write a folder with an index and the parts of one archive, atomically.

    Regions keep their dtype, so that R@K is that of the split. Raises DataError for a split that
    does not fit the bundle, BundleError for a bundle without a vocabulary, InputError for a target
    that is not such a folder, or exists without `force`, and for packages that are not a folder.
    """
    if contents.packages is not None and not contents.packages.is_dir():
        raise InputError(f"--packages {contents.packages}", expected="a folder", got="none")
    checked = check_for(contents.bundle, contents.split, contents.max_words)
    regions = readable(contents.split.regions)
    rules = Rules("prepared folder", InputError, _check_replaceable)
    with tempfile.TemporaryDirectory() as name, staged_folder(target, rules, force=force) as folder:
        arrays = Path(name)
        with staged_file(arrays / REGIONS) as file:
            np.save(file, regions)
        with staged_file(arrays / CAPTIONS) as file:
            lengths = np.array([len(ids) for ids in checked.token_ids], np.int32)
            ids = np.concatenate(checked.token_ids)
            per_image = np.int32(contents.split.captions_per_image)
            np.savez(file, ids=ids, lengths=lengths, captions_per_image=per_image)
        files = dict(_files(contents, arrays))
        parts = _write_archive(files, folder, part_bytes)
        described = _describe(contents, files, str(regions.dtype))
        index = Prepared(SCHEMA, parts, described)
        write_json(folder / INDEX, encode(index), what="index")
    return index


def _files(contents: Contents, arrays: Path) -> Iterator[tuple[str, Path]]:
    """Every file with its name in the archive, in a fixed order."""
    for name in (REGIONS, CAPTIONS):
        yield name, arrays / name
    folders = {MODEL: contents.bundle.path, **_spares()}
    if contents.packages is not None:
        folders[PACKAGES] = contents.packages
    for name, folder in folders.items():
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            skipped = (
                name == MODEL and inside.parts[0] == _ENGINES
            ) or "__pycache__" in inside.parts
            if path.is_file() and not skipped:
                yield f"{name}/{inside.as_posix()}", path


def _spares() -> dict[str, Path]:
    """The folders of the spare packages that are installed here, by their place in the archive."""
    specs = {name: importlib.util.find_spec(name) for name in SPARES}
    return {
        f"{SPARE}/{name}/{name}": Path(spec.origin).parent
        for name, spec in specs.items()
        if spec is not None and spec.origin is not None
    }


def _write_archive(files: dict[str, Path], folder: Path, part_bytes: int) -> tuple[Part, ...]:
    """Write one compressed tar archive, split into parts while it is written."""
    cut = _Cut(folder, part_bytes)
    with tarfile.open(fileobj=cut, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, path in files.items():
            entry = tarfile.TarInfo(name)  # without times and owners: equal files, equal archives
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    return cut.finish()


@dataclass
class _Cut(io.RawIOBase):
    """A stream whose content is compressed by xz and written to files of at most `part_bytes`."""

    folder: Path
    part_bytes: int
    parts: list[Part] = field(default_factory=list)
    held: bytearray = field(default_factory=bytearray)
    compressor: lzma.LZMACompressor = field(default_factory=lambda: lzma.LZMACompressor(preset=1))

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hold(self.compressor.compress(bytes(data)))
        return len(data)

    def _hold(self, data: bytes) -> None:
        self.held += data
        while len(self.held) >= self.part_bytes:
            self._put(self.part_bytes)

    def _put(self, size: int) -> None:
        content = bytes(self.held[:size])
        del self.held[:size]
        name = f"part-{len(self.parts):02}"
        write_file(self.folder / name, content, what="part")
        self.parts.append(Part(name, hashlib.sha256(content).hexdigest(), size))

    def finish(self) -> tuple[Part, ...]:
        """Write the rest, and return all parts in order."""
        self._hold(self.compressor.flush())
        if self.held:
            self._put(len(self.held))
        return tuple(self.parts)


def _describe(contents: Contents, files: dict[str, Path], dtype: str) -> dict[str, Any]:
    sizes = dict.fromkeys((MODEL, REGIONS, CAPTIONS, PACKAGES, SPARE), 0)
    for name, path in files.items():
        sizes[name.partition("/")[0]] += path.stat().st_size
    split = contents.split
    return {
        "module": contents.bundle.manifest.module,
        "bundle_sha256": contents.bundle.sha256,
        "split": split.name,
        "images": split.images,
        "captions": len(split.captions),
        "regions_dtype": dtype,
        "bytes": sizes,
    }


def _check_replaceable(folder: Path) -> None:
    """Raise InputError unless a folder contains what `prepare` wrote, and nothing else."""
    index, _ = read_index(folder)
    known = {INDEX, *(part.file for part in index.parts)}
    extra_files = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if extra_files:
        raise InputError(
            f"prepared folder {folder} is not replaced",
            expected="only files that prepare wrote",
            got=", ".join(extra_files[:5]),
            hint="choose another folder with -o",
        )
