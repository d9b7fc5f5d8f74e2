"""Encoded images or captions on disk: one `.npz` file, which names its bundle and precision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

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
    ImageBuffers,
    TextBuffers,
    image_row,
    make_captions,
)
from sgraf_deploy.runtime.origin import Origin
from sgraf_deploy.schema import Document, check_version, decode, encode, parse, shown

Kind = Literal["images", "captions"]

FORMAT: Literal[1] = 1
_HEADER = "sgraf_gallery"
_AGAIN = "write it again with save_encoded"

DOCUMENT = Document("gallery header", DataError, _AGAIN, most_bytes=2**16)


@dataclass(frozen=True)
class Header:
    """Describes a gallery; `executed` is the arithmetic of the engine that encoded it."""

    format: Literal[1]
    kind: Kind
    bundle: str
    precision: Precision
    executed: str


def save_gallery(gallery: EncodedImages | EncodedCaptions, path: PathLike) -> Path:
    """Write encoded images or captions as one `.npz` file, whole or not at all.

    Raises InputError where the file cannot be written.
    """
    target = check_path(path)
    kind: Kind = "images" if isinstance(gallery, EncodedImages) else "captions"
    origin = gallery.origin
    header = Header(FORMAT, kind, origin.bundle, origin.precision, origin.engine.executed)
    arrays = _image_arrays(gallery) if isinstance(gallery, EncodedImages) else _arrays(gallery)
    arrays[_HEADER] = np.array(json.dumps(encode(header)))
    with staged_file(target, what="gallery", error=InputError) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return target


def load_images(origin: Origin, path: PathLike) -> EncodedImages:
    """Read encoded images back onto the device of `origin`'s engine.

    Raises DataError for a file that is damaged, is no gallery of images, or belongs to another
    bundle or precision.
    """
    specs = {
        f"{name}.{spec.name}": spec
        for name in origin.configs
        for spec in origin.engine.open(name, "image_encoder").signature.outputs
    }
    with _opened(origin, path, "images") as file:
        file.check_names([_HEADER, *specs])
        shape = file.declared(next(iter(specs))).shape
        count = shape[0] if shape else 0
        arrays = {
            name: file.read(name, spec.dtype, (count, *image_row(spec)))
            for name, spec in specs.items()
        }
    members = {name: ImageBuffers(**_buffers(origin, arrays, name)) for name in origin.configs}
    return EncodedImages(origin, members, count)


def load_captions(origin: Origin, path: PathLike) -> EncodedCaptions:
    """Read encoded captions back onto the device of `origin`'s engine.

    Raises DataError for a file that is damaged, is no gallery of captions, or belongs to another
    bundle or precision.
    """
    with _opened(origin, path, "captions") as file:
        parts = ("word_embeddings", "text_global")
        names = [f"{name}.{part}" for name in origin.configs for part in parts]
        file.check_names([_HEADER, "lengths", *names])
        shape = file.declared("lengths").shape
        lengths = file.read("lengths", np.int32, shape[:1] or (0,))
        if (lengths < 1).any():
            raise DataError("lengths", expected="at least 1", got=lengths.min())
        rows = {
            "word_embeddings": int(lengths.sum(dtype=np.int64)) + 1,
            "text_global": len(lengths),
        }
        arrays = {
            f"{name}.{part}": file.read(f"{name}.{part}", origin.dtype, (rows[part], config.embed))
            for name, config in origin.configs.items()
            for part in parts
        }
    members = {name: TextBuffers(**_buffers(origin, arrays, name)) for name in origin.configs}
    return make_captions(origin, members, lengths)


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
def _opened(origin: Origin, path: PathLike, kind: Kind) -> Iterator[ArrayFile]:
    """Open a gallery file, whose header must say that it was written for `origin`.

    Raises DataError, which names the file, also for an error that the block meets in it.
    """
    try:
        with check_path(path).open("rb") as opened:
            file = ArrayFile(opened)
            _check_header(origin, kind, file)
            yield file
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
            expected=f"a file of encoded {kind}",
            got=shown(f"{type(error).__name__}: {error}"),
            hint=_AGAIN,
        ) from error


def _check_header(origin: Origin, kind: Kind, file: ArrayFile) -> None:
    value = parse(file.text(_HEADER, at_most=DOCUMENT.most_bytes), DOCUMENT)
    check_version(value, "format", (FORMAT,), DOCUMENT)
    header = decode(Header, value, DOCUMENT)
    for name, expected, got in (
        ("kind", kind, header.kind),
        ("bundle", origin.bundle, header.bundle),
        ("precision", origin.precision, header.precision),
    ):
        if got != expected:
            hint = f"encode the {kind} again with this bundle and precision"
            raise DataError(name, expected=expected, got=shown(got), hint=hint)


def _buffers(origin: Origin, arrays: dict[str, Array], member: str) -> dict[str, Any]:
    """Put a member's arrays on the device; they are named by what follows the member's name."""
    names = [name for name in arrays if name.startswith(f"{member}.")]
    return {name.removeprefix(f"{member}."): origin.engine.put(arrays.pop(name)) for name in names}
