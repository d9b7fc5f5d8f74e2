"""Reads Triton's `config.pbtxt` as Triton does: protobuf's text format, with its field names.

The message is the part of Triton's `model_config.proto` that packages may use. A field or a value
that the message does not have is an error.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

_FIELD = descriptor_pb2.FieldDescriptorProto
_TEXT, _INT32, _INT64 = _FIELD.TYPE_STRING, _FIELD.TYPE_INT32, _FIELD.TYPE_INT64

_ENUMS = {
    "DataType": {"TYPE_INVALID": 0, "TYPE_INT32": 8, "TYPE_FP16": 10, "TYPE_FP32": 11},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
}
_TENSOR = {"name": (1, _TEXT, False), "data_type": (2, "DataType", False)}
_MESSAGES: dict[str, dict[str, tuple[int, Any, bool]]] = {
    "ModelInput": _TENSOR | {"dims": (4, _INT64, True)},
    "ModelOutput": _TENSOR | {"dims": (3, _INT64, True)},
    "ModelInstanceGroup": {
        "kind": (4, "Kind", False),
        "count": (2, _INT32, False),
        "gpus": (3, _INT32, True),
        "profile": (5, _TEXT, True),
    },
    "ModelConfig": {
        "name": (1, _TEXT, False),
        "platform": (2, _TEXT, False),
        "max_batch_size": (4, _INT32, False),
        "input": (5, "ModelInput", True),
        "output": (6, "ModelOutput", True),
        "instance_group": (7, "ModelInstanceGroup", True),
        "default_model_filename": (8, _TEXT, False),
        "backend": (17, _TEXT, False),
    },
}
"""By message and field: number, type, and whether it is repeated."""


def parse(text: str) -> Any:
    """The ModelConfig that a text holds; raises `text_format.ParseError` for any other text."""
    return text_format.Parse(text, _model_config()())


@cache
def _model_config() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="triton.proto", package="triton", syntax="proto3"
    )
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value in sorted(values, key=values.__getitem__):
            enum.value.add(name=value, number=values[value])
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type = _FIELD.TYPE_ENUM if kind in _ENUMS else _FIELD.TYPE_MESSAGE
                added.type_name = f".triton.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))
