"""Models are read whole, from their own folder alone; what cannot take photographs is refused."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.photo_models import Backbone
from support.refusals import ANY, naming, refused

from sgraf_deploy.errors import InputError
from sgraf_deploy.features import models
from sgraf_deploy.features.models import Model, Tensor, read_model
from sgraf_deploy.features.session import Session

PICTURE = np.random.default_rng(3).standard_normal((1, 3, 16, 16)).astype(np.float32)


def output(model: Model) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return Session(model).run("image", PICTURE, ["out"])[0]


def test_a_model_is_its_file(tmp_path: Path) -> None:
    path = Backbone().save(tmp_path / "small.onnx")
    model = read_model(path)
    assert model.content == path.read_bytes()
    assert (model.name, model.sha256) == ("small.onnx", sha256(model.content).hexdigest())
    assert model.inputs == (Tensor("image", "float32", (1, 3, 16, 16)),)
    assert [one.name for one in model.outputs] == ["out"]
    assert output(model).shape == (1, 5, 4, 4)


def test_tensors_beside_a_model_are_read_into_it(tmp_path: Path) -> None:
    whole = read_model(Backbone().save(tmp_path / "whole.onnx"))
    (tmp_path / "parts").mkdir()
    path = Backbone().save(tmp_path / "parts" / "model.onnx", outside="model.data")
    assert path.stat().st_size < (tmp_path / "parts" / "model.data").stat().st_size
    model = read_model(path)
    assert b"model.data" not in model.content
    np.testing.assert_array_equal(output(model), output(whole))
    # Hash and content are those of the whole: where the tensors lay does not matter.
    path = Backbone().save(tmp_path / "parts" / "model.onnx", outside="other.data")
    assert read_model(path).sha256 == model.sha256
    Backbone(seed=1).save(tmp_path / "parts" / "changed.onnx", outside="other.data")
    assert read_model(path).sha256 != model.sha256


def test_tensors_may_lie_in_a_folder_below(tmp_path: Path) -> None:
    path = Backbone().save(tmp_path / "model.onnx", outside="a.data")
    (tmp_path / "below").mkdir()
    (tmp_path / "a.data").rename(tmp_path / "below" / "a.data")
    relocated(path, "below/a.data")
    assert output(read_model(path)).shape == (1, 5, 4, 4)


def relocated(path: Path, location: str, **entries: str) -> None:
    """Say another place of a model's tensors."""
    model = onnx.load(path, load_external_data=False)
    (tensor,) = model.graph.initializer
    del tensor.external_data[:]
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "location",
    [
        *("../secret", "below/../../secret", "..", ".", "", "/etc/hostname"),
        *("C:\\secret", "\\\\host\\share", "a\0b", "missing.data", "link.data", "linked/secret"),
        "pipe/../model.data",
    ],
)
def test_tensors_are_read_in_the_models_own_folder_alone(location: str, tmp_path: Path) -> None:
    """The names lead to a file outside that is there and would fit."""
    folder = tmp_path / "own"
    folder.mkdir()
    path = Backbone().save(folder / "model.onnx", outside="model.data")
    (folder / "model.data").rename(tmp_path / "secret")
    (folder / "link.data").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    relocated(path, location)
    with refused(InputError, "weights", "model.onnx"):
        read_model(path)


def test_a_model_itself_may_be_a_link(tmp_path: Path) -> None:
    """As those of caches of models are; the folder of its tensors is the link's."""
    (tmp_path / "own").mkdir()
    Backbone().save(tmp_path / "blob", outside="model.data")
    (tmp_path / "own" / "model.onnx").symlink_to(tmp_path / "blob")
    with refused(InputError, "model.onnx", expected=naming(tmp_path / "own" / "model.data")):
        read_model(tmp_path / "own" / "model.onnx")
    (tmp_path / "model.data").rename(tmp_path / "own" / "model.data")
    assert read_model(tmp_path / "own" / "model.onnx").name == "model.onnx"


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "1"},
        {"offset": "-4"},
        {"length": "-1"},
        {"length": str(2**40)},
        {"offset": "0", "length": "961"},
        {"offset": "many"},
    ],
    ids=str,
)
def test_tensors_beyond_a_file_are_refused(entries: dict[str, str], tmp_path: Path) -> None:
    path = Backbone().save(tmp_path / "model.onnx", outside="model.data")
    size = (tmp_path / "model.data").stat().st_size
    relocated(path, "model.data", **{"length": str(size), **entries})
    with refused(InputError, "weights"):
        read_model(path)


