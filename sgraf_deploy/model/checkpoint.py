"""Read and write the authors' checkpoints, and the reference weights that a bundle keeps."""

from __future__ import annotations

import argparse
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.files.writer import staged_file, write_file
from sgraf_deploy.model.foreign import Foreign, kind_of
from sgraf_deploy.model.infer import COUNTER, check_weights, ordered
from sgraf_deploy.model.keys import describe, to_parts, to_weights
from sgraf_deploy.model.options import Plain, options_of, plain_options, reconcile
from sgraf_deploy.model.payload import find_payload
from sgraf_deploy.model.untrusted import clean_copy, import_torch, load_untrusted, saved_of
from sgraf_deploy.schema import is_text, shown

if TYPE_CHECKING:
    import torch

_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"})
_INTEGERS = frozenset({"int64", "int32", "int16", "int8", "uint8", "bool"})
"""The dtypes of numbers that are accepted; PyTorch has more, not all of which it can convert."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One trained member, SGR or SAF, as the authors' code saves it.

    `weights` are float32 by this package's names, in the order of `expected_shapes`; the BatchNorm
    counters are int64. `options` are the plain values of `opt`. `inferred` has a sentence, for
    people, for each fact that the file does not state. `path` and `sha256` are those of the file
    that the checkpoint was read from.
    """

    config: ModelConfig
    weights: dict[str, NDArray[Any]]
    epoch: int | None
    best_rsum: float | None
    data_name: str | None
    options: dict[str, Plain]
    inferred: tuple[str, ...] = ()
    iterations: int | None = None
    path: Path | None = None
    sha256: str = ""


def read_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Read a checkpoint, which is untrusted: no code in it is run.

    `key` is the dotted path of the model in a file that does not have it under `model`. Raises
    CheckpointError if the file is not a checkpoint of the authors' code, is damaged, names
    something that could run code, or if its tensors and options do not make a model;
    UnavailableError if there is no PyTorch that can read it safely.
    """
    path = Path(path)
    try:
        payload, sha256 = load_untrusted(path)
        return _from_payload(payload, path, sha256, key)
    except CheckpointError as error:
        raise error.at(path) from error


def write_checkpoint(path: str | Path, checkpoint: Checkpoint, *, replace: bool = True) -> None:
    """Write a checkpoint in the authors' format, atomically.

    Raises CheckpointError if its weights do not fit its config, or the file cannot be written, or
    exists and `replace` is off; UnavailableError without PyTorch.
    """
    torch = import_torch()
    check_weights(checkpoint.weights, checkpoint.config, describe)
    options = options_of(checkpoint.config, checkpoint.options)
    if checkpoint.data_name is not None:
        options["data_name"] = checkpoint.data_name
    parts = to_parts(ordered(checkpoint.weights, checkpoint.config))
    payload = {
        "epoch": checkpoint.epoch,
        # Copies: an array may be read-only or share memory, which a tensor must not.
        "model": [
            OrderedDict((key, torch.from_numpy(weight.copy())) for key, weight in part.items())
            for part in parts
        ],
        "best_rsum": checkpoint.best_rsum,
        "opt": argparse.Namespace(**options),
        "Eiters": checkpoint.iterations or 0,
    }
    # Given a path, torch stores the file's name inside, so equal weights would give unequal files.
    with staged_file(path, what="checkpoint", error=CheckpointError, replace=replace) as file:
        try:
            torch.save(payload, file)
        except RuntimeError as error:
            raise _refusal(error) from error


def read_reference(path: str | Path, config: ModelConfig) -> dict[str, NDArray[Any]]:
    """Read the weights that `write_reference` wrote, in the order of `expected_shapes`; no torch.

    Raises CheckpointError if they are not the valid weights of a model of `config`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        weights = load_file(path)
        check_weights(weights, config)
    except CheckpointError as error:
        raise error.at(path) from error
    # A dtype that numpy lacks raises a KeyError.
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"{path}: cannot be read", expected="a model's weights as safetensors", got=error
        ) from error
    return ordered(weights, config)


