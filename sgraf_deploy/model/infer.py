"""The shapes that a model's weights must have, and the config inferred from them. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig, Module
from sgraf_deploy.errors import CheckpointError

Axis = tuple[str, int]
Label = Callable[[str], str]
"""Names a weight in messages: `keys.describe` for checkpoints, `str` for this package's files."""

COUNTER = "num_batches_tracked"
"""The only integer weights: BatchNorm counts its batches, but the count is never used."""

_STEP = re.compile(r"reasoning\.(\d+)\.")
_LAYER = re.compile(r"text_encoder\.gru\.\w+_l(\d+)(?:_reverse)?")

# Fields of the config that are one axis of one weight: the weight, its rank and the axis.
_ANCHORS = {
    "img_dim": ("image_encoder.projection.weight", 2, 1),
    "embed": ("image_encoder.projection.weight", 2, 0),
    "word_dim": ("text_encoder.embedding.weight", 2, 1),
    "vocab_size": ("text_encoder.embedding.weight", 2, 0),
    "regions": ("image_global.local_norm.weight", 1, 0),
    "sim_dim": ("local_alignment.weight", 2, 0),
}


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight of a model of `config`, in the order of storage."""
    return {name: tuple(size for _, size in axes) for name, axes in expected_axes(config).items()}


def expected_axes(config: ModelConfig) -> dict[str, tuple[Axis, ...]]:
    """`expected_shapes` with a name for every axis."""
    embed, sim_dim = ("embed", config.embed), ("sim_dim", config.sim_dim)
    single = ("one", 1)
    axes = {
        **_linear("image_encoder.projection", embed, ("img_dim", config.img_dim)),
        "text_encoder.embedding.weight": (
            ("vocab_size", config.vocab_size),
            ("word_dim", config.word_dim),
        ),
        **_gru(config),
        **_linear("image_global.local", embed, embed),
        **_norm("image_global.local_norm", ("regions", config.regions)),
        **_linear("image_global.mean", embed, embed),
        **_norm("image_global.mean_norm", embed),
        **_linear("image_global.attention", single, embed),
        **_linear("text_global.local", embed, embed),
        **_linear("text_global.mean", embed, embed),
        **_linear("text_global.attention", single, embed),
        **_linear("local_alignment", sim_dim, embed),
        **_linear("global_alignment", sim_dim, embed),
        **_linear("similarity", single, sim_dim),
    }
    if config.module == "SAF":
        axes |= _linear("filtration.attention", single, sim_dim)
        axes |= _norm("filtration.norm", single)
    for step in range(config.sgr_steps):
        for product in ("query", "key", "update"):
            axes |= _linear(f"reasoning.{step}.{product}", sim_dim, sim_dim)
    return axes


def infer_config(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    module: Module | None = None,
    image_norm: bool = True,
    text_norm: bool = True,
    label: Label = str,
) -> ModelConfig:
    """Infer the config from shapes by name; `module` is used if they show neither or both.

    Raises CheckpointError if a weight from which a dimension is inferred is missing or has another
    rank.
    """
    parts = {name.split(".", 1)[0] for name in shapes} & {"reasoning", "filtration"}
    if len(parts) == 1:
        module = "SGR" if parts == {"reasoning"} else "SAF"
    if module is None:
        raise CheckpointError(
            "the module cannot be inferred from the tensors",
            expected="the tensors of either SGR or SAF",
            got="both" if parts else "neither",
        )
    sizes = {
        field: _anchored(shapes, name, rank, axis, label)
        for field, (name, rank, axis) in _ANCHORS.items()
    }
    steps = {int(match[1]) for name in shapes if (match := _STEP.match(name))}
    layers = {int(match[1]) for name in shapes if (match := _LAYER.fullmatch(name))}
    return ModelConfig(
        module=module,
        **sizes,
        num_layers=max(layers, default=0) + 1,
        bidirectional=any(name.endswith("_reverse") for name in shapes),
        # Without the weights of any step, the check of the names reports a missing step.
        sgr_steps=max(steps, default=0) + 1 if module == "SGR" else 0,
        image_norm=image_norm,
        text_norm=text_norm,
    )


def source_weight(field: str) -> str | None:
    """The weight from whose shape a field of the config is inferred; None if from names."""
    return _ANCHORS[field][0] if field in _ANCHORS else None


def check_shapes(
    shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, label: Label = str
) -> None:
    """Raise CheckpointError unless these are the names and shapes of a model of `config`."""
    expected = expected_axes(config)
    missing = [name for name in expected if name not in shapes]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{label(missing[0])} is missing{more}",
            expected=_shape_text(expected[missing[0]]),
            hint="use a complete checkpoint",
        )
    for name, shape in shapes.items():
        if name not in expected:
            raise CheckpointError(
                f"{label(name)} is unexpected",
                expected=f"{len(expected)} tensors of a {_summary(config)}",
                got=f"an additional one of shape {tuple(shape)}",
            )
        if tuple(shape) != tuple(size for _, size in expected[name]):
            raise CheckpointError(
                f"{label(name)} has the wrong shape",
                expected=_shape_text(expected[name]),
                got=tuple(shape),
            )


def check_weights(
    weights: Mapping[str, NDArray[Any]], config: ModelConfig, label: Label = str
) -> None:
    """Raise CheckpointError unless `weights` are valid float32 weights of a model of `config`.

    Valid weights are finite, and no running variance is negative. BatchNorm counters are int64.
    """
    check_shapes({name: weight.shape for name, weight in weights.items()}, config, label)
    for name, weight in weights.items():
        dtype = np.dtype(np.int64 if name.endswith(COUNTER) else np.float32)
        if weight.dtype != dtype:
            raise CheckpointError(
                f"{label(name)} has the wrong type", expected=dtype, got=weight.dtype
            )
        invalid = int(weight.size - np.count_nonzero(np.isfinite(weight)))
        if invalid:
            raise CheckpointError(
                f"{label(name)} contains NaN or infinity",
                expected="finite values",
                got=f"{invalid} of {weight.size} that are not finite",
                hint="the training diverged: use an earlier checkpoint",
            )
        if name.endswith(".running_var") and weight.min() < 0:
            raise CheckpointError(
                f"{label(name)} is negative", expected="variances of at least 0", got=weight.min()
            )


def ordered(weights: Mapping[str, NDArray[Any]], config: ModelConfig) -> dict[str, NDArray[Any]]:
    """Sort weights into the order of `expected_shapes`."""
    return {name: weights[name] for name in expected_axes(config)}


def _linear(name: str, outputs: Axis, inputs: Axis) -> dict[str, tuple[Axis, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, axis: Axis) -> dict[str, tuple[Axis, ...]]:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{vector}": (axis,) for vector in vectors}, f"{name}.{COUNTER}": ()}


def _gru(config: ModelConfig) -> dict[str, tuple[Axis, ...]]:
    gates, embed = ("3 gates of embed", 3 * config.embed), ("embed", config.embed)
    suffixes = ("", "_reverse") if config.bidirectional else ("",)
    axes: dict[str, tuple[Axis, ...]] = {}
    for layer in range(config.num_layers):
        below = ("directions of embed", config.embed * len(suffixes))
        inputs = below if layer else ("word_dim", config.word_dim)
        for suffix in suffixes:
            axes |= {
                f"text_encoder.gru.weight_ih_l{layer}{suffix}": (gates, inputs),
                f"text_encoder.gru.weight_hh_l{layer}{suffix}": (gates, embed),
                f"text_encoder.gru.bias_ih_l{layer}{suffix}": (gates,),
                f"text_encoder.gru.bias_hh_l{layer}{suffix}": (gates,),
            }
    return axes


def _anchored(
    shapes: Mapping[str, tuple[int, ...]], name: str, rank: int, axis: int, label: Label
) -> int:
    fields = sorted(
        (place, field) for field, (owner, _, place) in _ANCHORS.items() if owner == name
    )
    expected = f"({', '.join(field for _, field in fields)}), each at least 1"
    if name not in shapes:
        hint = "use a complete checkpoint"
        raise CheckpointError(f"{label(name)} is missing", expected=expected, hint=hint)
    if len(shapes[name]) != rank or not all(shapes[name]):
        got = tuple(shapes[name])
        raise CheckpointError(f"{label(name)} has the wrong shape", expected=expected, got=got)
    return shapes[name][axis]


def _shape_text(axes: tuple[Axis, ...]) -> str:
    return f"({', '.join(str(size) if name == 'one' else f'{name} {size}' for name, size in axes)})"


def _summary(config: ModelConfig) -> str:
    kind = f"{config.module} of {config.sgr_steps} steps" if config.sgr_steps else config.module
    gru = "bidirectional" if config.bidirectional else "unidirectional"
    return f"{kind} with {config.num_layers} {gru} GRU layers"
