"""The options of a SPEC: how photographs go into a model, and what is read of what comes out.

    size=N | WxH                the input's side, or width and height, where the model has none
    fit=squash | crop | pad     default squash: the whole photograph, whatever its shape
    filter=bicubic | …          Pillow's filters; default bicubic
    fill=LEVEL                  the grey level of what `pad` adds; default 0
    preset=NAME                 mean and scale of `PRESETS`; or say them yourself, in grey levels:
    mean=A | R/G/B, scale=A | R/G/B
    order=RGB | BGR             default RGB
    layout=NCHW | NHWC          default: the one that the model's input has
    input=NAME, output=NAME     of tensors; default the only input, the first output
    skip=N                      tokens in front that are no cells, such as the class token
    regions=R                   for boxes, how many; for a grid, how many there must be
    projection=FILE.npz         applied to every region

For `boxes` the same with `detector.` in front say how photographs go into the detector; there
`detector.output=BOXES/SCORES`, `detector.boxes=xyxy | yxyx | cxcywh` and
`detector.unit=pixels | fraction` say what comes out, and `detector.overlap=IOU`, default 0.7, from
which intersection over union two boxes are the same. Either preset or mean and scale are needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar, get_args

from sgraf_deploy.errors import InputError
from sgraf_deploy.features.models import Model, Tensor
from sgraf_deploy.features.recipe import (
    BoxOrder,
    Detections,
    Filter,
    Fit,
    Layout,
    ModelFile,
    Order,
    Pixels,
    Resizing,
    Unit,
)

Choice = TypeVar("Choice", bound=str)
Three = tuple[float, float, float]


def _levels(*fractions: float) -> Three:
    first, second, third = (round(one * 255, 6) for one in fractions)
    return first, second, third


_IMAGENET = (_levels(0.485, 0.456, 0.406), _levels(0.229, 0.224, 0.225))
PRESETS: Mapping[str, tuple[Three, Three]] = {
    "imagenet": _IMAGENET,
    "dino": _IMAGENET,
    "clip": (
        _levels(0.48145466, 0.4578275, 0.40821073),
        _levels(0.26862954, 0.26130258, 0.27577711),
    ),
    "siglip": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and scale in grey levels; `siglip` gives −1 … 1, `unit` 0 … 1 and `none` 0 … 255."""

OVERLAP = 0.7
"""Where detectors drop duplicates of whatever class, as Faster R-CNN's proposals (Ren et al.)."""

MODEL_OPTIONS = frozenset(
    {"size", "fit", "filter", "fill", "preset", "mean", "scale"}
    | {"order", "layout", "input", "output"}
)
SHARED_OPTIONS = frozenset({"skip", "regions", "projection", "recipe"})
DETECTOR_OPTIONS = MODEL_OPTIONS | {"boxes", "unit", "overlap"}
PREFIX = "detector."


class Options:
    """The options of a SPEC, of which each is asked for by its name."""

    def __init__(self, values: Mapping[str, str], prefix: str = "") -> None:
        """Take options by their full names; `prefix` is put in front of names asked for."""
        self._values, self._prefix = values, prefix

    def of_detector(self) -> Options:
        """The same options, asked for by their names without `PREFIX`."""
        return Options(self._values, PREFIX)

    @property
    def given(self) -> list[str]:
        """The full names of all options."""
        return list(self._values)

    def full(self, name: str) -> str:
        """The full name of an option."""
        return self._prefix + name

    def text(self, name: str) -> str | None:
        """An option's value, or None."""
        return self._values.get(self.full(name))

    def choice(self, name: str, choices: tuple[Choice, ...], default: Choice) -> Choice:
        """One of a few words; InputError for another one."""
        value = self.text(name)
        for one in choices:
            if value == one:
                return one
        if value is not None:
            raise self.wrong(name, ", ".join(choices))
        return default

    def count(self, name: str, default: int, most: int = 1_000_000) -> int:
        """A number of 0 … `most`; InputError for anything else."""
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch("[0-9]{1,7}", value) or int(value) > most:
            raise self.wrong(name, f"0 … {most}")
        return int(value)

    def fraction(self, name: str, default: float) -> float:
        """A number of 0 … 1; InputError for anything else."""
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch("[01]|0?[.][0-9]{1,6}", value):
            raise self.wrong(name, "0 … 1")
        return float(value)

    def three(self, name: str) -> Three:
        """One number for all channels, or three; InputError for anything else."""
        try:
            numbers = [float(part) for part in (self.text(name) or "").split("/")]
        except ValueError:
            numbers = []
        if len(numbers) == 1:
            numbers *= 3
        finite = all(abs(one) < 1e6 for one in numbers) and (name == "mean" or 0 not in numbers)
        if len(numbers) != 3 or not finite:
            not_zero = "" if name == "mean" else ", none of which is 0"
            raise self.wrong(name, f"a number, or three: RED/GREEN/BLUE{not_zero}")
        return numbers[0], numbers[1], numbers[2]

    def wrong(self, name: str, expected: str) -> InputError:
        """The error for a value that cannot be used."""
        got = self.text(name)
        what = f"extractor: {self.full(name)}"
        return InputError(what, expected=expected, got="none" if got is None else repr(got))


