"""The recipe of an extractor: all that decides its output, as frozen types and as JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sgraf_deploy.errors import DataError
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.schema import Document, check_version, decode, encode, join, parse, shown

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Fit = Literal["squash", "crop", "pad"]
Kind = Literal["grid", "boxes"]
Order = Literal["RGB", "BGR"]
Layout = Literal["NCHW", "NHWC"]
BoxOrder = Literal["xyxy", "yxyx", "cxcywh"]
Unit = Literal["pixels", "fraction"]

SCHEMA_VERSION: Literal[1] = 1
FILE = "extractor.json"
BACKBONE, DETECTOR, PROJECTION = "backbone", "detector", "projection"
MODELS: Mapping[Kind, tuple[str, ...]] = {"grid": (BACKBONE,), "boxes": (DETECTOR, BACKBONE)}
"""The names of the models of each kind."""

MOST_OUTPUTS: Mapping[str, int] = {BACKBONE: 1, DETECTOR: 2}
"""How many outputs of each model are read at most."""

LARGEST_SIDE = 8192
"""The longest side of a model's input, in pixels."""

DOCUMENT = Document(
    FILE,
    DataError,
    "write it with `sgraf-deploy features` or `sgraf-deploy export --extractor`",
    most_bytes=128 << 20,
)

_NOT_COMPARED = {"reference", "file"}
"""Fields that follow from the others, or change nothing."""


@dataclass(frozen=True)
class Decoding:
    """How files become pictures: the version of the rules of `decode`, which any change raises."""

    rules: Literal[1]


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

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height)):
            _check(1 <= value <= LARGEST_SIDE, name, f"1 … {LARGEST_SIDE} pixels", value)
        _check(0 <= self.fill <= 255, "fill", "a grey level of 0 … 255", self.fill)


@dataclass(frozen=True)
class Pixels:
    """How grey levels 0 … 255 become the model's numbers: (level − mean) / scale, by channel.

    `order` is that of the channels, `layout` that of the axes, of a map that comes out as well;
    `mean` and `scale` are in grey levels and in the order of the channels.
    """

    order: Order
    layout: Layout
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]

    def __post_init__(self) -> None:
        _check(all(one != 0 for one in self.scale), "scale", "numbers but zero", self.scale)


@dataclass(frozen=True)
class ModelFile:
    """A model: its file's name, hash and size, and which of its tensors are read.

    Hash and size are those of the model as one file, with the tensors inside that were in others.
    """

    file: str
    sha256: str
    bytes: int
    input: str
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_file(self.file, self.sha256, self.bytes)
        _check(len(self.outputs) > 0, "outputs", "at least one", "none")


@dataclass(frozen=True)
class Projection:
    """A projection's file: `mean` and `matrix`, and maybe `row_norm` and `rounding`."""

    file: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        _check_file(self.file, self.sha256, self.bytes)


@dataclass(frozen=True)
class Detections:
    """How a detector says its boxes, and which of them are the same one.

    The four numbers are the corners, or the centre and the size, in pixels of the detector's input
    or in fractions of its sides. Of boxes whose intersection over union exceeds `overlap` the most
    confident one counts, of whatever class.
    """

    order: BoxOrder
    unit: Unit
    overlap: float

    def __post_init__(self) -> None:
        _check(0 <= self.overlap <= 1, "overlap", "0 … 1", self.overlap)


@dataclass(frozen=True)
class Reference:
    """The regions of the picture that `reference.reference_picture` makes, in base64.

    `shape` is (regions, img_dim); each region is at length 1, in float16 and little-endian order;
    `picture` is the version of the picture.
    """

    picture: int
    shape: tuple[int, int]
    regions: str