def write_reference(path: str | Path, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write weights by this package's names as safetensors, atomically; no torch.

    Raises CheckpointError if the file cannot be written.
    """
    from safetensors.numpy import save

    contiguous = {name: np.asarray(weight, order="C") for name, weight in weights.items()}
    write_file(path, save(contiguous), what="reference", error=CheckpointError)


def _from_payload(loaded: object, path: Path, sha256: str, key: str | None) -> Checkpoint:
    payload = find_payload(loaded, path, key)
    if isinstance(payload.opt, Foreign):
        raise CheckpointError(
            "opt",
            expected="argparse.Namespace or dict",
            got=f"an instance of {kind_of(payload.opt)}",
            hint=clean_copy(path, saved_of("c['model']")),
        )
    options, left_out = plain_options(payload.opt)
    fields = payload.fields
    tensors = to_weights(payload.parts)
    inferred = [*payload.notes, *left_out, *_add_counters(tensors)]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config, sentences = reconcile(shapes, options)
    inferred += sentences + _conversions(tensors)
    weights = {name: _array(name, tensor) for name, tensor in tensors.items()}
    check_weights(weights, config, describe)
    return Checkpoint(
        config=config,
        weights=ordered(weights, config),
        epoch=_whole("epoch", fields.get("epoch")),
        best_rsum=_finite("best_rsum", fields.get("best_rsum")),
        data_name=_text("opt.data_name", options.get("data_name")),
        options=options,
        inferred=tuple(inferred),
        iterations=_whole("Eiters", fields.get("Eiters")),
        path=path,
        sha256=sha256,
    )


def _add_counters(tensors: dict[str, torch.Tensor]) -> list[str]:
    """Add the BatchNorm counters that PyTorch before 0.4.1 did not have."""
    import torch

    owners = [name.removesuffix("running_var") for name in tensors if name.endswith("running_var")]
    missing = [f"{owner}{COUNTER}" for owner in owners if f"{owner}{COUNTER}" not in tensors]
    for name in missing:
        tensors[name] = torch.zeros((), dtype=torch.int64)
    return [f"{COUNTER} 0 for {len(missing)} BatchNorms that lack it"] if missing else []


def _conversions(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    import torch

    converted = Counter(
        str(tensor.dtype).removeprefix("torch.")
        for name, tensor in tensors.items()
        if not name.endswith(COUNTER) and tensor.dtype != torch.float32
    )
    return [f"{count} tensors converted from {kind}" for kind, count in converted.items()]


def _array(name: str, tensor: torch.Tensor) -> NDArray[Any]:
    """A copy of the tensor's numbers as an array."""
    import torch

    # Strides of 0 let a few stored bytes stand for terabytes.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{describe(name)} is larger than its stored data",
            expected=f"{tensor.numel() * tensor.element_size()} bytes",
            got=tensor.untyped_storage().nbytes(),
        )
    counter = name.endswith(COUNTER)
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in (_FLOATS | _INTEGERS if counter else _FLOATS):
        raise CheckpointError(f"{describe(name)}", expected="floating-point numbers", got=kind)
    plain = tensor.detach().to(torch.int64 if counter else torch.float32)
    return np.array(plain.resolve_neg().contiguous().numpy())


def _whole(name: str, value: object) -> int | None:
    """An integer, or None for another type; CheckpointError for one of more than 64 bits."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if not -(2**63) <= value < 2**63:
        raise CheckpointError(name, expected="an integer of 64 bits", got=shown(value))
    return value


def _finite(name: str, value: object) -> float | None:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    whole = _whole(name, value)
    return None if whole is None else float(whole)


def _text(name: str, value: object) -> str | None:
    if not isinstance(value, str):
        return None
    if not is_text(value):
        expected = "text without lone surrogates"
        raise CheckpointError(name, expected=expected, got=shown(value))
    return value


def _refusal(error: RuntimeError) -> OSError:
    """The system's OSError that caused torch's RuntimeError, or one with torch's message."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    if cause is None:
        return OSError(str(error).split("\n", 1)[0])
    return OSError(cause.errno, cause.strerror)
