"""Counts ranks with PyTorch, on the GPU that has the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgraf_deploy.engines.ranks import RankCounter, Thresholds, not_finite
from sgraf_deploy.engines.tallies import ModelTally, Touched
from sgraf_deploy.engines.torch.transfer import upload


class TorchRankCounter(RankCounter):
    """See `engines.ranks.RankCounter`; only `tallies` waits for the GPU."""

    def __init__(self, thresholds: Thresholds, device: torch.device) -> None:
        super().__init__(thresholds)
        self._device, self._per_image = device, thresholds.captions_per_image
        self._thresholds = {
            name: (
                torch.from_numpy(thresholds.images[name]).to(device),
                torch.from_numpy(thresholds.captions[name]).to(device),
            )
            for name in thresholds.images
        }
        self._counts = {
            name: [
                torch.zeros(len(side), dtype=torch.int64, device=device)
                for side in (*sides, *sides)
            ]
            for name, sides in self._thresholds.items()
        }
        self._wrong = torch.full((), -1, dtype=torch.int64, device=device)
        self._lock = Lock()

    def add(
        self, first_image: int, columns: NDArray[np.int32], logits: Mapping[str, Tensor]
    ) -> None:
        """Put the comparison of a tile into the device's stream; threads take turns."""
        with torch.inference_mode(), self._lock:
            places = upload(columns.astype(np.int64), self._device)
            self._add(first_image, places, dict(logits))

    def tallies(self, touched: Touched) -> dict[str, ModelTally]:
        """Wait for the counts; DataError if a logit was not finite."""
        captions = len(next(iter(self._thresholds.values()))[1])
        wrong = int(self._wrong)
        if wrong >= 0:
            raise not_finite(*divmod(wrong, captions))
        return {
            name: self._given.exact_tally(name, touched, *(each.cpu().numpy() for each in counts))
            for name, counts in self._counts.items()
        }

    def _add(self, first_image: int, columns: Tensor, tiles: dict[str, Tensor]) -> None:
        rows = slice(first_image, first_image + len(next(iter(tiles.values()))))
        images = torch.arange(rows.start, rows.stop, device=self._device)[:, None]
        others = columns // self._per_image != images
        captions = len(next(iter(self._thresholds.values()))[1])
        places = images * captions + columns
        for tile in tiles.values():
            wrong = torch.where(tile.isfinite(), -1, places).max()
            self._wrong = torch.maximum(self._wrong, wrong)
        if len(tiles) > 1:
            ensemble = list(self._thresholds)[-1]
            tiles[ensemble] = combine([tile.double() for tile in tiles.values()])
        for name, tile in tiles.items():
            by_image, by_caption = self._thresholds[name]
            image, caption, level_image, level_caption = self._counts[name]
            for threshold, reach, level, where, axis in (
                (by_image[rows, None], image, level_image, rows, 1),
                (by_caption[columns], caption, level_caption, columns, 0),
            ):
                reach[where] += (others & (tile >= threshold)).sum(axis)
                level[where] += (others & (tile == threshold)).sum(axis)


def combine(members: Sequence[Tensor]) -> Tensor:
    """The logit of the mean similarity of float64 logits, float32, as in `engines.ensemble`."""
    nothing = torch.full_like(members[0], -torch.inf)
    yes = no = nothing
    whole = part = torch.zeros_like(members[0])
    for logits in members:
        sign, size = torch.copysign(torch.ones_like(logits), logits), logits.abs()
        small = torch.exp(-size)
        rest = torch.log1p(small)
        yes = torch.logaddexp(yes, logits.clamp(max=0) - rest)
        no = torch.logaddexp(no, (-logits).clamp(max=0) - rest)
        whole = whole + torch.where(size < 1, 0.0, sign)
        lacking = -2 * sign * small / (1 + small)
        part = part + torch.where(size < 1, torch.tanh(logits / 2), lacking)
    more = whole + part
    odds = more.abs().log() - torch.where(more < 0, yes, no)
    return torch.copysign(torch.logaddexp(torch.zeros_like(odds), odds), more).float()
