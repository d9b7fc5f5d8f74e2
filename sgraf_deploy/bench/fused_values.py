"""Compare the values of engine fused's kernels on a device with the literal loop in float64.

`python -m sgraf_deploy.bench.fused_values --small` runs every kernel on 8 images × 8 captions at
the paper's dimensions, which is little enough work for compute-sanitizer. With TRITON_INTERPRET=1
and `--device cpu` it needs no GPU.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.gpu.job import run_job
from sgraf_deploy.bench.random_model import model_config, random_checkpoint
from sgraf_deploy.config import ModelConfig, Module, Precision
from sgraf_deploy.gate.tolerances import FP16_LOGITS_SHARE, FP32_LOGITS

if TYPE_CHECKING:
    from torch import Tensor

    from sgraf_deploy.model.folded import Encoded
    from sgraf_deploy.model.reference import Reference

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
IMAGES, CAPTIONS = 40, 64
SMALL = 8
LONGEST = 80
"""Words of the last caption: more than a program of the reasoning kernel processes at a time."""


def fused_values(
    module: Module,
    precision: Precision,
    images: int = IMAGES,
    captions: int = CAPTIONS,
    device: str = "cuda",
    *,
    config: ModelConfig | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare the kernels' logits of random images × captions with float64.

    The dimensions are the paper's, unless a `config` is given. Captions have 2 to 20 words, the
    last has 80; they are scored both without and with it, because such long captions use a kernel
    of their own. The device runs only the kernels; float64 is computed on the CPU, from the same
    embeddings as stored in `precision`. `met` tells whether `share_of_bound` is at most 1, where
    the bound is 1e-4 max(1, |logit|) in fp32, and 5 % of the logits' standard deviation in fp16.

    Raises UnavailableError if engine fused is not available, or the kernels do not fit.
    """
    import torch

    from sgraf_deploy.engines.fused.engine import FusedEngine, interpreted
    from sgraf_deploy.engines.fused.fit import choose_blocks, find_gpu
    from sgraf_deploy.engines.torch.engine import parse_device
    from sgraf_deploy.model.exact import exact_arithmetic
    from sgraf_deploy.model.folding import fold

    FusedEngine.check_available(device)
    from sgraf_deploy.engines.fused.scorer import FusedScorer
    from sgraf_deploy.model.reference import Reference

    where = parse_device(device)
    config = config or model_config(module)
    weights = _weights(config, seed)
    blocks = choose_blocks(config, precision, find_gpu(where))
    literal = Reference(config, weights, torch.float64)
    encoded, expected = _inputs(literal, config, precision, images, captions, seed)
    expected = _spread(weights, expected)
    with torch.inference_mode(), exact_arithmetic():
        scorer = FusedScorer(fold(config, weights), precision, where, blocks=blocks)
        with_longest = scorer(_part(encoded, captions, where)).cpu()
        without_longest = scorer(_part(encoded, captions - 1, where)).cpu()
    actual = torch.cat([with_longest, without_longest], dim=1).double().numpy()
    expected = torch.cat([expected, expected[:, : captions - 1]], dim=1)
    return {
        "module": module,
        "precision": precision,
        "images": images,
        "captions": captions,
        "longest_caption": LONGEST,
        "dimensions": {name: getattr(config, name) for name in ("regions", "embed", "sim_dim")},
        "device": "Triton's interpreter" if interpreted() else torch.cuda.get_device_name(where),
        "blocks": asdict(blocks),
        "seed": seed,
        **_compare(actual, expected.numpy(), precision),
    }


