"""Counts ranks tile by tile: the types of thresholds and counts, and the counter on the host."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.buffers import Array, Buffer
from sgraf_deploy.engines.ensemble import Logits, with_ensemble
from sgraf_deploy.engines.near_counts import SLACK, SMALLEST_LOGIT, NearCounts, within
from sgraf_deploy.engines.tallies import Counts, ModelTally, Tally, Touched
from sgraf_deploy.errors import DataError


@dataclass(frozen=True, eq=False)
class Thresholds:
    """The logits that candidates are compared with, by model: the members, then their ensemble.

    `images`: (images,) the best logit of each image's captions; `captions`: (captions,) the logit
    of each caption's image. float32.
    """

    images: Mapping[str, Logits]
    captions: Mapping[str, Logits]
    captions_per_image: int
    slack: float = SLACK
    """How far they may be from the same pairs' logits in a tile, as a share of the largest."""

    def slack_of(self, model: str) -> float:
        """The slack of a model, as a difference of logits."""
        return self.slack * max(SMALLEST_LOGIT, float(np.abs(self.captions[model]).max()))

    def only(self, model: str) -> Thresholds:
        """Those of one model."""
        images, captions = ({model: side[model]} for side in (self.images, self.captions))
        return Thresholds(images, captions, self.captions_per_image, self.slack)

    def exact_tally(
        self,
        model: str,
        touched: Touched,
        images: Counts,
        captions: Counts,
        level_images: Counts,
        level_captions: Counts,
    ) -> ModelTally:
        """The tally of counts, of all images and captions, that reach or equal the thresholds.

        A GPU counts so: the thresholds are final there, and stand for the ground truths' logits.
        """
        rows, columns = touched.images, touched.captions
        best, own = self.images[model], self.captions[model]
        by_image = Tally.exact(rows, best[rows], images[rows], level_images[rows])
        by_caption = Tally.exact(columns, own[columns], captions[columns], level_captions[columns])
        return ModelTally(by_image, by_caption, own[touched.truths])


@dataclass(frozen=True, eq=False)
class RankCounts:
    """One model's counts of candidates, ground truths of the query excepted.

    `image_to_text` (images,) and `text_to_image` (captions,) int64 count those that are no worse
    than the threshold: zero-based ranks with ties last. `level_…` count those that equal it.

    Example:
        >>> counts = scorer.count_ranks(images[:2], captions, captions_per_image=1)["sgraf"]
        >>> counts.image_to_text.shape, counts.image_to_text.dtype
        ((2,), dtype('int64'))
        >>> recall_at_2 = (counts.image_to_text < 2).mean()
        >>> float(recall_at_2)
        1.0
    """

    image_to_text: Counts
    text_to_image: Counts
    level_image_to_text: Counts
    level_text_to_image: Counts


