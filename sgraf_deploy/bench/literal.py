"""The yardstick: the literal loop over captions, in shards, as the authors evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.runtime.halving import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from sgraf_deploy.bundle import Bundle
    from sgraf_deploy.model.layers import SimilarityModel

SHARD = 100
"""Images x captions that are scored in one go, as the authors do."""

GPU_SHARD = 1000
"""What keeps a GPU busier."""


@dataclass(frozen=True, eq=False)
class LiteralCaptions:
    """Encoded captions by member: padded words (captions, words, embed), and their lengths."""

    words: dict[str, Tensor]
    lengths: NDArray[np.int64]


def fastest_device() -> str | None:
    """The GPU that PyTorch sees, or None for the CPU; None without PyTorch too."""
    try:
        import torch
    except ImportError:
        return None
    return "cuda" if torch.cuda.is_available() else None


class LiteralLoop:
    """`model.reference` on a bundle's original weights, float32, on PyTorch's device.

    Raises UnavailableError without PyTorch, BundleError for a bundle without its reference where
    no checkpoint is given.
    """

    def __init__(
        self, bundle: Bundle, checkpoints: Sequence[Path] = (), device: str | None = None
    ) -> None:
        self.device = device or "cpu"
        self.shard = SHARD
        try:
            from sgraf_deploy.model import reference
            from sgraf_deploy.model.members import member_weights
        except ImportError as error:
            mend = "pip install 'sgraf-deploy[torch]'"
            raise UnavailableError("the PyTorch reference is not available", mend=mend) from error
        self._models: dict[str, SimilarityModel] = {
            name: reference.build_model(entry.config, member_weights(bundle, name, checkpoints)).to(
                self.device
            )
            for name, entry in bundle.manifest.members.items()
        }

    def in_shards(self, shard: int) -> LiteralLoop:
        """The same models, scored in larger or smaller shards."""
        other = copy(self)
        other.shard = shard
        return other

    def encode_images(self, regions: NDArray[Any]) -> dict[str, Tensor]:
        """Regions (images, regions, img_dim) -> (images, regions, embed) by member."""
        import torch

        with torch.inference_mode():
            shards = [
                torch.from_numpy(np.array(regions[start : start + SHARD], dtype=np.float32)).to(
                    self.device
                )
                for start in range(0, len(regions), SHARD)
            ]
            return {
                name: torch.cat([model.image_encoder(shard) for shard in shards])
                for name, model in self._models.items()
            }

    def encode_captions(self, token_ids: Sequence[NDArray[np.int32]]) -> LiteralCaptions:
        """Token ids (words,) of each caption, encoded in shards, padded to the longest."""
        import torch

        lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
        padded = torch.zeros(len(token_ids), int(lengths.max()), dtype=torch.long)
        for row, ids in enumerate(token_ids):
            padded[row, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
        with torch.inference_mode():
            words = {
                name: torch.cat(
                    [
                        model.text_encoder(
                            padded[start : start + SHARD].to(self.device),
                            torch.from_numpy(lengths[start : start + SHARD]),
                        )
                        for start in range(0, len(padded), SHARD)
                    ]
                )
                for name, model in self._models.items()
            }
        return LiteralCaptions(words, lengths)

    def logits(
        self,
        images: dict[str, Tensor],
        captions: LiteralCaptions,
        progress: Progress | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Logits (images, captions) by member, shard by shard."""
        import torch

        from sgraf_deploy.model import reference

        count, width = len(next(iter(images.values()))), len(captions.lengths)
        results = {name: np.empty((count, width), dtype=np.float32) for name in self._models}
        done, total = 0, count * width * len(self._models)
        for name, model in self._models.items():
            for row in range(0, count, self.shard):
                for column in range(0, width, self.shard):
                    rows = slice(row, row + self.shard)
                    columns = slice(column, column + self.shard)
                    with torch.inference_mode():
                        shard = reference.score(
                            model,
                            images[name][rows],
                            captions.words[name][columns],
                            captions.lengths[columns],
                        )
                    results[name][rows, columns] = shard.cpu().numpy()
                    done += shard.numel()
                    if progress is not None:
                        progress(done, total)
        return results
