"""The folded model in PyTorch; every call in exact arithmetic and without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from sgraf_deploy.model.exact import exactly
from sgraf_deploy.model.explained import ExplainedModel
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import FoldedWeights
from sgraf_deploy.model.torch_ops import Arithmetic, TorchOps


class TorchModel(FoldedModel[Tensor]):
    """`FoldedModel` in exact arithmetic: use it for all results that are compared or stored."""

    def __init__(
        self, weights: FoldedWeights, arithmetic: Arithmetic, device: torch.device
    ) -> None:
        super().__init__(weights, TorchOps(arithmetic, device))

    @exactly
    def image_encoder(self, regions: Tensor) -> tuple[Tensor, ...]:  # noqa: D102
        return super().image_encoder(regions)

    @exactly
    def text_encoder(self, token_ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return super().text_encoder(token_ids, lengths)

    @exactly
    def scorer(self, encoded: Encoded[Tensor]) -> Tensor:  # noqa: D102
        return super().scorer(encoded)

    @exactly
    def pair_scorer(  # noqa: D102
        self, encoded: Encoded[Tensor], image_index: Tensor, caption_index: Tensor
    ) -> Tensor:
        return super().pair_scorer(encoded, image_index, caption_index)

    @exactly
    def explain(
        self, encoded: Encoded[Tensor], image_index: Tensor, caption_index: Tensor
    ) -> tuple[Tensor, ...]:
        """See `ExplainedModel`; every call has one of its own, so that threads may share this."""
        model = ExplainedModel(self.weights, self.ops)
        return model.explain(encoded, image_index, caption_index)
