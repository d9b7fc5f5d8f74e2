"""The recipe of an extractor: all that decides its output, as frozen types and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Fit = Literal["squash", "crop", "pad"]
Kind = Literal["grid", "boxes"]

SCHEMA_VERSION = 1
FILE = "extractor.json"


@dataclass(frozen=True)
class Decoding:
    """How files become pictures; `draft` lets JPEG decode at a smaller size, which is faster."""

    draft: bool


@dataclass(frozen=True)
class Resizing:
    """How a picture becomes the model's input of `width` × `height` pixels.

    `squash` ignores the aspect ratio, `crop` makes the shorter side fit and takes the middle, `pad`
    makes the longer side fit and fills the rest, right and below, with `fill` in grey levels.
    `filter` is Pillow's.
    """

    width: int
    height: int
    fit: Fit
    filter: Filter
    fill: int


@dataclass(frozen=True)
class Pixels:
    """How grey levels 0 … 255 become the model's numbers: (level − mean) / scale, by channel.

    `order` is that of the channels, `layout` that of the axes; `mean` and `scale` are in the order
    of the channels.
    """

    order: Literal["RGB", "BGR"]
    layout: Literal["NCHW", "NHWC"]
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]


@dataclass(frozen=True)
class ModelFile:
    """A model: its file's name, hash and size, and which of its tensors are read."""

    file: str
    sha256: str
    bytes: int
    input: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Projection:
    """A projection's file: `mean` and `matrix`, and maybe `row_norm` and `rounding`."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Reference:
    """The regions of the picture that `picture.reference_picture` makes, in base64.

    `shape` is (regions, img_dim), the values are float16 in little-endian order; `picture` is the
    version of the picture.
    """

    picture: int
    shape: tuple[int, int]
    regions: str


@dataclass(frozen=True)
class Recipe:
    """See the module. `models` are called `backbone` and, for boxes, `detector`.

    `regions` and `img_dim` are what comes out; `skip` how many tokens in front are left out;
    `reference` is None only while the recipe is being made.
    """

    schema_version: int
    kind: Kind
    decoding: Decoding
    models: Mapping[str, ModelFile]
    resizing: Mapping[str, Resizing]
    pixels: Mapping[str, Pixels]
    skip: int
    projection: Projection | None
    regions: int
    img_dim: int
    reference: Reference | None
