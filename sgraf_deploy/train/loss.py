"""The bidirectional hinge loss of the paper, and how to see that it has collapsed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor


def hinge_loss(similarities: Tensor, margin: float, *, hardest: bool) -> Tensor:
    """Sum over both directions of [margin - positive + negative]+ (paper: "Training Objectives").

    similarities (images, captions), square: image i belongs to caption i, everything else is a
    negative. `hardest` counts only the hardest negative of each image and each caption, as the
    paper's results do; otherwise all of them are summed.
    """
    positive = similarities.diagonal()
    others = ~torch.eye(len(positive), dtype=torch.bool, device=similarities.device)
    captions = (margin + similarities - positive.unsqueeze(1)).clamp(min=0) * others
    images = (margin + similarities - positive.unsqueeze(0)).clamp(min=0) * others
    if hardest:
        return captions.amax(dim=1).sum() + images.amax(dim=0).sum()
    return captions.sum() + images.sum()


def collapsed_loss(batch: int, margin: float) -> float:
    """The loss on the hardest negatives where every similarity is the same."""
    return 2.0 * batch * margin


@dataclass
class CollapseWatch:
    """Tells when the loss has stood at the collapsed value for some time.

    Training on the hardest negatives alone often falls there in the first epochs and stays: all
    similarities become one number, and the gradient vanishes. (The sum over all negatives begins
    there too, but leaves.)
    """

    patience: int = 50
    """Iterations in a row."""
    tolerance: float = 0.01
    """How close to the collapsed loss, as a share of it."""
    _recent: deque[bool] = field(default_factory=deque, repr=False)

    def collapsed(self, loss: float, batch: int, margin: float) -> bool:
        """Take an iteration's loss; True once it has been at the collapsed value for long."""
        value = collapsed_loss(batch, margin)
        self._recent.append(abs(loss - value) <= self.tolerance * value)
        if len(self._recent) > self.patience:
            self._recent.popleft()
        return len(self._recent) == self.patience and all(self._recent)