def parse_options(parts: list[str], kind: str) -> Options:
    """Read `NAME=VALUE` parts; InputError for a name that is unknown or given twice."""
    known = MODEL_OPTIONS | SHARED_OPTIONS
    if kind == "boxes":
        known |= {PREFIX + name for name in DETECTOR_OPTIONS}
    values: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if name not in known or not equals or not value or name in values:
            raise InputError(
                f"extractor {kind}: option {part!r}",
                expected=f"NAME=VALUE, once each, of {', '.join(sorted(known))}",
            )
        values[name] = value
    return Options(values)


def model_file(model: Model, options: Options, outputs: int = 1) -> ModelFile:
    """The model, and which of its tensors are read: the named ones, or the first `outputs`."""
    named = options.text("output")
    if named is None:
        count = max(min(outputs, len(model.outputs)), 1)
        found = [model.output(place=place).name for place in range(count)]
    else:
        found = [model.output(name).name for name in named.split("/")]
        if len(found) > outputs:
            raise options.wrong("output", f"at most {outputs}")
    tensor = model.photo_input(options.text("input"))
    return ModelFile(model.name, model.sha256, len(model.content), tensor.name, tuple(found))


def model_pixels(tensor: Tensor, options: Options) -> Pixels:
    """How grey levels become the numbers of an input."""
    has = {"NCHW": tensor.axes[1], "NHWC": tensor.axes[3]}
    likely: Layout = "NHWC" if has["NHWC"] == 3 and has["NCHW"] != 3 else "NCHW"
    layout = options.choice("layout", get_args(Layout), likely)
    if has[layout] not in (None, 3):
        raise InputError(
            f"extractor: channels of input {tensor.name}, {layout}", expected=3, got=tensor
        )
    order = options.choice("order", get_args(Order), "RGB")
    mean, scale = _mean_and_scale(options)
    if options.text("preset") is not None and order == "BGR":
        mean, scale = (mean[2], mean[1], mean[0]), (scale[2], scale[1], scale[0])
    return Pixels(order, layout, mean, scale)


def _mean_and_scale(options: Options) -> tuple[Three, Three]:
    given = [name for name in ("preset", "mean", "scale") if options.text(name) is not None]
    if given == ["preset"]:
        for name, values in PRESETS.items():
            if options.text("preset") == name:
                return values
        raise options.wrong("preset", ", ".join(PRESETS))
    if given != ["mean", "scale"]:
        raise InputError(
            f"extractor: {options.full('preset')}",
            expected=f"one of {', '.join(PRESETS)}; or mean and scale, in grey levels",
            got=" and ".join(given) or "none",
        )
    return options.three("mean"), options.three("scale")


def model_resizing(tensor: Tensor, pixels: Pixels, options: Options) -> Resizing:
    """How a picture becomes an input, whose size the model says or an option."""
    rows, columns = tensor.axes[2:] if pixels.layout == "NCHW" else tensor.axes[1:3]
    width, height = _size(options) or (columns, rows)
    if width is None or height is None:
        raise options.wrong("size", f"N or WxH, as the model leaves it open: {tensor}")
    if columns not in (None, width) or rows not in (None, height):
        raise options.wrong("size", f"{columns}x{rows}, as the model says")
    fit = options.choice("fit", get_args(Fit), "squash")
    resampling = options.choice("filter", get_args(Filter), "bicubic")
    return Resizing(width, height, fit, resampling, options.count("fill", 0, most=255))


def _size(options: Options) -> tuple[int, int] | None:
    value = options.text("size")
    if value is None:
        return None
    match = re.fullmatch("([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?", value)
    if match is None:
        raise options.wrong("size", "N or WxH, in pixels")
    return int(match[1]), int(match[2] or match[1])


def detections_of(options: Options) -> Detections:
    """How a detector says its boxes; `options` are those of the detector."""
    order = options.choice("boxes", get_args(BoxOrder), "xyxy")
    unit = options.choice("unit", get_args(Unit), "pixels")
    return Detections(order, unit, options.fraction("overlap", OVERLAP))
