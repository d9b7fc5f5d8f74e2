"""Random models, which pass the gate of half precision at the paper's dimensions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sgraf_deploy.bench.random_model import model_config, random_checkpoint
from sgraf_deploy.config import MODULES, Module
from sgraf_deploy.export.gate_inputs import reference_outputs, synthetic_inputs
from sgraf_deploy.gate.tolerances import FP16_LOGITS_SHARE
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import fold
from sgraf_deploy.model.torch_ops import TorchOps


@pytest.mark.parametrize("module", MODULES)
def test_half_precision_is_far_within_the_gate(module: Module) -> None:
    """Every machine draws the same weights, and sums in another order: there is a margin."""
    checkpoint = random_checkpoint(replace(model_config(module), img_dim=256))
    inputs = synthetic_inputs(checkpoint.config)
    expected = reference_outputs(checkpoint.config, checkpoint.weights, inputs).logits
    folded = fold(checkpoint.config, checkpoint.weights)
    model = FoldedModel(folded, TorchOps("fp16-rounded", torch.device("cpu")))
    lengths = torch.from_numpy(inputs.lengths)
    images = model.image_encoder(torch.from_numpy(inputs.regions))
    texts = model.text_encoder(torch.from_numpy(inputs.token_ids), lengths)

    found = model.scorer(Encoded.of(images, texts, lengths)).double().numpy()

    assert np.abs(found - expected).max() < FP16_LOGITS_SHARE / 5 * expected.std()
