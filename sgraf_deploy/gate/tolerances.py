"""The bounds of the gate: how far graphs may be from the literal reference."""

from __future__ import annotations

from sgraf_deploy.config import Precision

FP32_LOGITS = 1e-4
"""Times max(1, |logit|)."""
FP32_SIMILARITIES = 1e-5
EXPLAINED = 1e-4
"""What the graphs `explain` give beside logits: distributions and vectors of norm 1."""
FP16_SIMILARITIES = 2e-3
FP16_LOGITS_SHARE = 0.05
"""The largest difference as a share of the standard deviation of the reference's logits."""
FP16_LOGITS_SHARE_DATA = 0.01
"""The same on real data, where the weights are trained ones."""
FP16_SPEARMAN = 0.9999
FP8_LOGITS_SHARE = 0.02
"""The same share, of the difference from the same arithmetic in PyTorch: where a sum's last bit
differs, FP8 may round to another value. 0.0007 was measured in onnx's evaluator, 0.013 where
nothing else was rounded; FP8 itself moves logits by 0.04."""
PADDED_WORDS = 3
"""The largest number of padding words that is tried behind a caption."""
EMBEDDINGS: dict[Precision, float] = {"fp32": 1e-5, "fp16": 2e-3, "fp8": 2e-3}
"""Times max(1, the largest reference value)."""
