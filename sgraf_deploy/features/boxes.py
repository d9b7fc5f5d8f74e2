"""Extractor `boxes`: a detector says where to look, a backbone what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError
from sgraf_deploy.features.base import Features, Picture
from sgraf_deploy.features.choice import choose
from sgraf_deploy.features.detections import read_detections
from sgraf_deploy.features.grid import cells_of
from sgraf_deploy.features.projection import Linear
from sgraf_deploy.features.recipe import BACKBONE, DETECTOR, DOCUMENT, Recipe
from sgraf_deploy.features.resize import Frame, model_input, resize
from sgraf_deploy.features.roi_align import roi_align
from sgraf_deploy.features.session import Session

Floats = NDArray[np.float32]

POOL = 7
"""Cells of a pooled box in each direction, as in the heads of most detectors."""

LEAST_SIDE = 1
"""Of a detector's box, in pixels of the photograph: a thinner one has nothing to pool."""


class BoxExtractor:
    """Photographs through a detector and a backbone, one by one; a `RegionExtractor`.

    The regions are pooled by RoiAlign from the backbone's map: the detector's most confident boxes
    first, without duplicates, cut at the edges of what the backbone sees. Where boxes are too few,
    cells of a grid follow, pooled alike, with a confidence of 0.
    """

    def __init__(
        self,
        recipe: Recipe,
        sessions: Mapping[str, Session],
        projection: Linear | None,
    ) -> None:
        """Take opened models by name; `recipe.projection` says what `projection` is."""
        if recipe.detections is None:
            expected = "how the detector says its boxes"
            raise DataError("detections", expected=expected, got="none", hint=DOCUMENT.hint)
        self.spec = recipe
        self._detections = recipe.detections
        self._sessions = dict(sessions)
        self._projection = projection

    @property
    def regions(self) -> int:
        """The number of regions of every photograph."""
        return self.spec.regions

    @property
    def img_dim(self) -> int:
        """The size of one region's features."""
        return self.spec.img_dim

    def extract(self, images: Sequence[Picture]) -> Features:
        """The regions of pictures; InputError where a model gives something else than before."""
        found = [self._extract(image) for image in images]
        if not found:
            shape = (0, self.regions)
            regions, boxes = (np.zeros((*shape, size), np.float32) for size in (self.img_dim, 4))
            return Features(regions, boxes, np.zeros(shape, np.float32))
        regions, boxes, confidence = (np.stack(part) for part in zip(*found, strict=True))
        return Features(regions, boxes, confidence)

    def close(self) -> None:
        """Release the models."""
        for session in self._sessions.values():
            session.close()

    def _extract(self, picture: Picture) -> tuple[Floats, Floats, Floats]:
        """One picture's regions (regions, img_dim), boxes (regions, 4) and confidence (regions)."""
        (output, *_), frame = self._run(BACKBONE, picture)
        pixels, resizing = self.spec.pixels[BACKBONE], self.spec.resizing[BACKBONE]
        cells = cells_of(output, pixels, resizing, self.spec.skip, self.spec.models[BACKBONE].file)
        seen = frame.to_picture(np.array([0, 0, resizing.width, resizing.height]))
        found = self._detect(picture, seen)
        boxes, confidence = choose(*found, seen, self.regions, self._detections.overlap)
        rows, columns, _ = cells.shape
        scale = np.array([columns / resizing.width, rows / resizing.height] * 2)
        regions = roi_align(cells, frame.to_input(boxes) * scale, POOL)
        if self._projection is not None:
            regions = self._projection(regions)
        return regions, boxes, confidence

    def _detect(self, picture: Picture, seen: Floats) -> tuple[Floats, Floats]:
        """The detector's boxes in what the backbone sees, and their confidence."""
        outputs, frame = self._run(DETECTOR, picture)
        resizing = self.spec.resizing[DETECTOR]
        size = (resizing.width, resizing.height)
        name = self.spec.models[DETECTOR].file
        boxes, confidence = read_detections(outputs, self._detections, size, name)
        boxes = np.clip(frame.to_picture(boxes), np.tile(seen[:2], 2), np.tile(seen[2:], 2))
        wide = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(axis=1)
        kept = wide & (confidence > 0)  # Some detectors fill up with boxes of no confidence.
        return boxes[kept], confidence[kept]

    def _run(self, name: str, picture: Picture) -> tuple[list[Floats], Frame]:
        """A model's outputs for a picture, and where the picture lay in its input."""
        made, frame = resize(picture, self.spec.resizing[name])
        model = self.spec.models[name]
        numbers = model_input(made, self.spec.pixels[name])
        return self._sessions[name].run(model.input, numbers, model.outputs), frame
