"""What the tests of the runtime share besides fixtures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.closeness import assert_close, assert_similar
from support.fake_engine import FakeEngine

from sgraf_deploy.runtime import Scorer

CAPTIONS = [
    "a dog runs on the beach",
    "dog",
    "the red cat sleeps on the red sofa on the beach",
    "a cat sleeps",
    "the dog runs",
    "a red unknownword",
    "a cat",
]


DEPTH = 40
"""Terms that the small bundles' graphs and the fake engine sum one after the other: a region's 6
features, 4 regions, 9 dimensions of a word twice, 12 words."""

CONDITION = 4.0
"""They multiply by the sum of 4 regions, not by their mean."""

HALF_DEPTH = 1
"""Embeddings alone are rounded to float16."""


def assert_logits(found: Any, expected: Any, precision: str = "fp32") -> None:
    """Logits of a small bundle, as close as rounding allows; `precision` is the embeddings'."""
    if precision == "fp32":
        assert_close(found, expected, DEPTH, condition=CONDITION)
    else:
        assert_close(found, expected, HALF_DEPTH, np.float16)


def assert_similarities(found: Any, expected: Any, precision: str = "fp32") -> None:
    """The same of similarities."""
    if precision == "fp32":
        assert_similar(found, expected, DEPTH, condition=CONDITION)
    else:
        assert_similar(found, expected, HALF_DEPTH, np.float16)


@dataclass(frozen=True)
class Faked:
    """A scorer and the fake engine below it."""

    scorer: Scorer
    engine: FakeEngine


def make_regions(images: int, seed: int = 0) -> NDArray[np.float32]:
    """Random features (images, 4, 6) float32."""
    return np.random.default_rng(seed).normal(size=(images, 4, 6)).astype(np.float32)


def make_token_ids(captions: int, seed: int = 0, longest: int = 9) -> list[NDArray[Any]]:
    """Random captions of 1 … longest words, none of them `<pad>`."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(1, 14, size).astype(np.int32)
        for size in rng.integers(1, longest + 1, captions)
    ]


def one_by_one(scorer: Scorer, regions: NDArray[Any], captions: Any) -> NDArray[np.float32]:
    """The similarities of every pair, each encoded and scored quite alone."""
    return np.array(
        [
            [scorer.score(regions[i : i + 1], [caption])[0, 0] for caption in captions]
            for i in range(len(regions))
        ],
        dtype=np.float32,
    )
