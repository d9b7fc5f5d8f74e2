"""The gate's inputs, and the literal reference's outputs for them: `reference/gate.npz`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.manifest import EXPORT_AGAIN
from sgraf_deploy.config import Precision
from sgraf_deploy.errors import BundleError
from sgraf_deploy.files.writer import staged_file


@dataclass(frozen=True, eq=False)
class GateInputs:
    """Images and captions for the gate; the last image is all zeros.

    regions (images, regions, img_dim) float32; token_ids (captions, words) int32, padded with 0;
    lengths (captions,) int32. `source` says in words where they are from, and `real` whether they
    are data rather than noise.
    """

    regions: NDArray[np.float32]
    token_ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    source: str
    real: bool


@dataclass(frozen=True, eq=False)
class GateReference:
    """The literal loop's outputs, computed in float64; the embeddings are kept as float32.

    region_embeddings (images, regions, embed), image_global (images, embed), word_embeddings
    (captions, words, embed), text_global (captions, embed), logits (images, captions).
    """

    region_embeddings: NDArray[np.float32]
    image_global: NDArray[np.float32]
    word_embeddings: NDArray[np.float32]
    text_global: NDArray[np.float32]
    logits: NDArray[np.float64]
    fp8_logits: NDArray[np.float64] | None = None
    """PyTorch's logits of the same inputs as `fp8-rounded`; None for a bundle without FP8."""
    internals: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """What the graph `explain` gives beside logits, of `explained_pairs`, by name; padded with
    zeros to the longest caption. None of them in bundles that are older than the graph."""

    def logits_of(self, precision: Precision) -> NDArray[np.float64]:
        """The logits that graphs are compared with.

        FP8's are those that PyTorch computes with FP8's rounding: R@K judges what that costs.
        """
        if precision != "fp8":
            return self.logits
        if self.fp8_logits is None:
            raise BundleError("the gate's logits in FP8", got="none", hint=EXPORT_AGAIN)
        return self.fp8_logits

    @property
    def region_gram(self) -> NDArray[np.float32]:
        """Products of each image's regions (images, regions, regions), from the embeddings."""
        return self.region_embeddings @ self.region_embeddings.transpose(0, 2, 1)


_INTERNALS = "internals"


def explained_pairs(inputs: GateInputs) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The image and the caption of each pair, (pairs,), that graphs `explain` are tried on.

    The shortest caption, the longest, and the image of zeros.
    """
    images, lengths = len(inputs.regions), inputs.lengths
    captions = [int(lengths.argmin()), int(lengths.argmax()), len(lengths) // 2]
    return np.array([0, 1 % images, images - 1], np.int32), np.array(captions, np.int32)


def write_gate(path: Path, inputs: GateInputs, references: Mapping[str, GateReference]) -> None:
    """Write inputs and every member's reference outputs as one `.npz`; BundleError if it fails."""
    arrays: dict[str, NDArray[Any]] = {
        "regions": inputs.regions,
        "token_ids": inputs.token_ids,
        "lengths": inputs.lengths,
        "source": np.array(inputs.source),
        "real": np.array(inputs.real),
    }
    for member, outputs in references.items():
        for name in _arrays():
            if getattr(outputs, name) is not None:
                arrays[f"{member}.{name}"] = getattr(outputs, name)
        for name, values in outputs.internals.items():
            arrays[f"{member}.{_INTERNALS}.{name}"] = values
    with staged_file(path, what="gate file", error=BundleError) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_gate(path: Path, members: tuple[str, ...]) -> tuple[GateInputs, dict[str, GateReference]]:
    """Read what `write_gate` wrote; BundleError if something is missing or unreadable."""
    try:
        # numpy leaves a file that it opened itself open if that is not an archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            inputs = GateInputs(
                arrays["regions"],
                arrays["token_ids"],
                arrays["lengths"],
                str(arrays["source"]),
                bool(arrays["real"]),
            )
            references = {
                member: GateReference(
                    **{
                        name: arrays[f"{member}.{name}"]
                        for name in _arrays()
                        if name != "fp8_logits" or f"{member}.fp8_logits" in arrays
                    },
                    internals=_internals(arrays, f"{member}.{_INTERNALS}."),
                )
                for member in members
            }
    except (KeyError, OSError, ValueError, BadZipFile) as error:
        raise BundleError(
            f"gate file {path} cannot be read", got=error, hint=EXPORT_AGAIN
        ) from error
    return inputs, references


def _arrays() -> list[str]:
    """The fields of a reference that are one array each."""
    return [each.name for each in fields(GateReference) if each.name != _INTERNALS]


def _internals(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
