"""Models in ONNX: read whole, with the tensors inside that they keep in files beside them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from sgraf_deploy.bundle.graph_check import messages
from sgraf_deploy.errors import InputError

MOST_BYTES = (2 << 30) - 1
"""Of a model with all its tensors: protobuf can hold no more in one file."""

MODEL_HINT = "export the model to ONNX again, in float32 and in one file"
_DTYPE = "float32"
_IMAGE_AXES = 4


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a model: axes that the model leaves open are None."""

    name: str
    dtype: str
    axes: tuple[int | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("?" if one is None else str(one) for one in self.axes)
        return f"{self.name} {self.dtype} ({axes})"


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model as one file: the name of the file it came from, and its whole content."""

    name: str
    content: bytes
    sha256: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def photo_input(self, name: str | None = None) -> Tensor:
        """The input for photographs, by its name or the only one: four axes of float32.

        Raises InputError for any other, and where the model needs more inputs or has none so named.
        """
        found = _chosen(self.inputs, name, f"input of {self.name}")
        if len(self.inputs) > 1:
            raise InputError(
                f"{self.name} needs more than a photograph",
                expected="one input",
                got=", ".join(one.name for one in self.inputs),
                hint="export the part of the model that takes images alone",
            )
        fits = len(found.axes) == _IMAGE_AXES and found.axes[0] in (None, 1)
        if found.dtype != _DTYPE or not fits:
            raise InputError(
                f"input of {self.name}",
                expected="float32 (1, 3, height, width) or (1, height, width, 3)",
                got=found,
                hint=MODEL_HINT,
            )
        return found

    def output(self, name: str | None = None, place: int = 0) -> Tensor:
        """An output of float32, by its name or its place.

        Raises InputError for another dtype, and where the model has no such output.
        """
        if name is None and place >= len(self.outputs):
            what, got = f"outputs of {self.name}", len(self.outputs)
            raise InputError(what, expected=f"at least {place + 1}", got=got, hint=MODEL_HINT)
        name = self.outputs[place].name if name is None else name
        found = _chosen(self.outputs, name, f"output of {self.name}")
        if found.dtype != _DTYPE:
            what = f"output of {self.name}"
            raise InputError(what, expected=_DTYPE, got=found, hint=MODEL_HINT)
        return found


def read_model(path: Path) -> Model:
    """Read an ONNX model, and what it keeps in files beside it, into one.

    Raises InputError for what is no ONNX model or more than 2 GB, and for tensors that are not in
    ordinary files in the model's own folder.
    """
    content = _read(path, path.name)
    model, whole = _inlined(content, path)
    inside = {one.name for one in model.graph.initializer}
    inputs = [_tensor(one) for one in model.graph.input if one.name not in inside]
    outputs = [_tensor(one) for one in model.graph.output]
    digest = sha256(whole).hexdigest()
    return Model(path.name, whole, digest, tuple(inputs), tuple(outputs))


def _read(path: Path, name: str) -> bytes:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"model {name} cannot be read", expected="a file", got=str(path))
        _check_size(found.st_size, name)
        return path.read_bytes()
    except OSError as error:
        got = error.strerror or error
        raise InputError(f"model {name} cannot be read", got=got) from error


def _check_size(size: int, name: str) -> None:
    if size > MOST_BYTES:
        hint = "use a smaller model, or one in fewer parameters"
        expected = "at most 2 GB with all its tensors"
        raise InputError(f"model {name} is too large", expected=expected, got=size, hint=hint)


def _inlined(content: bytes, path: Path) -> tuple[Any, bytes]:
    """The model and its content with all tensors inside; the same where they are inside already."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise InputError(f"{path.name} is not an ONNX model", got=error, hint=MODEL_HINT) from error
    if not model.graph.node:
        raise InputError(f"{path.name} is not an ONNX model", got="no nodes", hint=MODEL_HINT)
    outside = [
        message
        for message in messages(model)
        if isinstance(message, onnx.TensorProto)
        and (message.external_data or message.data_location == onnx.TensorProto.EXTERNAL)
    ]
    total = len(content)
    for tensor in outside:
        values = _outside(tensor, path)
        total += len(values)
        _check_size(total, path.name)
        tensor.raw_data = values
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return model, model.SerializeToString(deterministic=True) if outside else content


def _outside(tensor: Any, path: Path) -> bytes:
    """A tensor's bytes in a file beside the model."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    location = where.get("location", "")
    name = f"tensor {tensor.name!r} of {path.name}"
    file = _beside(path.parent, location, name)
    try:
        offset = int(where.get("offset", "0"))
        size = file.stat().st_size
        length = int(where.get("length", size - offset))
        if offset < 0 or length < 0 or offset + length > size:
            raise InputError(
                f"{name} reaches beyond {location}", expected=size, got=offset + length
            )
        _check_size(length, path.name)
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(length)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read", got=error) from error


def _beside(folder: Path, location: str, name: str) -> Path:
    """The ordinary file that a location names below a folder; links are refused."""
    place = PurePosixPath(location)
    plain = bool(place.parts) and not place.is_absolute() and ".." not in place.parts
    hint = "put the file itself beside the model"
    if not plain or not location.isprintable() or set(location) & set("\\:"):
        expected = "a file in the model's folder"
        raise InputError(f"{name}: its place", expected=expected, got=repr(location), hint=hint)
    found = folder
    for part in place.parts:
        found /= part
        if found.is_symlink():
            raise InputError(f"{name}: its place", expected="no link", got=str(found), hint=hint)
    if not found.is_file():
        raise InputError(f"{name} is missing", expected=f"file {found}", hint=hint)
    return found


def _tensor(value: Any) -> Tensor:
    """What an ONNX file says of an input or an output."""
    import onnx

    kind = value.type.tensor_type
    names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    name = names.get(kind.elem_type, f"type {kind.elem_type}")
    axes = tuple(one.dim_value if one.dim_value > 0 else None for one in kind.shape.dim)
    return Tensor(value.name, _DTYPE if name == "float" else name, axes)


def _chosen(tensors: Sequence[Tensor], name: str | None, what: str) -> Tensor:
    found = [one for one in tensors if name in (None, one.name)]
    if not found:
        names = ", ".join(one.name for one in tensors) or "one"
        hint = MODEL_HINT if name is None else None
        raise InputError(what, expected=names, got=name or "none", hint=hint)
    return found[0]
