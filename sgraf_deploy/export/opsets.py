"""The versions of ONNX's operators in which graphs are written."""

from __future__ import annotations

from collections.abc import Iterable

from sgraf_deploy.config import Precision
from sgraf_deploy.errors import InputError

OPSETS: dict[Precision, int] = {"fp32": 18, "fp16": 18, "fp8": 19}
"""Those that an export takes by default."""

OLDEST: dict[Precision, int] = {"fp32": 15, "fp16": 15, "fp8": 19}
"""`Shape` gives a part of a shape since 15, and FP8 came with 19."""

NEWEST = 23
"""The newest that every onnx and ONNX Runtime knows that this program runs with."""


def check_opset(opset: int, precisions: Iterable[Precision]) -> None:
    """Raise InputError for an opset in which a graph of one of the precisions cannot be written."""
    for precision in precisions:
        oldest = OLDEST[precision]
        if not oldest <= opset <= NEWEST:
            others = [each for each in OPSETS if OLDEST[each] <= opset <= NEWEST]
            raise InputError(
                f"opset of {precision} graphs",
                expected=f"{oldest} … {NEWEST}",
                got=opset,
                hint=f"leave --opset out, or choose `--precision {others[0]}`"
                if others
                else "leave --opset out",
            )
