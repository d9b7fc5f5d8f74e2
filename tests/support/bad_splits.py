"""Bad splits, and regions and captions in them, given to the commands that score."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.bad_input import Arguments, Bad
from support.cli_world import IMAGES, World, captions_of
from support.refusals import naming
from support.small_models import SGR, random_regions

from sgraf_deploy.errors import DataError


def evaluation(world: World, *more: object, data: Path | None = None) -> Sequence[object]:
    return ("eval", world.bundle, "--data", data or world.data, "--split", "dev", *more)


def options(*more: object) -> Arguments:
    return lambda world: evaluation(world, *more)


def _data(name: str) -> Arguments:
    return lambda world: ("eval", world.bundle, "--data", world.data, "--split", name)


def _regions(make: Callable[[], NDArray[Any]]) -> Arguments:
    return lambda world: evaluation(world, data=world.precomp(make()))


def _with_nan() -> NDArray[np.float32]:
    regions = random_regions(SGR, IMAGES)
    regions[4, 2, 1] = np.nan
    return regions


def _nan_image(world: World) -> Sequence[object]:
    data = world.precomp(_with_nan())
    return ("rerank", world.bundle, "--data", data, "--split", "dev", "--image", "4")


def _without_captions(world: World) -> Sequence[object]:
    data = world.precomp()
    (data / "dev_caps.txt").unlink()
    return ("rerank", world.bundle, "--data", data, "--split", "dev", "--image", "4")


def _captions(captions: list[str]) -> Arguments:
    return lambda world: evaluation(world, data=world.precomp(captions=captions))


def _not_utf8(world: World) -> Sequence[object]:
    data = world.precomp()
    lines = (data / "dev_caps.txt").read_bytes().split(b"\n")
    lines[7] = b"caf\xe9"
    (data / "dev_caps.txt").write_bytes(b"\n".join(lines))
    return evaluation(world, data=data)


def _truncated(world: World) -> Sequence[object]:
    data = world.precomp()
    content = (data / "dev_ims.npy").read_bytes()
    (data / "dev_ims.npy").write_bytes(content[:-100])
    return evaluation(world, data=data)


REGIONS = ("dev_ims.npy",)
BOTH = ("dev_ims.npy", "dev_caps.txt")

BAD_SPLITS = [
    Bad(
        "no-data",
        lambda world: evaluation(world, data=Path("nowhere")),
        DataError,
        ("nowhere",),
        expected=naming("SPLIT_ims.npy", "SPLIT_caps.txt"),
        got=os.strerror(errno.ENOENT),
    ),
    Bad(
        "unknown-split",
        _data("test"),
        DataError,
        ("small_precomp", "'test'"),
        expected=naming("test_ims.npy", "test_caps.txt"),
        got=naming("dev"),
    ),
    Bad(
        "split-with-a-path",
        _data("../dev"),
        DataError,
        ("'../dev'",),
        got=naming("dev"),
        hint="dev",
    ),
    Bad(
        "captions-too-few",
        _captions(captions_of(IMAGES)[:-1]),
        DataError,
        BOTH,
        expected=naming(5),
        got=naming(6, 29),
    ),
    Bad("caption-blank", _captions(["a", " ", *["b"] * 28]), DataError, ("dev_caps.txt", "line 2")),
    Bad(
        "captions-not-utf-8",
        _not_utf8,
        DataError,
        ("dev_caps.txt", "line 8"),
        expected="UTF-8",
        got=naming("0xe9", 3),
        hint="iconv -f ISO-8859-1 -t UTF-8",
    ),
    Bad(
        "fewer-captions-per-image",
        options("--captions-per-image", 2),
        DataError,
        BOTH,
        expected=naming(2),
        got=naming(6, 30),
        hint="--captions-per-image 5",
    ),
    Bad(
        "one-caption-per-image",
        _captions(captions_of(IMAGES)[:IMAGES]),
        DataError,
        BOTH,
        got=naming(6),
        hint="--captions-per-image 1",
    ),
    Bad(
        "image-without-captions",
        _without_captions,
        DataError,
        ("precomp", "'dev'"),
        expected="dev_caps.txt",
    ),
    Bad(
        "no-images",
        options("--limit-images", 0),
        DataError,
        ("dev",),
        expected=naming(1, 6),
        got=0,
    ),
    Bad(
        "too-many-images",
        options("--limit-images", 7),
        DataError,
        ("dev",),
        expected=naming(1, 6),
        got=7,
    ),
    Bad(
        "folds-that-do-not-divide",
        options("--folds", 4),
        DataError,
        ("folds",),
        expected=naming(6),
        got=4,
    ),
]

BAD_REGIONS = [
    Bad(
        "regions-with-nan",
        _regions(_with_nan),
        DataError,
        ("dev", "image 4", "region 2"),
        got="nan",
    ),
    Bad("nan-in-the-query", _nan_image, DataError, ("--image 4", "region 2"), got="nan"),
    Bad(
        "regions-of-another-width",
        _regions(lambda: random_regions(replace(SGR, img_dim=32), IMAGES)),
        DataError,
        REGIONS,
        expected=naming("(any, 7, 64)"),
        got=(6, 7, 32),
        hint=naming(64),
    ),
    Bad(
        "regions-too-few",
        _regions(lambda: random_regions(replace(SGR, regions=5), IMAGES)),
        DataError,
        REGIONS,
        expected=naming("(any, 7, 64)"),
        got=(6, 5, 64),
        hint=naming(7),
    ),
    Bad(
        "regions-of-another-type",
        _regions(lambda: random_regions(SGR, IMAGES).astype(np.int64)),
        DataError,
        REGIONS,
        expected=naming("float32", "float16"),
        got=naming("<i8", "(6, 7, 64)"),
        hint="x.astype(numpy.float32)",
    ),
    Bad(
        "regions-beyond-float32",
        _regions(lambda: random_regions(SGR, IMAGES).astype(np.float64) * 1e40),
        DataError,
        ("dev", "image 0", "region 0"),
        got=naming("float32"),
    ),
    Bad(
        "regions-transposed",
        _regions(lambda: random_regions(SGR, IMAGES).transpose(0, 2, 1)),
        DataError,
        REGIONS,
        got=(6, 64, 7),
        hint="x.transpose(0, 2, 1)",
    ),
    Bad(
        "regions-truncated",
        _truncated,
        DataError,
        REGIONS,
        expected=naming(10880, "(6, 7, 64)"),
        got=10780,
        hint=naming(),
    ),
]

BAD_DATA = [*BAD_SPLITS, *BAD_REGIONS]
