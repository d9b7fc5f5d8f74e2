"""The engine `fused`: PyTorch's encoders, and scorers as Triton kernels.

The kernels are imported when the first scorer is opened: they are made for the GPU or for Triton's
interpreter (TRITON_INTERPRET=1, set before anything imports triton) at that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sgraf_deploy.config import GraphName, Precision
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.model.engines import Function, TorchEngine
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.folding import fold
from sgraf_deploy.runtime.engine import import_package

if TYPE_CHECKING:
    from sgraf_deploy.bundle import Bundle
    from sgraf_deploy.runtime.engine import EngineOptions

NEEDS_A_GPU = "a GPU by NVIDIA, its driver, and PyTorch built for CUDA; engine ort needs none"

CAPABILITY = (9, 0)
"""The kernels take up to 227 KiB of shared memory per program, which older GPUs do not have."""


class FusedEngine(TorchEngine):
    """Encoders and `pair_scorer` as in engine `torch`; the scorer of the matrix is fused.

    fp32, or fp16 with sums in float32. On the CPU it works in Triton's interpreter alone, which
    tests values and is far too slow for anything else.
    """

    name = "fused"

    def __init__(self, bundle: Bundle, precision: Precision, options: EngineOptions) -> None:
        super().__init__(bundle, precision, options)
        if interpreted():
            self.executed = f"{precision} in Triton's interpreter"
        elif self._device.type != "cuda":
            raise UnavailableError(
                "engine fused",
                expected="device cuda, or TRITON_INTERPRET=1 in the environment",
                got=self.device,
                mend="use --engine torch",
            )

    @classmethod
    def check_available(cls, device: str) -> None:
        """UnavailableError without Triton, or a GPU that its kernels run on.

        On the CPU, unless this process has Triton's interpreter.
        """
        import_package("triton.language")
        if interpreted():
            super().check_available(device)
            return
        if device == "cpu":
            raise UnavailableError("a CPU needs TRITON_INTERPRET=1", mend=NEEDS_A_GPU)
        if not torch.cuda.is_available():
            raise UnavailableError("PyTorch sees no CUDA GPU", mend=NEEDS_A_GPU)
        super().check_available(device)
        found = torch.cuda.get_device_capability(device)
        if found < CAPABILITY:
            raise UnavailableError(
                "its kernels",
                expected=f"a GPU of compute capability {'.'.join(map(str, CAPABILITY))} or above",
                got=".".join(map(str, found)),
            )

    def _functions(self, member: str) -> Mapping[GraphName, Function]:
        from sgraf_deploy.model.fused.scorer import FusedScorer

        config = self._bundle.manifest.members[member].config
        fused = FusedScorer(fold(config, self._weights(member)), self._precision, self._device)

        def scorer(*embeddings: Tensor) -> tuple[Tensor, ...]:
            return (fused(Encoded(*embeddings)),)

        return {**super()._functions(member), "scorer": scorer}


def interpreted() -> bool:
    """Whether kernels of this process run in Triton's interpreter.

    Triton's own functions tell: the variable may have been set too late for them.
    """
    import triton.language
    from triton.runtime.interpreter import InterpretedFunction

    return isinstance(triton.language.sum, InterpretedFunction)
