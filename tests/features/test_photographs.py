"""A real backbone on real photographs: against PyTorch, against stored features, byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.built_once import BuiltOnce
from support.efficientnet import backbone_file, lite2
from support.photographs import PHOTOGRAPHS, SHARED_PHOTOGRAPHS, photograph
from support.refusals import refused

from sgraf_deploy.errors import GateError
from sgraf_deploy.features.base import Features, Picture
from sgraf_deploy.features.decode import decode_photo
from sgraf_deploy.features.recipe import BACKBONE, FILE, read_recipe, write_recipe
from sgraf_deploy.features.spec import open_extractor

LITE2 = "mean=127,scale=128"
COUNT = 120


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return [decode_photo(photograph(name)) for name in PHOTOGRAPHS]


def as_bytes(features: Features) -> tuple[bytes, bytes]:
    return features.regions.tobytes(), features.boxes.tobytes()


def test_five_photographs_give_what_pytorch_gives(
    pictures: Sequence[Picture], lite2_file: Path
) -> None:
    extractor = open_extractor(f"grid:{lite2_file},{LITE2}")
    features = extractor.extract(pictures)
    assert (extractor.regions, extractor.img_dim) == (36, 1280)
    assert features.regions.shape == (5, 36, 1280)
    assert features.boxes.shape == (5, 36, 4)
    sizes = [[picture.shape[1], picture.shape[0]] for picture in pictures]
    np.testing.assert_allclose(features.boxes[:, -1, 2:], sizes, rtol=1e-6)
    network = lite2()
    for picture, regions in zip(pictures, features.regions, strict=True):
        small = Image.fromarray(picture).resize((192, 192), Image.Resampling.BICUBIC)
        numbers = (np.asarray(small, np.float32) - 127) / 128
        with torch.no_grad():
            cells = network.features(torch.from_numpy(numbers.transpose(2, 0, 1)[None].copy()))
        wanted = cells[0].flatten(1).T.numpy()
        np.testing.assert_allclose(regions, wanted, rtol=0, atol=1e-4)  # of values up to 6


def test_a_photographs_bytes_depend_on_nothing_else(
    pictures: Sequence[Picture], lite2_file: Path
) -> None:
    """Neither on what is beside it, nor on threads that share the extractor, nor on another one."""
    spec = f"grid:{lite2_file},{LITE2}"
    extractor = open_extractor(spec)
    together = as_bytes(extractor.extract(pictures))
    assert as_bytes(open_extractor(spec).extract(pictures)) == together
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: extractor.extract([one]), [*pictures, *pictures]))
    for half in (found[:5], found[5:]):
        joined = [as_bytes(one) for one in half]
        assert b"".join(regions for regions, _ in joined) == together[0]
        assert b"".join(boxes for _, boxes in joined) == together[1]


def f8k_spec(model: Path, shared: Path) -> str:
    projection = shared / "data" / "f8k_photos" / "f8k_projection.npz"
    return f"grid:{model},size=192,filter=bicubic,{LITE2},projection={projection}"


def shared_photographs(shared: Path) -> list[Path]:
    """The photographs of the first rows of `dev`, in their order."""
    ids = (shared / "data" / "f8k_precomp" / "dev_ids.txt").read_text("utf-8").splitlines()
    return [shared / SHARED_PHOTOGRAPHS / name for name in ids[:COUNT]]


@pytest.fixture(scope="module")
def stored(shared: Path) -> NDArray[np.float32]:
    rows = np.load(shared / "data" / "f8k_precomp" / "dev_ims.npy", mmap_mode="r")[:COUNT]
    return np.asarray(rows, np.float32)


@pytest.mark.slow
def test_the_shared_photographs_give_the_stored_features(
    shared: Path, stored: NDArray[np.float32], lite2_file: Path, tmp_path: Path
) -> None:
    extractor = open_extractor(f8k_spec(lite2_file, shared))
    pictures = [decode_photo(path) for path in shared_photographs(shared)]
    found = extractor.extract(pictures).regions.astype(np.float16).astype(np.float32)
    assert found.shape == stored.shape == (COUNT, 36, 256)
    lengths = np.linalg.norm(found, axis=2) * np.linalg.norm(stored, axis=2)
    cosines = (found * stored).sum(axis=2) / lengths
    assert cosines.min() >= 0.9995
    assert (found == stored).mean() >= 0.97
    write_recipe(tmp_path, extractor.spec)
    assert read_recipe(tmp_path / FILE) == extractor.spec


def test_padding_for_the_inputs_own_size_is_refused(
    shared: Path, lite2_file: Path, built_once: BuiltOnce, tmp_path: Path
) -> None:
    """As who exports the model anew would do: only the hash in the recipe is put right."""
    write_recipe(tmp_path, open_extractor(f8k_spec(lite2_file, shared)).spec)
    other = backbone_file(built_once, padding_for=192)
    model = open_extractor(f8k_spec(other, shared)).spec.models[BACKBONE]
    right = read_recipe(tmp_path / FILE).models[BACKBONE]
    text = (tmp_path / FILE).read_text("utf-8")
    text = text.replace(right.sha256, model.sha256)
    text = text.replace(f'"bytes": {right.bytes}', f'"bytes": {model.bytes}')
    (tmp_path / FILE).write_text(text, "utf-8")
    projection = f8k_spec(other, shared).partition("projection=")[2]
    with refused(GateError):
        open_extractor(f"grid:{other},recipe={tmp_path / FILE},projection={projection}")
