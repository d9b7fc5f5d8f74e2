"""Weights that are not what the scorer must have are refused before they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from support.changed_bundles import changed
from support.random_weights import random_weights
from support.refusals import holds, naming, refused
from support.small_models import SGR

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.native import library
from sgraf_deploy.engines.native.weights import read_weights
from sgraf_deploy.errors import BundleError
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.model.folding import fold
from sgraf_deploy.runtime import load

NAME = "local_alignment.weight"


def doubled(tensor: TensorProto) -> None:
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(float), NAME))


def texts(tensor: TensorProto) -> None:
    array = np.full(list(tensor.dims), "1", dtype=object)
    tensor.CopyFrom(numpy_helper.from_array(array, NAME))


def halved(tensor: TensorProto) -> None:
    array = numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(array, NAME))


def no_kind(tensor: TensorProto) -> None:
    tensor.data_type = 99


def huge(tensor: TensorProto) -> None:
    tensor.dims[0] = 2**40


def negative(tensor: TensorProto) -> None:
    tensor.dims[0] = -1


def flat(tensor: TensorProto) -> None:
    tensor.dims[:] = [int(np.prod(tensor.dims))]


def short(tensor: TensorProto) -> None:
    tensor.raw_data = tensor.raw_data[:-4]


def torn(tensor: TensorProto) -> None:
    tensor.raw_data = tensor.raw_data[:-1]


def long(tensor: TensorProto) -> None:
    tensor.raw_data += b"\0" * 4


def empty(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")


def outside(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def renamed(tensor: TensorProto) -> None:
    tensor.name = "another"


WRONG = [
    *(doubled, texts, halved, no_kind, huge, negative, flat),
    *(short, torn, long, empty, outside, renamed),
]


def change_weight(change: Callable[[TensorProto], None]) -> Callable[[onnx.ModelProto], None]:
    def in_model(model: onnx.ModelProto) -> None:
        (tensor,) = (each for each in model.graph.initializer if each.name == NAME)
        change(tensor)

    return in_model


@pytest.mark.skipif(not library.LIBRARY.exists(), reason="engine native was not compiled")
@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_a_bundle_with_wrong_weights_is_refused(
    exported: Bundle, tmp_path: Path, change: Callable[[TensorProto], None]
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"secret")
    bundle = changed(exported, tmp_path / "changed.sgraf", "sgr", "scorer", change_weight(change))
    with refused(BundleError, bundle.path / "sgr" / "fp32" / "scorer.onnx") as caught:
        load(bundle, engine="native")
    assert holds(caught.error.reason, NAME)


def graph(folder: Path, embed: int) -> Path:
    config = replace(SGR, embed=embed)
    model = build_graph(fold(config, random_weights(config, 0)), "scorer", "fp32")
    onnx.save(model, folder / "scorer.onnx")
    return folder / "scorer.onnx"


@pytest.mark.parametrize("embed", [64, 1100])
def test_pieces_are_joined(tmp_path: Path, embed: int) -> None:
    config = replace(SGR, embed=embed)
    found = read_weights(graph(tmp_path, embed), config)
    right = fold(config, random_weights(config, 0)).local_alignment
    assert np.array_equal(found[NAME], right.weight)
    assert np.array_equal(found["local_alignment.bias"], right.bias)


def test_a_missing_or_wider_piece_is_refused(tmp_path: Path) -> None:
    path = graph(tmp_path, 1100)
    with refused(BundleError, NAME, path, expected=(1000, 16), got=naming("(76, 16)")):
        read_weights(path, replace(SGR, embed=1000))
    model = onnx.load(path)
    (last,) = (each for each in model.graph.initializer if each.name == f"{NAME}.2")
    model.graph.initializer.remove(last)
    onnx.save(model, path)
    with refused(BundleError, NAME, path, expected=(1100, 16), got="(512, 16) + (512, 16)"):
        read_weights(path, replace(SGR, embed=1100))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with refused(BundleError, tmp_path / "noise.onnx", hint="sgraf-deploy export --force"):
        read_weights(tmp_path / "noise.onnx", SGR)
    (tmp_path / "empty.onnx").write_bytes(b"")
    with refused(BundleError, NAME, tmp_path / "empty.onnx", got=naming()):
        read_weights(tmp_path / "empty.onnx", SGR)
