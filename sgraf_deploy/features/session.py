"""Models in ONNX: read whole, with the tensors inside, and run by a fixed number of threads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model as one file: the name of the file it came from, and its whole content."""

    name: str
    content: bytes
    sha256: str
