"""Encoded images or captions on disk: one `.npz` file, which names what encoded them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import Precision
from sgraf_deploy.engines.buffers import Array
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.files.writer import staged_file
from sgraf_deploy.runtime.arguments import check_path
from sgraf_deploy.runtime.array_file import DAMAGE, ArrayFile
from sgraf_deploy.runtime.encoded import (
    EncodedCaptions,
    EncodedImages,
    image_row,
)
from sgraf_deploy.runtime.encoding import Encoding, Kind
from sgraf_deploy.runtime.host_rows import captions_from_host, images_from_host
from sgraf_deploy.runtime.origin import Origin
from sgraf_deploy.runtime.tokens import callers_level
from sgraf_deploy.schema import Document, check_version, decode, encode, parse, shown

FORMAT: Literal[2] = 2
_HEADER = "sgraf_gallery"
_AGAIN = "write it again with save_encoded"

DOCUMENT = Document("gallery header", DataError, _AGAIN, most_bytes=2**16)


@dataclass(frozen=True)
class Header:
    """Describes a file: what encoded its rows."""

    format: Literal[2]
    encoding: Encoding


@dataclass(frozen=True)
class FirstHeader:
    """The header of format 1, which names the bundle; `executed` is the encoding engine's."""

    format: Literal[1]
    kind: Kind
    bundle: str
    precision: Precision
    executed: str


@dataclass(frozen=True, eq=False)
class SavedRows:
    """What a file holds, on the host: the arrays by member and name that `to_host` gives."""

    encoding: Encoding
    """What encoded them; its `kind` says whether they are images or captions."""
    arrays: dict[str, dict[str, Array]]
    lengths: NDArray[np.int32] | None
    """The captions' words, (captions,); None for images."""


def warn_deprecated(name: str) -> None:
    """Warn the user of a method that goes with the next release."""
    warnings.warn(
        f"{name} is deprecated: keep encoded images and captions in a gallery; "
        "`sgraf-deploy index --from-npz FILE` imports a file that save_encoded wrote",
        DeprecationWarning,
        stacklevel=callers_level(),
    )


def save_gallery(gallery: EncodedImages | EncodedCaptions, path: PathLike) -> Path:
    """Write encoded images or captions as one `.npz` file, whole or not at all.

    Raises InputError where the file cannot be written.
    """
    target = check_path(path)
    header = Header(FORMAT, gallery.encoding)
    arrays = _image_arrays(gallery) if isinstance(gallery, EncodedImages) else _arrays(gallery)
    arrays[_HEADER] = np.array(json.dumps(encode(header)))
    with staged_file(target, what="gallery", error=InputError) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return target


def load_images(origin: Origin, path: PathLike) -> EncodedImages:
    """Read encoded images back onto the device of `origin`'s engine; raises as `read_saved`."""
    return images_from_host(origin, read_saved(origin, path, "images").arrays)


def load_captions(origin: Origin, path: PathLike) -> EncodedCaptions:
    """Read encoded captions back onto the device of `origin`'s engine; raises as `read_saved`."""
    saved = read_saved(origin, path, "captions")
    return captions_from_host(origin, saved.lengths, saved.arrays)


def read_saved(origin: Origin, path: PathLike, kind: Kind | None = None) -> SavedRows:
    """Read what `save_encoded` wrote, of this kind or of either, for a scorer of this origin.

    Another engine may have encoded it, in another arithmetic: `SavedRows.encoding` says in which.
    Raises DataError for a file that is damaged, holds the other kind, or that other encoders or
    another precision made.
    """
    with _opened(path) as file:
        encoding = _read_header(origin, kind, file)
        if encoding.kind == "images":
            return SavedRows(encoding, _read_images(origin, file), None)
        lengths, arrays = _read_captions(origin, file)
        return SavedRows(encoding, arrays, lengths)


