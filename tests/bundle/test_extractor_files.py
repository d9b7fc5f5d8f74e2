from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto
from support.refusals import naming, refused
from support.small_bundle import fill, manifest

from sgraf_deploy.bundle.bundle import Bundle, hash_file, write_manifest
from sgraf_deploy.errors import BundleError


def test_the_files_of_an_extractor_are_found_by_what_they_are_called(tmp_path: Path) -> None:
    folder = tmp_path / "small.sgraf"
    folder.mkdir()
    fill(folder, manifest())
    opened = Bundle.open(folder)

    found = opened.extractor_files()

    place = opened.path / "extractor"
    assert found == {
        "recipe": place / "extractor.json",
        "backbone": place / "backbone.onnx",
        "projection": place / "projection.npz",
    }


def test_a_backbone_that_needs_another_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "small.sgraf"
    folder.mkdir()
    made = fill(folder, manifest())
    weight = TensorProto(name="w", data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../secret")
    path = folder / "extractor" / "backbone.onnx"
    path.write_bytes(ModelProto(graph=GraphProto(initializer=[weight])).SerializeToString())
    assert made.extractor is not None
    files = {**made.extractor.files, "backbone": hash_file(path, relative_to=folder)}
    write_manifest(folder, replace(made, extractor=replace(made.extractor, files=files)))

    with refused(BundleError, path, got=naming("../secret")):
        Bundle.open(folder).extractor_files()
