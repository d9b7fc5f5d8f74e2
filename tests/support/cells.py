"""A real extractor without a model: the mean colours of the cells of a grid, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.features.base import Features, Picture
from sgraf_deploy.features.decode import RULES
from sgraf_deploy.features.recipe import ModelFile, Pixels, Recipe, Reference, Resizing
from sgraf_deploy.features.reference import expected_reference

DIM = 6
"""The mean of each channel, and its standard deviation."""


class Cells:
    """`side` × `side` cells, each of which is a region: grey levels times `gain`."""

    def __init__(self, side: int = 3, gain: float = 1.0) -> None:
        """Take the number of cells on a side."""
        self.side, self.gain = side, gain
        self.extracted = 0

    @property
    def regions(self) -> int:
        """The cells."""
        return self.side * self.side

    @property
    def img_dim(self) -> int:
        """Two numbers of each channel."""
        return DIM

    @property
    def spec(self) -> Recipe:
        """A recipe that has the gain as its scale."""
        return Recipe(
            schema_version=1,
            kind="grid",
            decoding=RULES,
            models={"backbone": ModelFile("cells.onnx", "0" * 64, 1, "image", ("map",))},
            resizing={"backbone": Resizing(self.side, self.side, "squash", "box", 0)},
            pixels={"backbone": Pixels("RGB", "NCHW", (0.0, 0.0, 0.0), (1 / self.gain,) * 3)},
            skip=0,
            detections=None,
            projection=None,
            regions=self.regions,
            img_dim=DIM,
            reference=_reference(self.side, self.gain),
        )

    def extract(self, images: Sequence[Picture]) -> Features:
        """Extract the regions of pictures of any size."""
        self.extracted += len(images)
        found = [self._cells(image) for image in images]
        regions = np.stack([np.stack(values) for values, _ in found]).astype(np.float32)
        boxes = np.array([boxes for _, boxes in found], np.float32)
        return Features(self.gain * regions, boxes, None)

    def close(self) -> None:
        """Nothing is held."""

    def _cells(self, image: Picture) -> tuple[list[NDArray[np.float64]], list[list[float]]]:
        height, width = image.shape[:2]
        tall, wide = (np.linspace(0, sides, self.side + 1).astype(int) for sides in (height, width))
        values, boxes = [], []
        for top, bottom in pairwise(tall):
            for left, right in pairwise(wide):
                cell = image[top:bottom, left:right].reshape(-1, 3).astype(np.float64)
                values.append(np.concatenate([cell.mean(0), cell.std(0)]))
                boxes.append([left, top, right, bottom])
        return values, boxes


@cache
def _reference(side: int, gain: float) -> Reference:
    return expected_reference(Cells(side, gain))


def write_photos(folder: Path, count: int, size: tuple[int, int] = (12, 9)) -> list[Path]:
    """Write pictures of noise, width × height, each with its own: photo000.png and so on."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
        paths.append(folder / f"photo{number:03d}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths


def other_recipe(recipe: Recipe) -> Recipe:
    """The same but for one thing that decides the output."""
    return replace(recipe, skip=recipe.skip + 1)
