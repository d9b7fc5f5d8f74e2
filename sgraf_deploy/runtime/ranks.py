"""Ranks of ground truths, counted tile by tile: the matrix of logits is never held.

Caption `captions_per_image * i + j` belongs to image `i`. Ground truths are scored first, as
pairs; then every tile is compared with them where it lies, on the host or on a GPU. A pair scored
alone and in a tile may differ by what its precision rounds (last bits in fp32, more in fp16). The
host's counter makes up for that; a GPU's rank can differ from the whole matrix's where two logits
are as close as that.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime.logits import (
    Logits,
    ensemble_logits,
    not_a_number,
    similarities,
    with_ensemble,
)
from sgraf_deploy.runtime.near import ROUNDED_SLACK, SLACK, SMALLEST_LOGIT, NearCounts

if TYPE_CHECKING:
    from sgraf_deploy.runtime.context import Context
    from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
    from sgraf_deploy.runtime.engine import Buffer, Engine
    from sgraf_deploy.runtime.halving import Progress

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Bars:
    """What candidates are compared with, by model: the members in order, then their ensemble.

    `images`: (images,) the best logit of each image's captions; `captions`: (captions,) the logit
    of each caption's image. float32.
    """

    images: Mapping[str, Logits]
    captions: Mapping[str, Logits]
    captions_per_image: int
    slack: float = SLACK
    """How far they may be from the same pairs in a tile, as a share of the largest."""

    def slack_of(self, model: str) -> float:
        """How far that is, as a logit."""
        return self.slack * max(SMALLEST_LOGIT, float(np.abs(self.captions[model]).max()))


@dataclass(frozen=True, eq=False)
class RankCounts:
    """Of one model: candidates, ground truths of the query excepted, that reach its bar.

    `image_to_text` (images,) and `text_to_image` (captions,) int64 are zero-based ranks with ties
    last; `level_…` count the candidates that are exactly as good.
    """

    image_to_text: Counts
    text_to_image: Counts
    level_image_to_text: Counts
    level_text_to_image: Counts


class RankCounter(Protocol):
    """Counts on an engine's device; several threads may add tiles."""

    def add(
        self, first_image: int, columns: NDArray[np.int32], logits: Mapping[str, Buffer]
    ) -> None:
        """Compare a tile: every member's logits (images, captions) from image `first_image` on.

        DataError for a logit that is not finite, at once or with the result.
        """

    def result(self) -> dict[str, RankCounts]:
        """The counts of all tiles by model."""


def count_ranks(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    captions_per_image: int,
    progress: Progress | None = None,
    out: Logits | None = None,
) -> dict[str, RankCounts]:
    """Ranks of every ground truth in both directions, by member and for their ensemble.

    `out` (images, captions) takes the similarities. Raises InputError unless every image has so
    many captions, and DataError for a logit that is not finite.
    """
    from sgraf_deploy.runtime.arguments import check_count
    from sgraf_deploy.runtime.matrix import run_tiles

    check_count("captions_per_image", captions_per_image)
    if not len(images):
        raise InputError("images to rank", expected="at least one", got="none")
    if len(captions) != captions_per_image * len(images):
        raise InputError(
            f"captions of {len(images)} images",
            expected=f"{captions_per_image} of each",
            got=len(captions),
        )
    bars = _truths(context, images, captions, captions_per_image)
    counter = context.engine.rank_counter(bars)

    def use(rows: slice, columns: NDArray[np.int64], buffers: Mapping[str, Buffer]) -> None:
        if out is not None:  # First: a tile that does not fit must not have been counted.
            logits = {name: context.engine.fetch(buffer) for name, buffer in buffers.items()}
            out[rows, columns] = similarities(ensemble_logits(logits))
        counter.add(rows.start, columns.astype(np.int32), buffers)

    run_tiles(context, images, captions, use, progress)
    return counter.result()


def _truths(
    context: Context, images: EncodedImages, captions: EncodedCaptions, captions_per_image: int
) -> Bars:
    """The ground truths, scored as pairs."""
    from sgraf_deploy.runtime.pairs import pair_logits

    rows = np.arange(len(captions), dtype=np.int32)
    owners = (rows // captions_per_image).astype(np.int32)
    truths = with_ensemble(pair_logits(context, images, captions, owners, rows))
    best = {name: each.reshape(len(images), -1).max(axis=1) for name, each in truths.items()}
    slack = SLACK if context.engine.executed == "fp32" else ROUNDED_SLACK
    return Bars(best, truths, captions_per_image, slack)


class HostRankCounter:
    """See `RankCounter`: fetches every tile and compares it with NumPy.

    Ranks are those of the matrix, whatever rounding makes of a pair that is scored alone.
    """

    def __init__(self, engine: Engine, bars: Bars) -> None:
        self._engine, self._per_image = engine, bars.captions_per_image
        self._lock = threading.Lock()
        self._images, self._captions = (
            {name: NearCounts(each, bars.slack_of(name)) for name, each in side.items()}
            for side in (bars.images, bars.captions)
        )
        self._truths = {name: each.copy() for name, each in bars.captions.items()}

    def add(
        self, first_image: int, columns: NDArray[np.int32], logits: Mapping[str, Buffer]
    ) -> None:
        """Fetch a tile and count."""
        tiles = {name: self._engine.fetch(buffer) for name, buffer in logits.items()}
        for tile in tiles.values():
            _check_finite(tile, first_image, columns)
        tiles = with_ensemble(tiles)
        rows = first_image + np.arange(len(next(iter(tiles.values()))))
        own = columns // self._per_image - first_image  # The row of each caption's image.
        here = np.flatnonzero((own >= 0) & (own < len(rows)))
        own = own[here]
        found = {}
        for name, tile in tiles.items():
            self._truths[name][columns[here]] = tile[own, here]
            candidates = tile.copy()
            candidates[own, here] = -np.inf
            found[name] = (
                self._images[name].look(rows, candidates),
                self._captions[name].look(columns, candidates.T),
            )
        with self._lock:
            for name, (by_image, by_caption) in found.items():
                self._images[name].keep(by_image)
                self._captions[name].keep(by_caption)

    def result(self) -> dict[str, RankCounts]:
        """The counts of all tiles."""
        counts = {}
        for name, truths in self._truths.items():
            best = truths.reshape(-1, self._per_image).max(axis=1)
            image_to_text, level_image_to_text = self._images[name].counts(best)
            text_to_image, level_text_to_image = self._captions[name].counts(truths)
            counts[name] = RankCounts(
                image_to_text, text_to_image, level_image_to_text, level_text_to_image
            )
        return counts


def not_finite(image: int, caption: int) -> DataError:
    """The error for a logit that no rank can be counted from."""
    return DataError(
        f"the logit of image {image} and caption {caption}",
        expected="a finite number",
        mend="look at that image's features, and check the bundle with `sgraf-deploy verify`",
    )


def _check_finite(logits: Logits, first_image: int, columns: NDArray[np.int32]) -> None:
    wrong = ~np.isfinite(logits)
    if wrong.any():
        row, column = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        raise not_finite(first_image + int(row), int(columns[column]))


def check_numbers(logits: Logits, first_image: int, columns: NDArray[np.integer[Any]]) -> None:
    """DataError, which names the pair, for a tile with a logit that is NaN."""
    wrong = np.isnan(logits)
    if wrong.any():
        row, column = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        raise not_a_number(first_image + int(row), int(columns[column]))
