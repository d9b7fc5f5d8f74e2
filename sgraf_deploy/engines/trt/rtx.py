"""Which GPUs plans of TensorRT for RTX run on: one build serves several kinds, but not all."""

from __future__ import annotations

from functools import partial

from sgraf_deploy.engines.gpu import find_driver
from sgraf_deploy.engines.registry import refusal
from sgraf_deploy.engines.trt.library import Flavour, TensorRT
from sgraf_deploy.errors import UnavailableError

RTX: Flavour = "tensorrt-rtx"

CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""The compute capabilities that a plan is built for where none is named, as documented. 7.5 has to
be named, and lacks the float32 products of every graph; 9.0 and 10.0 cannot be named."""

REBUILD = "build it with `sgraf-deploy compile BUNDLE`"
INSTEAD = (
    "pip install 'sgraf-deploy[tensorrt]', then build it again with `sgraf-deploy compile BUNDLE`"
)

_BITS = {0x01: "7.5", 0x02: "8.0", 0x04: "8.6", 0x08: "8.9", 0x10: "12.0", 0x20: "12.1"}
"""The bits of the mask, each found by a build for that compute capability alone. Plans also have
0x40, which no name sets; its meaning is unknown and it is ignored."""
_MAGIC = b"vtrt"
_MASK = slice(0x20, 0x24)


def plan_capabilities(plan: bytes) -> tuple[str, ...]:
    """The compute capabilities in a plan's header; the documented ones where it has no such header.

    Only a plan that this process built is to be trusted: a header is easily forged.
    """
    if not plan.startswith(_MAGIC):
        return CAPABILITIES
    mask = int.from_bytes(plan[_MASK], "little")
    return tuple(name for bit, name in _BITS.items() if mask & bit) or CAPABILITIES


def runs_rtx(flavour: Flavour, compute_capability: str) -> bool:
    """Whether a TensorRT builds plans for such a GPU; for RTX those that are documented."""
    return flavour != RTX or compute_capability in CAPABILITIES


def rebuild(flavour: Flavour, compute_capability: str) -> str:
    """The hint at how to build a plan for such a GPU: with the same TensorRT, or with another."""
    return REBUILD if runs_rtx(flavour, compute_capability) else INSTEAD


def check_gpu(tensorrt: TensorRT, compute_capability: str) -> None:
    """Raise UnavailableError where no plan that this TensorRT builds runs on such a GPU."""
    if not runs_rtx(tensorrt.flavour, compute_capability):
        raise UnavailableError(
            f"{tensorrt} on this GPU",
            expected=f"compute capability {' or '.join(CAPABILITIES)}",
            got=compute_capability,
            hint=INSTEAD,
        )


def left_out(tensorrt: TensorRT) -> UnavailableError | None:
    """Why the first GPU does not run what this TensorRT builds; None if it does, or without one."""
    try:
        gpu = find_driver().gpus[0]
    except UnavailableError:
        return None
    return refusal(partial(check_gpu, tensorrt, gpu.compute_capability))
