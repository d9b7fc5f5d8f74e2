"""The bidirectional hinge loss of the paper, and the detection of its collapse."""

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
    """The loss on the hardest negatives if all similarities are equal."""
    return 2.0 * batch * margin


@dataclass
class CollapseWatch:
    """Detects that the loss has stayed at the collapsed value for some time.

    Training on only the hardest negatives often collapses in the first epochs and does not recover:
    all similarities become equal, and the gradient vanishes. (The sum over all negatives starts at
    that value, too, but leaves it.)
    """

    patience: int = 50
    """Iterations in a row."""
    tolerance: float = 0.01
    """The largest distance from the collapsed loss, as a share of it."""
    _recent: deque[bool] = field(default_factory=deque, repr=False)

    def collapsed(self, loss: float, batch: int, margin: float) -> bool:
        """Record an iteration's loss; True if the last `patience` ones had the collapsed value."""
        value = collapsed_loss(batch, margin)
        self._recent.append(abs(loss - value) <= self.tolerance * value)
        if len(self._recent) > self.patience:
            self._recent.popleft()
        return len(self._recent) == self.patience and all(self._recent)
