"""Makes the inputs of the export gate, and computes the literal reference's outputs for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.data.captions import encode_captions
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import check_regions, readable
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.gate.inputs import GateInputs, GateReference, explained_pairs

SYNTHETIC_IMAGES = 6
SYNTHETIC_LENGTHS = (2, 3, 3, 5, 8, 11, 14, 20)
"""Words per synthetic caption; one of 2 has `<start>` and `<end>` only."""

DATA_IMAGES = 12
DATA_CAPTIONS = 24
"""Sizes with `--gate-data`: enough for a rank correlation, few enough for onnx's evaluator."""


def synthetic_inputs(config: ModelConfig, seed: int = 0) -> GateInputs:
    """Regions of seeded standard normal values, and uniform word ids."""
    rng = np.random.default_rng(seed)
    shape = (SYNTHETIC_IMAGES, config.regions, config.img_dim)
    captions = [
        rng.integers(0, config.vocab_size, length, dtype=np.int32) for length in SYNTHETIC_LENGTHS
    ]
    source = f"synthetic: {SYNTHETIC_IMAGES} images of standard normal regions, seed {seed}"
    return _inputs(rng.standard_normal(shape, dtype=np.float32), captions, source, real=False)


def data_inputs(
    config: ModelConfig, split: PrecompSplit, tokenizer: Tokenizer, vocabulary: Vocabulary
) -> GateInputs:
    """Images spread over a split of real data, and their captions in turn."""
    check_regions(
        split.regions[:1], config.regions, config.img_dim, f"regions of split {split.name}"
    )
    images = np.unique(np.linspace(0, split.images - 1, DATA_IMAGES).astype(np.int64))
    regions = np.asarray(readable(split.regions[images]), dtype=np.float32)
    check_regions(regions, config.regions, config.img_dim, f"gate data {split.name}")
    per_image = split.captions_per_image
    texts = [
        split.captions[image * per_image + turn] for turn in range(per_image) for image in images
    ]
    captions, _ = encode_captions(texts[:DATA_CAPTIONS], tokenizer, vocabulary)
    source = f"data: {len(images)} images × {len(captions)} captions of split {split.name}"
    return _inputs(regions, captions, source, real=True)


def _inputs(
    regions: NDArray[np.float32], captions: list[NDArray[np.int32]], source: str, *, real: bool
) -> GateInputs:
    regions = np.concatenate([regions, np.zeros_like(regions[:1])])
    lengths = np.array([len(caption) for caption in captions], dtype=np.int32)
    token_ids = np.zeros((len(captions), int(lengths.max())), dtype=np.int32)
    for row, caption in enumerate(captions):
        token_ids[row, : len(caption)] = caption
    return GateInputs(regions, token_ids, lengths, f"{source}, and one image of zeros", real)


def reference_outputs(
    config: ModelConfig,
    weights: Mapping[str, NDArray[Any]],
    inputs: GateInputs,
    *,
    fp8: bool = False,
) -> GateReference:
    """Run the literal loop in float64 on the gate's inputs; needs PyTorch.

    With `fp8` the logits of the folded model with FP8's rounding are computed, too.
    """
    import torch

    from sgraf_deploy.model.folded import Encoded
    from sgraf_deploy.model.reference import Reference

    model = Reference(config, weights, torch.float64)
    lengths = torch.from_numpy(inputs.lengths)
    images, captions = map(torch.from_numpy, explained_pairs(inputs))
    regions = model.encode_images(torch.from_numpy(inputs.regions).double())
    words = model.encode_captions(torch.from_numpy(inputs.token_ids).long(), lengths)
    encoded = Encoded(
        regions, model.image_globals(regions), words, model.text_globals(words, lengths), lengths
    )
    internals = model.explain(encoded, images, captions)
    return GateReference(
        region_embeddings=regions.float().numpy(),
        image_global=encoded.image_global.float().numpy(),
        word_embeddings=words.float().numpy(),
        text_global=encoded.text_global.float().numpy(),
        internals={name: x.numpy() for name, x in internals.items() if name != "logits"},
        logits=model.score(regions, words, lengths).numpy(),
        fp8_logits=_fp8_logits(config, weights, inputs) if fp8 else None,
    )


def _fp8_logits(
    config: ModelConfig, weights: Mapping[str, NDArray[Any]], inputs: GateInputs
) -> NDArray[np.float64]:
    """Logits (images, captions) of the folded model, executed as `fp8-rounded`."""
    import torch

    from sgraf_deploy.model.folded import Encoded
    from sgraf_deploy.model.folding import fold
    from sgraf_deploy.model.torch_model import TorchModel

    model = TorchModel(fold(config, weights), "fp8-rounded", torch.device("cpu"))
    lengths = torch.from_numpy(inputs.lengths)
    images = model.image_encoder(torch.from_numpy(inputs.regions))
    texts = model.text_encoder(torch.from_numpy(inputs.token_ids), lengths)
    return model.scorer(Encoded.of(images, texts, lengths)).double().numpy()
