"""Region features of synthetic scenes: noisy views of the objects, and distractors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.synthetic.scenes import (
    COLOURS,
    COLUMNS,
    MATERIALS,
    MOST_OBJECTS,
    ROWS,
    SHAPES,
    SIZES,
    Scene,
)

Floats = NDArray[np.float32]

VIEWS = 6
"""The number of regions on each object; an image's remaining regions are distractors."""

NORM = 4.0
"""The norm of every region, similar to that of a convolutional network's pooled features."""

_KINDS = (len(SHAPES), len(COLOURS), len(SIZES), len(MATERIALS))
_BACKGROUNDS = 6
_BOUND = 0.15
"""A view lacks an attribute with this probability, and has it with weight 0.4 … 1 otherwise."""
_PLACE = 0.8
"""The weight of a region's place in its feature, where the codes of attributes have norm 1."""


class Codebook:
    """Random codes of norm 1 for attributes, backgrounds and directions, given by a seed."""

    def __init__(self, img_dim: int, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64([seed, 0xC0DE]))
        self.attributes = [_unit(rng, count, img_dim) for count in _KINDS]
        self.backgrounds = _unit(rng, _BACKGROUNDS, img_dim)
        self.places = _unit(rng, 4, img_dim)

    def place(self, columns: Floats, rows: Floats) -> Floats:
        """Map places (…,), in cells, to (…, img_dim): linear and square in both directions."""
        x, y = 2 * columns / (COLUMNS - 1) - 1, 2 * rows / (ROWS - 1) - 1
        terms = np.stack([x, y, x * x - 0.5, y * y - 0.5], axis=-1)
        return (_PLACE * (terms @ self.places)).astype(np.float32)


def render_regions(
    scenes: Sequence[Scene], codebook: Codebook, regions: int, noise: float, seed: int
) -> NDArray[np.float16]:
    """Features (images, regions, img_dim) float16 of norm 4, in random order per image.

    `noise` is the expected norm of the Gaussian noise on a region, where codes have norm 1. The
    values that are drawn for an image depend on the number of images.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 0xF00D]))
    img_dim = codebook.backgrounds.shape[1]
    objects = _objects(scenes)  # (images, objects, 6), -1 where there is none
    owner = np.repeat(np.arange(MOST_OBJECTS), VIEWS)[:regions]
    owner = np.concatenate([owner, np.full(regions - len(owner), -1)])  # (regions,)
    held = np.where(owner[None, :, None] < 0, -1, objects[:, owner])  # (images, regions, 6)
    shape = held.shape[:2]
    real = held[..., 0] >= 0
    # A distractor has a single weak attribute of a random kind, at a random place.
    stray = rng.integers(0, 4, shape)
    features: Floats = np.zeros((*shape, img_dim), dtype=np.float32)
    for kind, codes in enumerate(codebook.attributes):
        random = rng.integers(0, len(codes), shape)
        value = np.where(real, held[..., kind], random)
        seen = np.where(rng.random(shape) < _BOUND, 0.0, 0.4 + 0.6 * rng.random(shape))
        weight = np.where(real, seen, np.where(stray == kind, 0.5 * rng.random(shape), 0.0))
        features += weight[..., None].astype(np.float32) * codes[value]
    background = codebook.backgrounds[rng.integers(0, _BACKGROUNDS, shape)]
    features += np.where(real, 0.2, 1.0)[..., None].astype(np.float32) * background
    jitter = 0.25 * rng.standard_normal((*shape, 2), dtype=np.float32)
    anywhere = rng.random((*shape, 2), dtype=np.float32) * np.array([COLUMNS - 1, ROWS - 1])
    place = np.where(real[..., None], held[..., 4:6] + jitter, anywhere).astype(np.float32)
    features += codebook.place(place[..., 0], place[..., 1])
    scale = np.float32(noise / np.sqrt(img_dim))
    features += scale * rng.standard_normal(features.shape, dtype=np.float32)
    features *= NORM / np.linalg.norm(features, axis=-1, keepdims=True)
    order = np.argsort(rng.random(shape), axis=1)
    return np.take_along_axis(features, order[..., None], axis=1).astype(np.float16)


def _objects(scenes: Sequence[Scene]) -> NDArray[np.int64]:
    """(images, objects, 6): the fields of every object, -1 where a scene has fewer."""
    table = np.full((len(scenes), MOST_OBJECTS, 6), -1, dtype=np.int64)
    for row, scene in enumerate(scenes):
        for place, item in enumerate(scene.objects):
            table[row, place] = (
                *(item.shape, item.colour, item.size, item.material),
                *(item.column, item.row),
            )
    return table


def _unit(rng: np.random.Generator, count: int, img_dim: int) -> Floats:
    codes = rng.standard_normal((count, img_dim), dtype=np.float32)
    unit: Floats = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    return unit