def _read_images(origin: Origin, file: ArrayFile) -> dict[str, dict[str, Array]]:
    specs = {
        (member, spec.name): spec
        for member in origin.configs
        for spec in origin.engine.open(member, "image_encoder").signature.outputs
    }
    file.check_names([_HEADER, *(f"{member}.{name}" for member, name in specs)])
    shape = file.declared(".".join(next(iter(specs)))).shape
    count = shape[0] if shape else 0
    arrays: dict[str, dict[str, Array]] = {member: {} for member in origin.configs}
    for (member, name), spec in specs.items():
        dtypes = origin.image_dtypes(member, spec)
        declared = file.declared(f"{member}.{name}").dtype
        dtype = next((each for each in dtypes if each.str == declared), dtypes[0])
        arrays[member][name] = file.read(f"{member}.{name}", dtype, (count, *image_row(spec)))
    return arrays


def _read_captions(
    origin: Origin, file: ArrayFile
) -> tuple[NDArray[np.int32], dict[str, dict[str, Array]]]:
    parts = ("word_embeddings", "text_global")
    names = [f"{name}.{part}" for name in origin.configs for part in parts]
    file.check_names([_HEADER, "lengths", *names])
    shape = file.declared("lengths").shape
    lengths = file.read("lengths", np.int32, shape[:1] or (0,))
    if (lengths < 1).any():
        raise DataError("lengths", expected="at least 1", got=lengths.min())
    words = int(lengths.sum(dtype=np.int64))
    rows = {"word_embeddings": words + 1, "text_global": len(lengths)}  # A row of zeros follows.
    arrays = {
        name: {
            part: file.read(f"{name}.{part}", origin.dtype, (rows[part], config.embed))
            for part in parts
        }
        for name, config in origin.configs.items()
    }
    for member in arrays.values():
        member["word_embeddings"] = member["word_embeddings"][:words]
    return lengths, arrays


def _image_arrays(images: EncodedImages) -> dict[str, Array]:
    fetch = images.origin.engine.fetch
    return {
        f"{name}.{part}": fetch(buffer)
        for name, buffers in images.members.items()
        for part, buffer in buffers.named.items()
    }


def _arrays(captions: EncodedCaptions) -> dict[str, Array]:
    arrays: dict[str, Array] = {"lengths": captions.lengths}
    for name, buffers in captions.members.items():
        arrays[f"{name}.word_embeddings"] = captions.compact_words(name, padded=True)
        arrays[f"{name}.text_global"] = captions.origin.engine.fetch(buffers.text_global)
    return arrays


@contextmanager
def _opened(path: PathLike) -> Iterator[ArrayFile]:
    """Open a file of encodings.

    Raises DataError, which names the file, also for an error that the block meets in it.
    """
    try:
        with check_path(path).open("rb") as opened:
            yield ArrayFile(opened)
    except FileNotFoundError as error:
        raise DataError(
            f"there is no gallery {path}", hint="write one with save_encoded"
        ) from error
    except DataError as error:
        what, hint = f"gallery {path}: {error.what}", error.hint or _AGAIN
        raise DataError(what, expected=error.expected, got=error.got, hint=hint) from error
    except DAMAGE as error:
        raise DataError(
            f"gallery {path} cannot be read",
            expected="a file of encoded images or captions",
            got=shown(f"{type(error).__name__}: {error}"),
            hint=_AGAIN,
        ) from error


def _read_header(origin: Origin, kind: Kind | None, file: ArrayFile) -> Encoding:
    """Return what encoded a file's rows, which a scorer of this origin must be able to use."""
    value = parse(file.text(_HEADER, at_most=DOCUMENT.most_bytes), DOCUMENT)
    if check_version(value, "format", (1, FORMAT), DOCUMENT) == FORMAT:
        made = decode(Header, value, DOCUMENT).encoding
    else:
        made = _first_encoding(origin, decode(FirstHeader, value, DOCUMENT))
    ours = origin.images if (kind or made.kind) == "images" else origin.captions
    # The arithmetic may be another one: these files were always read by any engine.
    ours.check(replace(made, executed=ours.executed), ours.kind, error=DataError)
    return made


def _first_encoding(origin: Origin, header: FirstHeader) -> Encoding:
    """Return what encoded the rows of a file of format 1; DataError for another bundle's."""
    if header.bundle != origin.bundle:
        hint = f"encode the {header.kind} again with this bundle"
        got = shown(header.bundle)
        raise DataError("bundle", expected=origin.bundle, got=got, hint=hint)
    same = origin.images if header.kind == "images" else origin.captions
    return replace(same, precision=header.precision, executed=header.executed)
