"""Extractor `boxes`: a detector says where to look, a backbone what is there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError
from sgraf_deploy.features.base import Features, Picture
from sgraf_deploy.features.choice import choose
from sgraf_deploy.features.detections import read_detections
from sgraf_deploy.features.grid import cells_of
from sgraf_deploy.features.one_by_one import OneByOne
from sgraf_deploy.features.projection import Linear
from sgraf_deploy.features.recipe import BACKBONE, DETECTOR, DOCUMENT, Recipe
from sgraf_deploy.features.resize import Frame, resize
from sgraf_deploy.features.roi_align import roi_align
from sgraf_deploy.features.session import Session

Floats = NDArray[np.float32]

POOL = 7
"""Cells of a pooled box in each direction, as in the heads of most detectors."""

LEAST_SIDE = 1
"""Of a detector's box, in pixels of the photograph: a thinner one has nothing to pool."""


class BoxExtractor(OneByOne):
    """Photographs through a detector and a backbone; a `RegionExtractor`.

    The regions are pooled by RoiAlign from the backbone's map: the detector's most confident boxes
    first, without duplicates, cut at the edges of what the backbone sees. Where boxes are too few,
    cells of a grid follow, pooled alike, with a confidence of 0.
    """

    def __init__(
        self, recipe: Recipe, sessions: Mapping[str, Session], projection: Linear | None
    ) -> None:
        """Take opened models by name; DataError for a recipe without detections."""
        if recipe.detections is None:
            expected = "how the detector says its boxes"
            raise DataError("detections", expected=expected, got="none", hint=DOCUMENT.hint)
        super().__init__(recipe, sessions, projection)
        self._detections = recipe.detections

    def _extract(self, picture: Picture) -> Features:
        (output, *_), frame = self._resized(BACKBONE, picture)
        pixels, resizing = self.spec.pixels[BACKBONE], self.spec.resizing[BACKBONE]
        cells = cells_of(output, pixels, resizing, self.spec.skip, self.spec.models[BACKBONE].file)
        seen = frame.to_picture(np.array([0, 0, resizing.width, resizing.height]))
        found = self._detect(picture, seen)
        boxes, confidence = choose(*found, seen, self.regions, self._detections.overlap)
        rows, columns, _ = cells.shape
        scale = np.array([columns / resizing.width, rows / resizing.height] * 2)
        regions = roi_align(cells, frame.to_input(boxes) * scale, POOL)
        return Features(self._projected(regions)[None], boxes[None], confidence[None])

    def _detect(self, picture: Picture, seen: Floats) -> tuple[Floats, Floats]:
        """The detector's boxes in what the backbone sees, and their confidence."""
        outputs, frame = self._resized(DETECTOR, picture)
        resizing = self.spec.resizing[DETECTOR]
        size = (resizing.width, resizing.height)
        name = self.spec.models[DETECTOR].file
        boxes, confidence = read_detections(outputs, self._detections, size, name)
        boxes = np.clip(frame.to_picture(boxes), np.tile(seen[:2], 2), np.tile(seen[2:], 2))
        wide = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(axis=1)
        kept = wide & (confidence > 0)  # Some detectors fill up with boxes of no confidence.
        return boxes[kept], confidence[kept]

    def _resized(self, name: str, picture: Picture) -> tuple[list[Floats], Frame]:
        """A model's outputs for a picture, and where the picture lay in its input."""
        made, frame = resize(picture, self.spec.resizing[name])
        return self._run(name, made), frame
