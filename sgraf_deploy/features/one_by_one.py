"""What the kinds of extractors share: photographs go through opened models one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.features.base import Features, Picture
from sgraf_deploy.features.projection import Linear
from sgraf_deploy.features.recipe import Recipe
from sgraf_deploy.features.resize import model_input
from sgraf_deploy.features.session import Session

Floats = NDArray[np.float32]


class OneByOne(ABC):
    """A `RegionExtractor` of a recipe with a model or more; a kind says what is in a picture."""

    def __init__(
        self, recipe: Recipe, sessions: Mapping[str, Session], projection: Linear | None
    ) -> None:
        """Take opened models by name; `recipe.projection` says what `projection` is."""
        self.spec = recipe
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
        return Features.joined(found) if found else self._nothing()

    def close(self) -> None:
        """Release the models."""
        for session in self._sessions.values():
            session.close()

    @abstractmethod
    def _extract(self, picture: Picture) -> Features:
        """The features of one picture, with an axis of one image."""

    def _nothing(self) -> Features:
        """The features of no picture."""
        shape = (0, self.regions)
        regions, boxes = (np.zeros((*shape, size), np.float32) for size in (self.img_dim, 4))
        confidence = None if self.spec.detections is None else np.zeros(shape, np.float32)
        return Features(regions, boxes, confidence)

    def _run(self, name: str, made: Picture) -> list[Floats]:
        """A model's outputs for a resized picture."""
        model = self.spec.models[name]
        numbers = model_input(made, self.spec.pixels[name])
        return self._sessions[name].run(model.input, numbers, model.outputs)

    def _projected(self, rows: Floats) -> Floats:
        """Rows (regions, channels) after the projection, where the recipe has one."""
        return rows if self._projection is None else self._projection(rows)
