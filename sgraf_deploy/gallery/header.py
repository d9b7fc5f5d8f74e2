"""A gallery's `gallery.json`: what its records hold, what made them, and which file they are in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sgraf_deploy.config import TensorSpec, signature
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.runtime.encoded import image_row
from sgraf_deploy.runtime.encoding import Encoding, Kind
from sgraf_deploy.schema import Document, check_version, decode, encode, parse

if TYPE_CHECKING:
    from sgraf_deploy.runtime.scorer import Scorer

StoredAs = Literal["stored", "float16"]

SCHEMA_VERSION: Literal[1] = 1
NAME = "gallery.json"
PER_WORD = "word_embeddings"
"""The rows of which a caption has one for each word; of all others it has one."""
ROUNDED = ("region_embeddings", "image_global", "word_embeddings", "text_global")
"""The rows that a gallery of dtype float16 rounds; the products of regions stay float32."""

DEFAULT_MAX_SIZE = 10**12
"""The bytes that a gallery may take; only what is used takes disk space."""
_LEAST_SIZE, _MOST_SIZE = 10**6, 2**46

DOCUMENT = Document(
    "gallery header", DataError, "make it again with `sgraf-deploy index`", most_bytes=2**20
)


@dataclass(frozen=True)
class RowSpec:
    """The shape and the dtype of one image's or caption's row; of `word_embeddings`, a word's."""

    shape: tuple[int, ...]
    dtype: Literal["float32", "float16"]

    def __post_init__(self) -> None:
        if not self.shape or not all(0 < axis < 2**20 for axis in self.shape):
            raise InputError("shape", expected="positive sizes", got=self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of a row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Header:
    """Describes a gallery. `data` is the name of the file with the records, next to the header."""

    schema_version: Literal[1]
    dtype: StoredAs
    encoding: Encoding
    rows: Mapping[str, Mapping[str, RowSpec]]
    """By member and name, in the order of a record."""
    max_size: int
    data: str

    def __post_init__(self) -> None:
        if not _LEAST_SIZE <= self.max_size <= _MOST_SIZE:
            expected = f"{_LEAST_SIZE} … {_MOST_SIZE} bytes"
            raise InputError("max_size", expected=expected, got=self.max_size)
        if Path(self.data).name != self.data or not self.data.endswith(".mdb"):
            raise InputError("data", expected="the name of a file *.mdb", got=repr(self.data))
        if not self.rows or not all(self.rows.values()):
            raise InputError("rows", expected="rows of at least one member", got="none")

    @property
    def kind(self) -> Kind:
        """Whether it holds images or captions."""
        return self.encoding.kind

    @property
    def regions(self) -> int:
        """The regions of an image; 0 for captions."""
        found = next(iter(self.rows.values())).get("region_embeddings")
        return found.shape[0] if found else 0


def encoding_of(scorer: Scorer, kind: Kind) -> Encoding:
    """What a scorer's images or captions are made by."""
    return scorer.image_encoding if kind == "images" else scorer.text_encoding


def header_for(scorer: Scorer, kind: Kind, dtype: StoredAs, max_size: int, data: str) -> Header:
    """The header of a new gallery of what a scorer encodes."""
    return Header(
        SCHEMA_VERSION, dtype, encoding_of(scorer, kind), _rows(scorer, kind, dtype), max_size, data
    )


def read_header(folder: Path) -> Header:
    """Read a gallery's header; DataError if it is missing or not valid."""
    path = folder / NAME
    try:
        content = DOCUMENT.read(path)
    except OSError as error:
        raise DataError(
            f"{folder} is no gallery",
            expected=f"a folder with {NAME}",
            got=error.strerror or type(error).__name__,
            hint="make one with `sgraf-deploy index`",
        ) from error
    try:
        value = parse(content, DOCUMENT)
        check_version(value, "schema_version", (SCHEMA_VERSION,), DOCUMENT)
        return decode(Header, value, DOCUMENT)
    except DataError as error:
        raise error.at(path) from error


def write_header(folder: Path, header: Header) -> None:
    """Write a gallery's header, whole or not at all."""
    write_json(folder / NAME, encode(header), what="gallery header", error=DataError)


def _rows(scorer: Scorer, kind: Kind, dtype: StoredAs) -> dict[str, dict[str, RowSpec]]:
    """What the outputs of the encoders are, of one image, caption or word."""
    rows: dict[str, dict[str, RowSpec]] = {}
    for member, described in scorer.bundle.manifest.members.items():
        if kind == "images":
            graph = scorer.bundle.graph(member, "image_encoder", scorer.precision)
            outputs = graph.signature.outputs
        else:
            outputs = signature("text_encoder", described.config, scorer.precision).outputs
        rows[member] = {spec.name: _row(spec, dtype) for spec in outputs}
    return rows


def _row(spec: TensorSpec, dtype: StoredAs) -> RowSpec:
    if spec.dtype == "int32":
        raise InputError(f"rows of {spec.name}", expected="float32 or float16", got=spec.dtype)
    rounded = dtype == "float16" and spec.name in ROUNDED
    return RowSpec(image_row(spec), "float16" if rounded else spec.dtype)
