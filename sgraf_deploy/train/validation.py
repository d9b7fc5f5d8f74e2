"""Logits of a whole split during training, by the exact rewrites."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgraf_deploy.model.exact import exactly
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.folding import fold
from sgraf_deploy.model.layers import SimilarityModel
from sgraf_deploy.model.torch_model import TorchModel
from sgraf_deploy.progress import Progress
from sgraf_deploy.train.batches import TrainingData, pad

IMAGES, CAPTIONS = 64, 32
"""The size of a block; captions are sorted by length, so that a block has little padding."""


@exactly
def split_logits(
    model: SimilarityModel, data: TrainingData, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Logits (images, captions) of every image with every caption, in eval mode."""
    device = model.similarity.weight.device
    weights = {name: weight.cpu().numpy() for name, weight in model.state_dict().items()}
    folded = TorchModel(fold(model.config, weights), "fp32", device)
    images = [
        folded.image_encoder(torch.from_numpy(block.astype(np.float32)).to(device))
        for block in np.array_split(data.regions, -(-len(data.regions) // IMAGES))
    ]
    order = np.argsort([len(ids) for ids in data.token_ids], kind="stable")
    result = np.empty((len(data.regions), len(order)), dtype=np.float32)
    for start in range(0, len(order), CAPTIONS):
        columns = order[start : start + CAPTIONS]
        result[:, columns] = _columns(folded, images, data, columns, device)
        if progress is not None:
            progress(start + len(columns), len(order))
    return result


def _columns(
    folded: TorchModel,
    images: list[tuple[Tensor, ...]],
    data: TrainingData,
    columns: NDArray[np.int64],
    device: torch.device,
) -> NDArray[np.float32]:
    """Logits (images, captions) of these captions."""
    token_ids, lengths = (x.to(device) for x in pad([data.token_ids[i] for i in columns]))
    words = folded.text_encoder(token_ids, lengths)
    blocks = [folded.scorer(Encoded.of(block, words, lengths)).cpu().numpy() for block in images]
    return np.concatenate(blocks)
