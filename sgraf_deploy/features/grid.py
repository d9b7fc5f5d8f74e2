"""Extractor `grid`: the cells of a backbone's map, or its tokens, are the regions."""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import InputError
from sgraf_deploy.features.base import Features, Picture
from sgraf_deploy.features.one_by_one import OneByOne
from sgraf_deploy.features.recipe import BACKBONE, Pixels, Resizing
from sgraf_deploy.features.resize import Frame, resize


class GridExtractor(OneByOne):
    """Photographs through a backbone; a `RegionExtractor`.

    The regions are the cells, row by row from the top left; a region's box is its cell, as it lies
    in the photograph.
    """

    def _extract(self, picture: Picture) -> Features:
        made, frame = resize(picture, self.spec.resizing[BACKBONE])
        regions, boxes = self.pool(self.run(made), frame)
        return Features(regions[None], boxes[None], None)

    def run(self, made: Picture) -> NDArray[np.float32]:
        """The backbone's output for a resized picture, as the model gives it."""
        (found,) = self._run(BACKBONE, made)
        return found

    def pool(
        self, output: NDArray[np.float32], frame: Frame
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The regions and boxes in an output of the backbone for a picture that lies in `frame`."""
        resizing, pixels = self.spec.resizing[BACKBONE], self.spec.pixels[BACKBONE]
        name = self.spec.models[BACKBONE].file
        cells = cells_of(output, pixels, resizing, self.spec.skip, name)
        rows = self._projected(cells.reshape(-1, cells.shape[-1]))
        return rows, cell_boxes(cells.shape[:2], resizing, frame)


def cells_of(
    output: NDArray[np.float32], pixels: Pixels, resizing: Resizing, skip: int, name: str
) -> NDArray[np.float32]:
    """A map, or tokens but the first `skip`, as cells (rows, columns, channels).

    `output` is (1, channels, rows, columns), with the channels last where `pixels.layout` says so,
    or (1, tokens, channels). Raises InputError for any other shape, for a map that has the input's
    shape in the other layout alone, and for tokens that make no grid of the input's shape.
    """
    shape = "(" + ", ".join(map(str, output.shape)) + ")"
    cells: NDArray[np.float32]
    if output.ndim == 4 and len(output) == 1 and not skip and 0 not in output.shape:
        cells, other = output[0], output[0].transpose(1, 2, 0)
        if pixels.layout == "NCHW":
            cells, other = other, cells
        if _has_shape(other, resizing) and not _has_shape(cells, resizing):
            raise InputError(
                f"output of {name}",
                expected=f"a map in the layout of the input, {pixels.layout}",
                got=shape,
                hint="export the model with the axes of input and output in the same order",
            )
        return cells
    if output.ndim != 3 or len(output) != 1 or 0 in output.shape:
        raise InputError(
            f"output of {name}",
            expected="a map (1, channels, rows, columns) or tokens (1, tokens, channels)",
            got=f"{shape}, skip={skip}",
            hint="name another output: output=NAME",
        )
    tokens = output.shape[1] - skip
    rows, columns = grid_of(tokens, resizing)
    if tokens < 1 or rows * columns != tokens:
        rows, columns = grid_of(output.shape[1], resizing)
        likely = output.shape[1] - rows * columns
        raise InputError(
            f"tokens of {name}",
            expected=f"a grid of the shape of {resizing.width} × {resizing.height} pixels",
            got=f"{tokens} tokens",
            hint=f"leave those in front out that are no cells: skip={likely}",
        )
    cells = output[0, skip:].reshape(rows, columns, -1)
    return cells


def _has_shape(cells: NDArray[np.float32], resizing: Resizing) -> bool:
    """Whether the cells (rows, columns, channels) are squares of the input's pixels."""
    rows, columns = cells.shape[:2]
    return bool(rows * resizing.width == columns * resizing.height)


def grid_of(tokens: int, resizing: Resizing) -> tuple[int, int]:
    """Rows and columns of the largest grid of at most so many tokens with the input's shape."""
    common = np.gcd(resizing.width, resizing.height).item()
    across, down = resizing.width // common, resizing.height // common
    times = isqrt(max(tokens, 0) // (across * down))
    return times * down, times * across


def cell_boxes(grid: tuple[int, ...], resizing: Resizing, frame: Frame) -> NDArray[np.float32]:
    """The boxes (cells, 4) of a grid's cells, row by row, in the picture's pixels."""
    rows, columns = grid
    y, x = np.divmod(np.arange(rows * columns), columns)
    corners = np.stack([x, y, x + 1, y + 1], axis=1).astype(np.float64)
    sizes = np.array([resizing.width / columns, resizing.height / rows] * 2)
    return frame.to_picture(corners * sizes)
