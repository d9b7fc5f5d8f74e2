"""Refuses an ONNX file that needs another file, or another library's operators.

A bundle's hashes cover its own files only. If a graph's tensors lie in another file, or its nodes
are operators of another library, no hash covers what it computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgraf_deploy.bundle.manifest import EXPORT_AGAIN
from sgraf_deploy.errors import BundleError

if TYPE_CHECKING:
    from google.protobuf.message import Message

SUFFIX = ".onnx"
"""By another suffix, runtimes take a file for another format: `.ort`, `.json`, …"""

STANDARD = ("", "ai.onnx")
"""The two names of ONNX's own domain of operators."""


def check_graph(path: Path) -> None:
    """Raise BundleError unless all of a graph is in its file, in ONNX's own operators.

    Every message of the file is checked: initializers, attributes, subgraphs and functions. Raises
    OSError for a file that cannot be read.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    if path.suffix != SUFFIX:
        raise BundleError(f"graph {path}: its name", expected=f"*{SUFFIX}", hint=EXPORT_AGAIN)
    try:
        model = ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise BundleError(
            f"graph {path} is not an ONNX file", got=error, hint=EXPORT_AGAIN
        ) from error
    for message in messages(model):
        found = _reaches_out(message)
        if found is not None:
            raise BundleError(
                f"graph {path} is not whole by itself",
                expected="all tensors in the file, and ONNX's own operators",
                got=found,
                hint=EXPORT_AGAIN,
            )


def messages(message: Message) -> Iterator[Message]:
    """A message and all that it contains, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "ListFields") else value:
                yield from messages(part)


def _reaches_out(message: Any) -> str | None:
    """What in a message needs more than this file, in words; None if nothing does."""
    import onnx
    from google.protobuf.unknown_fields import UnknownFieldSet

    if len(UnknownFieldSet(message)):
        return f"a field of {message.DESCRIPTOR.name} that onnx {onnx.__version__} does not know"
    if isinstance(message, onnx.TensorProto):
        if message.data_location != onnx.TensorProto.DEFAULT or message.external_data:
            where = {entry.key: entry.value for entry in message.external_data}
            return f"tensor {message.name!r} in {where.get('location', 'another file')!r}"
    elif isinstance(message, onnx.OperatorSetIdProto):
        if message.domain not in STANDARD:
            return f"operators of domain {message.domain!r}"
    elif isinstance(message, onnx.NodeProto):
        if message.domain not in STANDARD or not onnx.defs.has(message.op_type):
            return f"operator {message.op_type!r} of domain {message.domain!r}"
    elif isinstance(message, onnx.FunctionProto | onnx.TrainingInfoProto):
        return f"a {message.DESCRIPTOR.name}"
    return None
