"""The yardstick: the literal loop over captions, in shards, as the authors evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.model.exact import Observed
    from sgraf_deploy.model.reference import Reference

SHARD = 100
"""Images x captions that are scored in one go, as the authors do."""

GPU_SHARD = 1000
"""A larger shard, which keeps a GPU busier."""


@dataclass(frozen=True, eq=False)
class LiteralCaptions:
    """Encoded captions by member: padded words (captions, words, embed), and their lengths."""

    words: dict[str, Tensor]
    lengths: NDArray[np.int64]


@dataclass(frozen=True)
class Yardstick:
    """The arithmetic of the literal loop, as PyTorch reported it while it ran."""

    dtype: str
    below_float32: tuple[str, ...]
    """Operations on float32 that may have run in less, such as `cuda matmul tf32`."""
    cudnn: bool | None
    """Whether cuDNN may have run the GRU; None on a CPU."""
    device: str
    device_name: str | None
    """The GPU's; None on a CPU."""

    @property
    def missed(self) -> str | None:
        """Why it is no valid yardstick, as a sentence; None if it is one."""
        if not self.below_float32:
            return None
        return f"it ran below float32: {', '.join(self.below_float32)}"

    def to_json(self) -> dict[str, Any]:
        """Everything; `tf32` is true if any operation may have used it."""
        tf32 = any(operation.endswith("tf32") for operation in self.below_float32)
        return {**asdict(self), "below_float32": list(self.below_float32), "tf32": tf32}

    def __str__(self) -> str:
        parts = [self.dtype, ", ".join(self.below_float32) or "TF32 off"]
        if self.cudnn is not None:
            parts.append(f"cuDNN {'on' if self.cudnn else 'off'}")
        return ", ".join([*parts, " ".join(filter(None, (self.device, self.device_name)))])


def fastest_device() -> str | None:
    """`cuda` if PyTorch sees a GPU; None for the CPU, and without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    return "cuda" if torch.cuda.is_available() else None


class LiteralLoop:
    """`model.reference` on a bundle's original weights, float32, on PyTorch's device.

    TensorFloat-32 is off while it runs, and cuDNN on unless the caller switched it off.

    Raises UnavailableError without PyTorch, BundleError for a bundle without its reference where
    no checkpoint is given.
    """

    def __init__(
        self, bundle: Bundle, checkpoints: Sequence[Path] = (), device: str | None = None
    ) -> None:
        self.device = device or "cpu"
        self.shard = SHARD
        try:
            from sgraf_deploy.engines.torch.members import member_weights
            from sgraf_deploy.model.reference import Reference
        except ImportError as error:
            hint = "pip install 'sgraf-deploy[torch]'"
            raise UnavailableError("the PyTorch reference is not available", hint=hint) from error
        self._models: dict[str, Reference] = {
            name: Reference(
                entry.config, member_weights(bundle, name, checkpoints), device=self.device
            )
            for name, entry in bundle.manifest.members.items()
        }
        self._seen: set[Observed] = set()
        """What was observed at the end of every call, by copies with other shards too."""

    @property
    def yardstick(self) -> Yardstick:
        """The arithmetic that it has used so far."""
        import torch

        on_gpu = self.device.startswith("cuda")
        dtypes = sorted(
            {str(model.dtype).removeprefix("torch.") for model in self._models.values()}
        )
        return Yardstick(
            dtype=", ".join(dtypes),
            below_float32=tuple(sorted({each for one in self._seen for each in one.below_float32})),
            cudnn=all(one.cudnn for one in self._seen) if on_gpu else None,
            device=self.device,
            device_name=torch.cuda.get_device_name(self.device) if on_gpu else None,
        )

    @property
    def inexact(self) -> str | None:
        """Why it is no valid yardstick so far, as a sentence; None while it is one."""
        return self.yardstick.missed

    def in_shards(self, shard: int) -> LiteralLoop:
        """The same models, scored in larger or smaller shards."""
        other = copy(self)
        other.shard = shard
        return other

    def encode_images(self, regions: NDArray[Any]) -> dict[str, Tensor]:
        """Regions (images, regions, img_dim) -> (images, regions, embed) by member."""
        import torch

        with self._exactly():
            shards = [
                torch.from_numpy(np.array(regions[start : start + SHARD], dtype=np.float32)).to(
                    self.device
                )
                for start in range(0, len(regions), SHARD)
            ]
            return {
                name: torch.cat([model.encode_images(shard) for shard in shards])
                for name, model in self._models.items()
            }

    def encode_captions(self, token_ids: Sequence[NDArray[np.int32]]) -> LiteralCaptions:
        """Token ids (words,) of each caption, encoded in shards, padded to the longest."""
        import torch

        lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
        padded = torch.zeros(len(token_ids), int(lengths.max()), dtype=torch.long)
        for row, ids in enumerate(token_ids):
            padded[row, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
        with self._exactly():
            words = {
                name: torch.cat(
                    [
                        model.encode_captions(
                            padded[start : start + SHARD].to(self.device),
                            torch.from_numpy(lengths[start : start + SHARD]),
                        )
                        for start in range(0, len(padded), SHARD)
                    ]
                )
                for name, model in self._models.items()
            }
        return LiteralCaptions(words, lengths)

    def logits(
        self,
        images: dict[str, Tensor],
        captions: LiteralCaptions,
        progress: Progress | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Logits (images, captions) by member, shard by shard."""
        count, width = len(next(iter(images.values()))), len(captions.lengths)
        results = {name: np.empty((count, width), dtype=np.float32) for name in self._models}
        done, total = 0, count * width * len(self._models)
        for name, model in self._models.items():
            for row in range(0, count, self.shard):
                for column in range(0, width, self.shard):
                    rows = slice(row, row + self.shard)
                    columns = slice(column, column + self.shard)
                    with self._exactly():
                        shard = model.score(
                            images[name][rows],
                            captions.words[name][columns],
                            captions.lengths[columns],
                        )
                    results[name][rows, columns] = shard.cpu().numpy()
                    done += shard.numel()
                    if progress is not None:
                        progress(done, total)
        return results

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        """Run exactly what is inside, and observe the arithmetic that it used."""
        import torch

        from sgraf_deploy.model.exact import exact_arithmetic, observe

        with torch.inference_mode(), exact_arithmetic():
            yield
            self._seen.add(observe())
