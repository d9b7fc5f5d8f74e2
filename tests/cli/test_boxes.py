"""Extractor `boxes` all the way: into a folder, into a bundle, and from there to a ranking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.box_models import write_detector
from support.cli_world import World, done
from support.small_models import SGR
from support.tiny_backbone import write_backbone, write_photos

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.features.decode import decode_photo
from sgraf_deploy.features.spec import open_extractor

SPEC = (
    f"boxes:detector.onnx+backbone.onnx,preset=imagenet,detector.preset=unit,regions={SGR.regions}"
)


@pytest.fixture
def photos(world: World) -> list[Path]:
    """Photographs beside the models of the SPEC, whose regions fit the small checkpoints."""
    write_detector(world.folder / "detector.onnx")
    write_backbone(world.folder / "backbone.onnx", SGR.regions, SGR.img_dim)
    return write_photos(world.folder / "photos", range(5))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_has_the_boxes_beside_the_regions(
    world: World, photos: list[Path], jobs: int
) -> None:
    given = ("photos", "--extractor", SPEC, "-o", "f", "--split", "dev", "--jobs", jobs)
    done("features", *given)
    expected = open_extractor(SPEC).extract([decode_photo(path) for path in photos])
    stored = [np.load(world.folder / "f" / f"dev_{name}.npy") for name in ("ims", "boxes")]
    assert [array.shape for array in stored] == [(5, SGR.regions, SGR.img_dim), (5, SGR.regions, 4)]
    assert stored[0].tobytes() == expected.regions.tobytes()
    assert stored[1].tobytes() == expected.boxes.tobytes()


def test_a_bundle_has_both_models(
    world: World, photos: list[Path], checkpoint_files: dict[str, Path], vocabulary_file: Path
) -> None:
    extractor = open_extractor(SPEC)
    regions = extractor.extract([decode_photo(path) for path in photos]).regions
    options = ExportOptions(vocabulary=vocabulary_file, extractor=SPEC, precisions=("fp32",))
    export_bundle([*checkpoint_files.values()], Path("boxes.sgraf"), options)
    for name in ("detector.onnx", "backbone.onnx"):
        (world.folder / name).unlink()
    files = Bundle.open(Path("boxes.sgraf")).extractor_files()
    assert files is not None
    assert set(files) == {"recipe", "detector", "backbone"}
    with sgraf_deploy.load("boxes.sgraf") as scorer:
        assert scorer.extractor.spec == extractor.spec
        found = scorer.rerank("word3 word7", scorer.encode_photos(photos))
        expected = scorer.rerank("word3 word7", regions)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.logits.tolist() == expected.logits.tolist()