@dataclass(frozen=True)
class Recipe:
    """See the module. `models` are called `backbone` and, for boxes, `detector`.

    `resizing` and `pixels` are by the same names; `regions` and `img_dim` are what comes out;
    `skip` is how many tokens in front are left out; `detections` is None for a grid. `reference` is
    None, and `img_dim` 0, only while the recipe is being made.
    """

    schema_version: Literal[1]
    kind: Kind
    decoding: Decoding
    models: Mapping[str, ModelFile]
    resizing: Mapping[str, Resizing]
    pixels: Mapping[str, Pixels]
    skip: int
    detections: Detections | None
    projection: Projection | None
    regions: int
    img_dim: int
    reference: Reference | None

    def __post_init__(self) -> None:
        names = set(MODELS[self.kind])
        for field in ("models", "resizing", "pixels"):
            got = set(getattr(self, field))
            _check(got == names, field, " and ".join(sorted(names)), ", ".join(sorted(got)))
        for name, most in MOST_OUTPUTS.items():
            outputs = self.models[name].outputs if name in names else ()
            _check(len(outputs) <= most, f"models.{name}.outputs", f"at most {most}", outputs)
        for field in ("skip", "regions", "img_dim"):
            _check(getattr(self, field) >= 0, field, "no negative number", getattr(self, field))
        has = self.detections is not None
        _check(has == (self.kind == "boxes"), "detections", f"those of {self.kind}", has)
        if self.reference is not None:
            made, said = (self.regions, self.img_dim), self.reference.shape
            _check(made == said and min(made) > 0, "reference.shape", made, said)

    @property
    def files(self) -> dict[str, ModelFile | Projection]:
        """The files that the recipe names: its models by name, and the `PROJECTION` if any."""
        found: dict[str, ModelFile | Projection] = {**self.models}
        return found if self.projection is None else {**found, PROJECTION: self.projection}

    @property
    def sha256(self) -> str:
        """The sha256 of all that decides the output, in hexadecimal digits; no names of files."""
        text = json.dumps(dict(_compared(encode(self))), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_recipe(path: Path) -> Recipe:
    """Read an `extractor.json`; DataError, with the path of the field, for anything else."""
    try:
        content = DOCUMENT.read(path)
    except OSError as error:
        got = error.strerror or error
        raise DataError(f"recipe {path} cannot be read", got=got, hint=DOCUMENT.hint) from error
    try:
        value = parse(content, DOCUMENT)
        check_version(value, "schema_version", (SCHEMA_VERSION,), DOCUMENT)
        recipe = decode(Recipe, value, DOCUMENT)
        _check(recipe.reference is not None, "reference", "the reference picture's regions", "none")
    except DataError as error:
        raise error.at(path) from error
    return recipe


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write `extractor.json` into a folder; DataError where that cannot be done."""
    write_json(folder / FILE, encode(recipe), what="recipe", error=DataError)


def differences(a: Recipe, b: Recipe) -> list[str]:
    """What decides the output and differs, as lines like `pixels.backbone.order: "RGB", "BGR"`."""
    left, right = (dict(_compared(encode(one))) for one in (a, b))
    return [
        f"{path}: {shown(left.get(path))}, {shown(right.get(path))}"
        for path in dict.fromkeys((*left, *right))
        if left.get(path) != right.get(path)
    ]


def _compared(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The paths and values of an encoded recipe that decide the output."""
    if not isinstance(value, dict):
        yield path, value
        return
    for name, item in value.items():
        if name not in _NOT_COMPARED:
            yield from _compared(item, join(path, name))


def _check_file(file: str, sha256: str, size: int) -> None:
    plain = file.isprintable() and file not in {"", ".", ".."} and not set(file) & set("/\\:")
    _check(plain, "file", "the plain name of a file", file)
    _check(re.fullmatch("[0-9a-f]{64}", sha256) is not None, "sha256", "64 digits", sha256)
    _check(size > 0, "bytes", "a size", size)


def _check(holds: bool, field: str, expected: object, got: object) -> None:
    if not holds:
        raise DataError(field, expected=expected, got=shown(got), hint=DOCUMENT.hint)
