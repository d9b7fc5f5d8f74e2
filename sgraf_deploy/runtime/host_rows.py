"""Encoded images and captions from arrays on the host, as a store of them keeps these."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import TensorSpec
from sgraf_deploy.engines.buffers import Array
from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime.encoded import (
    EncodedCaptions,
    EncodedImages,
    ImageBuffers,
    TextBuffers,
    image_row,
    make_captions,
)
from sgraf_deploy.runtime.origin import Origin

HostRows = Mapping[str, Mapping[str, NDArray[Any]]]
"""Arrays by member and name, with a row for each image, caption or word."""


def images_from_host(origin: Origin, arrays: HostRows) -> EncodedImages:
    """Make encoded images of rows as `EncodedImages.to_host` gives them; see `Scorer`."""
    _check_keys(arrays, origin.configs, "members")
    count: int | None = None
    members = {}
    for member in origin.configs:
        specs = {spec.name: spec for spec in _image_specs(origin, member)}
        given = arrays[member]
        _check_keys(given, specs, f"arrays of member {member}")
        for name, spec in specs.items():
            array = given[name]
            if count is None:
                count = len(array) if getattr(array, "ndim", 0) else 0
            dtypes = origin.image_dtypes(member, spec)
            _check_array(f"{member}.{name}", array, dtypes, (count, *image_row(spec)))
        put = origin.engine.put
        members[member] = ImageBuffers(**{name: put(given[name]) for name in specs})
    return EncodedImages(origin, members, count or 0)


def captions_from_host(origin: Origin, lengths: object, arrays: HostRows) -> EncodedCaptions:
    """Make encoded captions of rows as `EncodedCaptions.to_host` gives them; see `Scorer`."""
    checked = _lengths(lengths)
    _check_keys(arrays, origin.configs, "members")
    rows = {"word_embeddings": int(checked.sum(dtype=np.int64)), "text_global": len(checked)}
    members = {}
    for member, config in origin.configs.items():
        given = arrays[member]
        _check_keys(given, rows, f"arrays of member {member}")
        for name, count in rows.items():
            shape = (count, config.embed)
            _check_array(f"{member}.{name}", given[name], (origin.dtype,), shape)
        padding = np.zeros((1, config.embed), origin.dtype)
        words = np.concatenate([given["word_embeddings"], padding])
        put = origin.engine.put
        members[member] = TextBuffers(put(words), put(given["text_global"]))
    return make_captions(origin, members, checked)


def _image_specs(origin: Origin, member: str) -> tuple[TensorSpec, ...]:
    return origin.engine.open(member, "image_encoder").signature.outputs


def _lengths(lengths: object) -> NDArray[np.int32]:
    given = np.asarray(lengths)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        got = f"{given.dtype} of shape {given.shape}"
        raise DataError("lengths", expected="an integer for each caption", got=got)
    highest = np.iinfo(np.int32).max
    wrong = (given < 1) | (given > highest)
    if wrong.any():
        got = given[int(np.argmax(wrong))]
        raise DataError("lengths", expected=f"1 … {highest}", got=got)
    return np.array(given, np.int32)  # a copy, as captions forbid writing to theirs


def _check_keys(given: Mapping[str, object], wanted: Collection[str], what: str) -> None:
    if set(given) != set(wanted):
        expected, got = (", ".join(sorted(names)) for names in (wanted, given))
        raise DataError(what, expected=expected, got=got or "none")


def _check_array(
    name: str, array: object, dtypes: Collection[np.dtype[Any]], shape: tuple[int, ...]
) -> None:
    expected = f"{' or '.join(map(str, dtypes))} of shape {shape}"
    if not isinstance(array, np.ndarray):
        raise DataError(name, expected=expected, got=type(array).__name__)
    found: Array = array
    if found.dtype not in dtypes or found.shape != shape:
        raise DataError(name, expected=expected, got=f"{found.dtype} of shape {found.shape}")
