"""Read and write the authors' checkpoints, and the weights that a bundle keeps for reference."""

from __future__ import annotations

import argparse
import math
import os
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.foreign import Foreign, kind_of
from sgraf_deploy.model.infer import COUNTER, check_weights, ordered
from sgraf_deploy.model.keys import describe, to_parts, to_weights
from sgraf_deploy.model.options import Plain, options_of, plain_options, reconcile
from sgraf_deploy.model.payload import find_payload
from sgraf_deploy.model.untrusted import clean_copy, import_torch, load_untrusted, saved_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One trained member, SGR or SAF, as the authors' code saves it.

    `weights` are float32 by our names, in the order of `expected_shapes`; the BatchNorm counters
    are int64. `options` are the plain values of `opt`. `inferred` says in a sentence each what
    the file did not: it is for people to read. `path` and `sha256` are of the file it was read
    from.
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
    """Read a checkpoint, which is untrusted: nothing that it holds is run.

    `key` leads to the model, dotted, in a file that holds it elsewhere than under `model`.
    Raises CheckpointError if it is not one of the authors', is damaged, names what could run
    code, or if its tensors and options do not make a model; UnavailableError without PyTorch.
    """
    path = Path(path)
    try:
        payload, sha256 = load_untrusted(path)
        return _from_payload(payload, path, sha256, key)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the authors' format, whole or not at all.

    Raises CheckpointError if its weights do not fit its config or the file cannot be written;
    UnavailableError without PyTorch.
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
    # torch would name what is in a file after the file: the same weights then differ by its name.
    with _replacing(Path(path)) as staged, staged.open("xb") as file:
        torch.save(payload, file)


def read_reference(path: str | Path, config: ModelConfig) -> dict[str, NDArray[Any]]:
    """The weights that `write_reference` wrote, in the order of `expected_shapes`; no torch.

    Raises CheckpointError if they are not the usable weights of a model of `config`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        weights = load_file(path)
        check_weights(weights, config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    # A type that numpy lacks is a KeyError.
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"{path}: cannot be read", expected="safetensors of a model's weights", got=error
        ) from error
    return ordered(weights, config)


def write_reference(path: str | Path, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write weights by our names as safetensors, whole or not at all; no torch.

    Raises CheckpointError if the file cannot be written.
    """
    from safetensors.numpy import save

    contiguous = {name: np.asarray(weight, order="C") for name, weight in weights.items()}
    with _replacing(Path(path)) as staged:
        # Their own writing to a file makes one that only its owner may read.
        staged.write_bytes(save(contiguous))


def _from_payload(loaded: object, path: Path, sha256: str, key: str | None) -> Checkpoint:
    payload = find_payload(loaded, path, key)
    if isinstance(payload.opt, Foreign):
        raise CheckpointError(
            "opt",
            expected="argparse.Namespace or dict",
            got=f"an instance of {kind_of(payload.opt)}",
            mend=clean_copy(path, saved_of("c['model']")),
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
    data_name = options.get("data_name")
    return Checkpoint(
        config=config,
        weights=ordered(weights, config),
        epoch=_whole(fields.get("epoch")),
        best_rsum=_finite(fields.get("best_rsum")),
        data_name=data_name if isinstance(data_name, str) else None,
        options=options,
        inferred=tuple(inferred),
        iterations=_whole(fields.get("Eiters")),
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
    return [f"{COUNTER} 0 for {len(missing)} BatchNorms without it"] if missing else []


def _conversions(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    import torch

    converted = Counter(
        str(tensor.dtype).removeprefix("torch.")
        for name, tensor in tensors.items()
        if not name.endswith(COUNTER) and tensor.dtype != torch.float32
    )
    return [f"{count} tensors converted from {kind}" for kind, count in converted.items()]


def _array(name: str, tensor: torch.Tensor) -> NDArray[Any]:
    """The tensor's numbers in an array of their own."""
    import torch

    # Strides of 0 let a few stored bytes stand for terabytes.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{describe(name)} is larger than what the file stores of it",
            expected=f"{tensor.numel() * tensor.element_size()} bytes",
            got=tensor.untyped_storage().nbytes(),
        )
    counter = name.endswith(COUNTER)
    whole = not tensor.is_quantized and not tensor.is_complex()
    if not tensor.is_floating_point() and not (counter and whole):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"{describe(name)}", expected="floating-point numbers", got=kind)
    plain = tensor.detach().to(torch.int64 if counter else torch.float32)
    return np.array(plain.contiguous().numpy())


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling that takes the place of `path` when the block ends without error."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield staged
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.replace(path)
    except (OSError, RuntimeError) as error:
        # torch reports what the system refused as a RuntimeError.
        reason = getattr(error, "strerror", None) or str(error).split("\n", 1)[0]
        raise CheckpointError(f"{path}: cannot be written", got=reason) from error
    finally:
        staged.unlink(missing_ok=True)
