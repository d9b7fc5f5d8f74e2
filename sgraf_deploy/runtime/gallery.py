"""Encoded galleries on disk: one `.npz` file, which names its bundle and precision."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import GraphName
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files import staged_file
from sgraf_deploy.runtime.encoded import (
    EncodedCaptions,
    EncodedImages,
    ImageBuffers,
    Origin,
    TextBuffers,
    image_row,
    make_captions,
)

PathLike = str | os.PathLike[str]
Kind = Literal["images", "captions"]
Arrays = dict[str, NDArray[Any]]

FORMAT = 1
_HEADER = "sgraf_gallery"
_BROKEN = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise on files that are none of theirs, or damaged."""


def save_gallery(gallery: EncodedImages | EncodedCaptions, path: PathLike) -> Path:
    """Write encoded images or captions as one `.npz` file, whole or not at all.

    Raises InputError where the file cannot be written.
    """
    target = Path(path)
    kind: Kind = "images" if isinstance(gallery, EncodedImages) else "captions"
    origin = gallery.origin
    header = {
        "format": FORMAT,
        "kind": kind,
        "bundle": origin.bundle,
        "precision": origin.precision,
        "executed": origin.engine.executed,
    }
    arrays = _image_arrays(gallery) if isinstance(gallery, EncodedImages) else _arrays(gallery)
    arrays[_HEADER] = np.array(json.dumps(header))
    with staged_file(target, what="gallery", error=InputError) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return target


def load_images(origin: Origin, path: PathLike) -> EncodedImages:
    """Read encoded images back onto the device of `origin`'s engine.

    Raises DataError for a file that is damaged, is no gallery of images, or belongs to another
    bundle or precision.
    """
    arrays = _read(origin, path, "images")
    count = len(arrays[f"{next(iter(origin.configs))}.image_global"])
    members = {}
    for name in origin.configs:
        outputs = origin.engine.open(name, "image_encoder").signature.outputs
        shapes = {spec.name: (count, *image_row(spec)) for spec in outputs}
        members[name] = ImageBuffers(**_buffers(origin, path, arrays, name, shapes))
    return EncodedImages(origin, members, count)


def load_captions(origin: Origin, path: PathLike) -> EncodedCaptions:
    """Read encoded captions back onto the device of `origin`'s engine.

    Raises DataError for a file that is damaged, is no gallery of captions, or belongs to another
    bundle or precision.
    """
    arrays = _read(origin, path, "captions")
    lengths = arrays["lengths"]
    if lengths.dtype != np.int32 or lengths.ndim != 1 or (lengths < 1).any():
        raise DataError(f"gallery {path}: lengths", expected="positive int32 in one dimension")
    words = int(lengths.sum(dtype=np.int64)) + 1
    members = {}
    for name, config in origin.configs.items():
        shapes = {
            "word_embeddings": (words, config.embed),
            "text_global": (len(lengths), config.embed),
        }
        members[name] = TextBuffers(**_buffers(origin, path, arrays, name, shapes))
    return make_captions(origin, members, lengths)


def _image_arrays(images: EncodedImages) -> Arrays:
    fetch = images.origin.engine.fetch
    return {
        f"{name}.{part}": fetch(buffer)
        for name, buffers in images.members.items()
        for part, buffer in buffers.named.items()
    }


def _arrays(captions: EncodedCaptions) -> Arrays:
    arrays: Arrays = {"lengths": captions.lengths}
    for name, buffers in captions.members.items():
        arrays[f"{name}.word_embeddings"] = captions.compact_words(name, padded=True)
        arrays[f"{name}.text_global"] = captions.origin.engine.fetch(buffers.text_global)
    return arrays


def _read(origin: Origin, path: PathLike, kind: Kind) -> Arrays:
    """Every array of a gallery file that was written for `origin`."""
    try:
        # Opened here: NumPy would leave a damaged file open.
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            header = json.loads(str(file[_HEADER]))
            _check_header(origin, path, kind, header)
            names = _names(origin, kind)
            return {name: file[name] for name in names}
    except FileNotFoundError as error:
        raise DataError(
            f"there is no gallery {path}", mend="write one with save_encoded"
        ) from error
    except _BROKEN as error:
        raise DataError(
            f"gallery {path} cannot be read",
            expected=f"a file of encoded {kind}",
            got=f"{type(error).__name__}: {error}",
            mend="write it again with save_encoded",
        ) from error


def _check_header(origin: Origin, path: PathLike, kind: Kind, header: Mapping[str, Any]) -> None:
    expected = {
        "format": FORMAT,
        "kind": kind,
        "bundle": origin.bundle,
        "precision": origin.precision,
    }
    for name, value in expected.items():
        if header[name] != value:
            raise DataError(
                f"gallery {path}: {name}",
                expected=value,
                got=header[name],
                mend=f"encode the {kind} again with this bundle and precision",
            )


def _names(origin: Origin, kind: Kind) -> list[str]:
    graph: GraphName = "image_encoder" if kind == "images" else "text_encoder"
    names = [
        f"{member}.{spec.name}"
        for member in origin.configs
        for spec in origin.engine.open(member, graph).signature.outputs
    ]
    return names if kind == "images" else ["lengths", *names]


def _buffers(
    origin: Origin,
    path: PathLike,
    arrays: Arrays,
    member: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Any]:
    """The member's arrays on the device, once their shapes and dtype are as they must be."""
    buffers = {}
    for part, shape in shapes.items():
        array = arrays.pop(f"{member}.{part}")
        if array.shape != shape or array.dtype != origin.dtype:
            raise DataError(
                f"gallery {path}: {member}.{part}",
                expected=f"{origin.dtype} of shape {shape}",
                got=f"{array.dtype} of shape {array.shape}",
            )
        buffers[part] = origin.engine.put(array)
    return buffers