class RankCounter(ABC):
    """Counts on an engine's device; several threads may add tiles."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._given = thresholds

    @abstractmethod
    def add(
        self, first_image: int, columns: NDArray[np.int32], logits: Mapping[str, Buffer]
    ) -> None:
        """Compare a tile: every member's logits (images, captions), on the engine's device.

        Its rows are the images from `first_image` on, its columns the captions `columns`
        (captions,). Raises DataError for a logit that is not finite, at once or with the tallies.
        """

    @abstractmethod
    def tallies(self, touched: Touched) -> dict[str, ModelTally]:
        """What the tiles held, by model; waits for the device.

        `touched` says which images, captions and ground truths were in them.
        """

    def result(self) -> dict[str, RankCounts]:
        """The counts by model, once the tiles of the whole matrix were added."""
        captions = np.arange(len(next(iter(self._given.captions.values()))))
        images = np.arange(len(captions) // self._given.captions_per_image)
        return settle(self.tallies(Touched(images, captions, captions)), self._given)


def settle(models: Mapping[str, ModelTally], thresholds: Thresholds) -> dict[str, RankCounts]:
    """The counts of the whole matrix from the tallies of all of its tiles."""
    counts = {}
    for name, found in models.items():
        slack, own = thresholds.slack_of(name), found.truths
        best = own.reshape(-1, thresholds.captions_per_image).max(axis=1)
        by_image = found.images.against(within(best, thresholds.images[name], slack))
        by_caption = found.captions.against(within(own, thresholds.captions[name], slack))
        counts[name] = RankCounts(by_image[0], by_caption[0], by_image[1], by_caption[1])
    return counts


class HostRankCounter(RankCounter):
    """See `RankCounter`; fetches every tile and compares it with NumPy.

    The ranks are those of the whole matrix, even where a ground truth that was scored alone rounds
    differently.
    """

    def __init__(self, fetch: Callable[[Buffer], Array], thresholds: Thresholds) -> None:
        """`fetch` brings an array of the engine's device to the host."""
        super().__init__(thresholds)
        self._fetch, self._per_image = fetch, thresholds.captions_per_image
        self._lock = threading.Lock()
        self._images, self._captions = (
            {name: NearCounts(each, thresholds.slack_of(name)) for name, each in side.items()}
            for side in (thresholds.images, thresholds.captions)
        )
        self._truths = {name: each.copy() for name, each in thresholds.captions.items()}

    def add(
        self, first_image: int, columns: NDArray[np.int32], logits: Mapping[str, Buffer]
    ) -> None:
        """Fetch a tile and count."""
        tiles = {name: self._fetch(buffer) for name, buffer in logits.items()}
        for tile in tiles.values():
            check_finite(tile, first_image, columns)
        self.count(first_image, columns, with_ensemble(tiles))

    def count(
        self, first_image: int, columns: NDArray[np.int32], tiles: Mapping[str, Logits]
    ) -> None:
        """Count a tile: every model's logits (images, captions), as `add` takes them, on the host.

        A candidate that `open` excludes may have any logit between its bounds.
        """
        rows = first_image + np.arange(len(next(iter(tiles.values()))))
        own, here = self._own(rows, columns)
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

    def open(
        self, first_image: int, columns: NDArray[np.int32], lower: Logits, upper: Logits
    ) -> NDArray[np.bool_]:
        """Which pairs of a tile (images, captions) have to be known; where there is one model.

        They are those of which bounds of the logit leave open on which side of the image's
        threshold or of the caption's it lies: ground truths, too, which lie at their own.
        """
        (name,) = self._truths
        rows = first_image + np.arange(len(lower))
        needed = self._images[name].open(rows, lower, upper)
        needed |= self._captions[name].open(columns, lower.T, upper.T).T
        return needed

    def _own(
        self, rows: NDArray[np.int64], columns: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places of a tile's ground truths: in its rows, and in its columns."""
        own = columns // self._per_image - rows[0]  # The row of each caption's image.
        here = np.flatnonzero((own >= 0) & (own < len(rows)))
        return own[here], here

    def tallies(self, touched: Touched) -> dict[str, ModelTally]:
        """What the tiles held, by model."""
        return {
            name: ModelTally(
                self._images[name].tally(touched.images),
                self._captions[name].tally(touched.captions),
                truths[touched.truths],
            )
            for name, truths in self._truths.items()
        }


def not_finite(image: int, caption: int) -> DataError:
    """The error for a logit that no rank can be counted from."""
    return DataError(
        f"the logit of image {image} and caption {caption}",
        expected="a finite number",
        hint="look at that image's features, and check the bundle with `sgraf-deploy verify`",
    )


def check_finite(logits: Logits, first_image: int, columns: NDArray[np.int32]) -> None:
    """Raise DataError, which names the pair, for a tile with a logit that is not finite."""
    wrong = ~np.isfinite(logits)
    if wrong.any():
        row, column = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        raise not_finite(first_image + int(row), int(columns[column]))
