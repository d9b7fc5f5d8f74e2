"""Engine `fused`: PyTorch's encoders, and scorers as Triton kernels.

The kernels are imported when the first scorer is opened, and are then made for the GPU or for
Triton's interpreter (TRITON_INTERPRET=1, set before anything imports triton).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from sgraf_deploy.config import GraphName, ModelConfig, Precision
from sgraf_deploy.engines.base import TileAdvice
from sgraf_deploy.engines.buffers import Array
from sgraf_deploy.engines.fused.blocks import Blocks
from sgraf_deploy.engines.fused.fit import Gpu, choose_blocks, find_gpu
from sgraf_deploy.engines.gpu import NEEDS_A_GPU
from sgraf_deploy.engines.registry import import_package
from sgraf_deploy.engines.torch.engine import Function, TorchEngine
from sgraf_deploy.engines.torch.transfer import download
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.folding import fold

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.engines.base import EngineOptions

NEEDS_PYTORCH = f"install PyTorch's CUDA build; {NEEDS_A_GPU}"

CAPABILITY = (8, 0)
"""The lowest compute capability that Triton supports; for 7.5 it compiles float16 products without
tensor cores."""


class FusedEngine(TorchEngine):
    """Engine `torch` with Triton kernels for the scorer of whole tiles.

    It runs fp32, or fp16 with sums in float32. On the CPU it works only in Triton's interpreter,
    which tests values and is far too slow for anything else.
    """

    name = "fused"

    def __init__(self, bundle: Bundle, precision: Precision, options: EngineOptions) -> None:
        super().__init__(bundle, precision, options)
        self.check_available(self.device)
        if interpreted():
            self.executed = f"{precision} in Triton's interpreter"
        self._on_host = WeakTensorKeyDictionary()
        gpu = find_gpu(self._device)
        self._blocks = {
            name: _blocks(name, member.config, precision, gpu)
            for name, member in bundle.manifest.members.items()
        }

    @classmethod
    def check_available(cls, device: str) -> None:
        """Raise UnavailableError without Triton, or a GPU that its kernels run on.

        In Triton's interpreter no GPU is needed.
        """
        import_package("triton.language")
        if interpreted():
            super().check_available(device)
            return
        if device == "cpu":
            raise UnavailableError(
                "its kernels, which Triton compiles",
                expected="device cuda, or TRITON_INTERPRET=1 in the environment",
                got=device,
                hint="use --engine torch",
            )
        if not torch.cuda.is_available():
            raise UnavailableError("PyTorch sees no CUDA GPU", hint=NEEDS_PYTORCH)
        super().check_available(device)
        found = find_gpu(torch.device(device)).capability
        if found < CAPABILITY:
            raise UnavailableError(
                "its kernels, which Triton compiles",
                expected=f"a GPU of compute capability {'.'.join(map(str, CAPABILITY))} or above",
                got=".".join(map(str, found)),
                hint="use engine trt or torch",
            )

    @property
    def tile_advice(self) -> TileAdvice:
        """Four times as much as for engines that store contexts, of which the kernels keep none.

        The estimate of a tile counts them: the kernels take about a tenth of it.
        """
        advice = super().tile_advice
        if self._device.type == "cpu":
            return advice
        return replace(advice, tile_bytes=4 * advice.tile_bytes)

    def put(self, array: Array) -> Tensor:
        """See `Engine.put`; lengths are remembered, so that a scorer need not ask the device."""
        tensor = super().put(array)
        if array.dtype == np.int32 and array.ndim == 1:
            self._on_host[tensor] = array.copy()
        return tensor

    def _lengths(self, lengths: Tensor) -> NDArray[np.int32]:
        if lengths not in self._on_host:
            return download(lengths)
        known: NDArray[np.int32] = self._on_host[lengths]
        return known

    def _functions(self, member: str) -> Mapping[GraphName, Function]:
        from sgraf_deploy.engines.fused.scorer import FusedScorer

        config = self._bundle.manifest.members[member].config
        fused = FusedScorer(
            fold(config, self._weights(member)),
            self._precision,
            self._device,
            blocks=self._blocks[member],
            on_host=self._lengths,
        )

        def scorer(*embeddings: Tensor) -> tuple[Tensor, ...]:
            return (fused(Encoded(*embeddings)),)

        return {**super()._functions(member), "scorer": scorer}


def _blocks(member: str, config: ModelConfig, precision: Precision, gpu: Gpu) -> Blocks:
    try:
        return choose_blocks(config, precision, gpu)
    except UnavailableError as error:
        raise error.at(f"engine fused: model {member}") from error


def interpreted() -> bool:
    """Whether kernels of this process run in Triton's interpreter.

    Triton's own functions are asked, as the variable may have been set too late for them.
    """
    import triton.language
    from triton.runtime.interpreter import InterpretedFunction

    return isinstance(triton.language.sum, InterpretedFunction)