def test_too_large_a_model_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files with holes, as a model of 2 GB would take a while to write."""
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(models.MOST_BYTES + 1)
    with refused(InputError, "model.onnx", got=2**31):
        read_model(path)
    Backbone().save(path, outside="model.data")
    with (tmp_path / "model.data").open("r+b") as file:
        file.truncate(models.MOST_BYTES + 1)
    relocated(path, "model.data")
    with refused(InputError, "model.onnx", got=2**31):
        read_model(path)
    Backbone().save(path, outside="model.data")
    together = path.stat().st_size + (tmp_path / "model.data").stat().st_size
    monkeypatch.setattr(models, "MOST_BYTES", together - 1)
    with refused(InputError, "model.onnx", got=together):
        read_model(path)


@pytest.mark.parametrize(
    "content", [b"", b"text", bytes(100), b"\x08\x08", b"\x89PNG\r\n\x1a\n"], ids=repr
)
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with refused(InputError, "model.onnx"):
        read_model(path)


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with refused(InputError, path.name):
            read_model(path)


def test_operators_that_onnx_runtime_has_not_are_refused(tmp_path: Path) -> None:
    model = Backbone().build()
    model.graph.node[0].domain = "of.another.library"
    model.opset_import.add(domain="of.another.library", version=1)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with refused(InputError, "model.onnx", got=ANY):
        Session(read_model(path))


def changed(change: Callable[[onnx.ModelProto], None], path: Path) -> Model:
    model = Backbone().build()
    change(model)
    onnx.save(model, path)
    return read_model(path)


def input_of(dtype: int, axes: list[int | str]) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", dtype, axes))

    return change


@pytest.mark.parametrize(
    ("dtype", "axes", "got"),
    [
        (TensorProto.FLOAT16, [1, 3, 16, 16], naming("float16")),
        (TensorProto.UINT8, [1, 3, 16, 16], naming("uint8")),
        (99, [1, 3, 16, 16], naming(99)),
        (TensorProto.FLOAT, [3, 16, 16], naming("(3, 16, 16)")),
        (TensorProto.FLOAT, [1, 2, 3, 16, 16], naming("(1, 2, 3, 16, 16)")),
        (TensorProto.FLOAT, [8, 3, 16, 16], naming("(8, 3, 16, 16)")),
        (TensorProto.FLOAT, [], naming("()")),
    ],
)
def test_an_input_that_takes_no_photograph_is_refused(
    dtype: int, axes: list[int | str], got: object, tmp_path: Path
) -> None:
    model = changed(input_of(dtype, axes), tmp_path / "model.onnx")
    with refused(InputError, "model.onnx", expected=naming("float32"), got=got):
        model.photo_input()


def test_more_inputs_than_a_photograph_are_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input.append(
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 77])
        )

    model = changed(change, tmp_path / "model.onnx")
    with refused(InputError, "model.onnx", got=naming("image", "input_ids")):
        model.photo_input()


def test_an_initializer_is_no_input(tmp_path: Path) -> None:
    """Older exporters name both."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.input.append(
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, [5, 3, 4, 4])
        )

    assert changed(change, tmp_path / "model.onnx").photo_input().name == "image"


def test_names_that_a_model_has_not_are_refused(tmp_path: Path) -> None:
    model = read_model(Backbone().save(tmp_path / "model.onnx"))
    assert model.photo_input("image") == model.inputs[0]
    assert model.output("out") == model.outputs[0] == model.output()
    with refused(InputError, "model.onnx", expected="image", got="pixels"):
        model.photo_input("pixels")
    with refused(InputError, "model.onnx", expected="out", got="map"):
        model.output("map")
    with refused(InputError, "model.onnx", got=1):
        model.output(place=1)


def test_an_output_of_another_dtype_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.output[0].CopyFrom(
            helper.make_tensor_value_info("out", TensorProto.FLOAT16, None)
        )

    with refused(InputError, expected="float32", got=naming("float16")):
        changed(change, tmp_path / "model.onnx").output()


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    session = Session(read_model(Backbone().save(tmp_path / "model.onnx")))
    wrong = PICTURE.copy()
    wrong[0, 0, 5, 5] = np.nan
    with refused(InputError, "out", "model.onnx"):
        session.run("image", wrong, ["out"])


def test_an_input_of_another_shape_is_refused(tmp_path: Path) -> None:
    session = Session(read_model(Backbone().save(tmp_path / "model.onnx")))
    with refused(InputError, "model.onnx"):
        session.run("image", PICTURE[:, :, :8], ["out"])
