"""May this ONNX file be opened? Only one that is whole by itself, and that anybody can read.

A bundle's hashes cover its files and nothing else. A graph whose tensors lie in another file, or
whose nodes are another library's, computes what no hash says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgraf_deploy.errors import BundleError

if TYPE_CHECKING:
    from google.protobuf.message import Message

SUFFIX = ".onnx"
"""By another one runtimes take a file for another format: `.ort`, `.json`, …"""

STANDARD = ("", "ai.onnx")
"""The names of the one domain of operators that needs nobody's library."""

_HINT = "export the bundle again with `sgraf-deploy export --force`"


def check_graph(path: Path) -> None:
    """Raise BundleError unless all of a graph is in its file, in ONNX's own operators.

    Looked at is every message of the file: initializers, attributes, subgraphs, functions. Raises
    OSError for a file that cannot be read.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    if path.suffix != SUFFIX:
        raise BundleError(f"graph {path}: its name", expected=f"*{SUFFIX}", hint=_HINT)
    try:
        model = ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise BundleError(f"graph {path} is no ONNX file", got=error, hint=_HINT) from error
    for message in _messages(model):
        found = _reaches_out(message)
        if found is not None:
            raise BundleError(
                f"graph {path} is not whole by itself",
                expected="all tensors in the file, and ONNX's own operators",
                got=found,
                hint=_HINT,
            )


def _messages(message: Message) -> Iterator[Message]:
    """A message and all that it contains, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "ListFields") else value:
                yield from _messages(part)


def _reaches_out(message: Any) -> str | None:
    """What in a message itself needs more than the file, in words; None if nothing does."""
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