def _weights(config: ModelConfig, seed: int) -> dict[str, NDArray[Any]]:
    """PyTorch's initial weights, with biases that are neither zero nor so large that they dominate
    the alignments."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, 1e-3, weight.shape).astype(np.float32)
        if name.endswith("bias")
        else weight
        for name, weight in random_checkpoint(config, seed).weights.items()
    }


def _spread(weights: dict[str, NDArray[Any]], logits: Tensor) -> Tensor:
    """Scale the last layer's weight, and its logits with it, to a standard deviation of about 1.

    The logits of random weights differ by 0.0004 at the paper's dimensions (SGR), so that wrong
    values would meet a bound of 1e-4. The factor is a power of two, so that nothing is rounded.
    """
    scale = 2.0 ** -round(math.log2(float(logits.std())))
    weights["similarity.weight"] = weights["similarity.weight"] * np.float32(scale)
    bias = float(weights["similarity.bias"][0])
    return (logits - bias) * scale + bias


def _inputs(
    literal: Reference,
    config: ModelConfig,
    precision: Precision,
    images: int,
    captions: int,
    seed: int,
) -> tuple[Encoded[Tensor], Tensor]:
    """Embeddings as stored in a precision, and their logits (images, captions) float64."""
    import torch

    from sgraf_deploy.model.folded import Encoded

    rng = np.random.default_rng(seed)
    regions = torch.from_numpy(rng.standard_normal((images, config.regions, config.img_dim)))
    counts = np.append(rng.integers(2, 21, captions - 1), LONGEST).astype(np.int32)
    token_ids = torch.from_numpy(rng.integers(1, config.vocab_size, (captions, LONGEST)))
    lengths = torch.from_numpy(counts)
    dtype = torch.float16 if precision == "fp16" else torch.float32
    region_embeddings = literal.encode_images(regions).to(dtype)
    words = literal.encode_captions(token_ids, lengths).to(dtype)
    wide_regions, wide_words = region_embeddings.double(), words.double()
    encoded = Encoded(
        region_embeddings,
        literal.image_globals(wide_regions).to(dtype),
        words,
        literal.text_globals(wide_words, lengths).to(dtype),
        lengths,
    )
    return encoded, literal.score(wide_regions, wide_words, lengths)


def _part(encoded: Encoded[Tensor], captions: int, device: Any) -> Encoded[Tensor]:
    """All images and the first captions, padded to the longest of them, on the device."""
    from sgraf_deploy.model.folded import Encoded

    lengths = encoded.lengths[:captions]
    longest = int(lengths.max())
    return Encoded(
        encoded.region_embeddings.to(device),
        encoded.image_global.to(device),
        encoded.word_embeddings[:captions, :longest].contiguous().to(device),
        encoded.text_global[:captions].to(device),
        lengths.to(device),
    )


def _compare(
    actual: NDArray[np.float64], expected: NDArray[np.float64], precision: Precision
) -> dict[str, Any]:
    difference = np.abs(actual - expected)
    deviation = float(expected.std())
    if precision == "fp16":
        bounds = np.full_like(expected, FP16_LOGITS_SHARE * deviation)
    else:
        bounds = FP32_LOGITS * np.maximum(1.0, np.abs(expected))
    finite = bool(np.isfinite(actual).all())
    share = float((difference / bounds).max()) if finite else None
    return {
        "logits_std": deviation,
        "largest_difference": float(difference.max()) if finite else None,
        "share_of_bound": share,
        "finite": finite,
        "met": share is not None and share <= 1,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Check SGR and SAF in both precisions; 0 if every bound was met, 1 if not, 2 for no GPU."""
    parser = argparse.ArgumentParser(prog="python -m sgraf_deploy.bench.fused_values")
    parser.add_argument("--small", action="store_true", help=f"{SMALL} images x {SMALL} captions")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--module", choices=get_args(Module), action="append")
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
    return run_job(parser, _all, arguments)


def _all(chosen: argparse.Namespace) -> dict[str, Any]:
    """A report of each module in each precision, and those that missed their bound."""
    images, captions = (SMALL, SMALL) if chosen.small else (IMAGES, CAPTIONS)
    reports, failed = [], []
    for module in chosen.module or get_args(Module):
        for precision in chosen.precision or PRECISIONS:
            report = fused_values(module, precision, images, captions, chosen.device)
            reports.append(report)
            failed += [] if report["met"] else [f"{module} {precision}"]
    return {"fused_values": reports, "failed": failed}


if __name__ == "__main__":
    sys.exit(main())
