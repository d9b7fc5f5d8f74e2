"""The seven figures of retrieval, image by image: what a bootstrap draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

KS = (1, 5, 10)
RSUM = "rsum"
FIGURES = (*(f"{arrow} R@{k}" for arrow in ("i→t", "t→i") for k in KS), RSUM)


def recall_by_image(
    image_to_text: Sequence[int] | NDArray[np.int64],
    text_to_image: Sequence[int] | NDArray[np.int64],
) -> NDArray[np.float64]:
    """Every image's share of the figures, percent (images, figures), from ranks that begin at 1.

    `image_to_text` (images,) and `text_to_image` (captions,). An image brings its own query and
    those of its captions, which are not independent of each other: images are what is drawn.
    """
    forward = np.asarray(image_to_text)
    backward = np.asarray(text_to_image).reshape(len(forward), -1)
    columns = [100.0 * (forward <= k) for k in KS]
    columns += [100.0 * (backward <= k).mean(axis=1) for k in KS]
    return np.column_stack([*columns, np.sum(columns, axis=0)])
