"""Write checkpoints byte for byte as PyTorch 0.4 under Python 2.7 did.

Python 2's `str` is pickled as bytes of no stated encoding (SHORT_BINSTRING), also for keys,
attribute names and the bytes of numpy's numbers, and OrderedDict is rebuilt from pairs. Python 3
cannot write that; this emits the opcodes. Nothing is memoised, which is valid, only longer.
"""

from __future__ import annotations

import argparse
import struct
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def python2_checkpoint(payload: object) -> bytes:
    """The file of `torch.save(payload, file)` by PyTorch 0.4 under Python 2.7 on a GPU machine."""
    storages: dict[str, torch.Tensor] = {}
    system = {
        "protocol_version": _PROTOCOL,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    pickles = [_MAGIC, _PROTOCOL, system, payload]
    head = b"".join(_pickle(item, storages) for item in pickles)
    keys = sorted(storages)
    raw = b"".join(
        struct.pack("<q", storages[key].numel()) + storages[key].contiguous().numpy().tobytes()
        for key in keys
    )
    return head + _pickle(keys, storages) + raw


def _pickle(value: object, storages: dict[str, torch.Tensor]) -> bytes:
    return b"\x80\x02" + _emit(value, storages) + b"."


def _emit(value: Any, storages: dict[str, torch.Tensor]) -> bytes:
    if isinstance(value, torch.Tensor):
        return _tensor(value, storages)
    if isinstance(value, np.float64):
        return _number(value, storages)
    if isinstance(value, dict | list | tuple | argparse.Namespace):
        return _container(value, storages)
    if isinstance(value, str):
        return _string(value.encode())
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    return _integer(value) if isinstance(value, int) else b"G" + struct.pack(">d", value)


def _container(value: Any, storages: dict[str, torch.Tensor]) -> bytes:
    def each(items: Iterable[Any]) -> bytes:
        return b"(" + b"".join(_emit(item, storages) for item in items)

    if isinstance(value, tuple):
        return each(value) + b"t"
    if isinstance(value, list):
        return b"]" + each(value) + b"e"
    if isinstance(value, argparse.Namespace):
        return b"cargparse\nNamespace\n)\x81" + _emit(vars(value), storages) + b"b"
    if isinstance(value, OrderedDict):
        pairs = _emit(([[key, item] for key, item in value.items()],), storages)
        attributes = _emit({"_metadata": {"": {"version": 1}}}, storages)
        return b"ccollections\nOrderedDict\n" + pairs + b"R" + attributes + b"b"
    return b"}" + each(part for pair in value.items() for part in pair) + b"u"


def _number(value: np.float64, storages: dict[str, torch.Tensor]) -> bytes:
    state = _emit((3, "<", None, None, None, -1, -1, 0), storages)
    kind = b"cnumpy\ndtype\n" + _emit(("f8", 0, 1), storages) + b"R" + state + b"b"
    return b"cnumpy.core.multiarray\nscalar\n" + kind + _string(value.tobytes()) + b"\x86R"


def _string(data: bytes) -> bytes:
    if len(data) < 256:
        return b"U" + bytes([len(data)]) + data
    return b"T" + struct.pack("<i", len(data)) + data


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def _tensor(tensor: torch.Tensor, storages: dict[str, torch.Tensor]) -> bytes:
    key = str(94_000_000 + 16 * len(storages))
    storages[key] = tensor
    kind = b"ctorch\nLongStorage\n" if tensor.dtype == torch.int64 else b"ctorch\nFloatStorage\n"
    identity = b"(" + _emit("storage", storages) + kind + _emit(key, storages)
    identity += _emit("cuda:0", storages) + _integer(tensor.numel()) + b"NtQ"
    shape, strides = _emit(tuple(tensor.shape), storages), _emit(tensor.stride(), storages)
    hooks = b"ccollections\nOrderedDict\n](e\x85R"
    arguments = b"(" + identity + b"K\x00" + shape + strides + b"\x89" + hooks + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
