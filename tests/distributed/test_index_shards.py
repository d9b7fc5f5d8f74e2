"""`index --shards`: every image is in the shard that its id says, and a run that ended goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_world import Ran, done, line_naming, refused_line, run, write_precomp
from support.small_models import SGR, random_regions

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.distributed.parts import ScorerSettings
from sgraf_deploy.distributed.shards import shard_of
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gallery import Gallery

IMAGES, SHARDS = 25, 3
NAMES = [f"photo{row}.jpg" for row in range(IMAGES)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "precomp"
    return write_precomp(folder, random_regions(SGR, IMAGES, seed=3), ["a dog"] * 5 * IMAGES)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def index(bundle: Bundle, data: Path, *more: object) -> Ran:
    return run("index", bundle.path, "--data", data, "--split", "dev", "-o", "g", *more)


def check_shards(bundle: Bundle, data: Path, atol: float = 0) -> None:
    """Each shard holds its images, encoded as they are without shards."""
    split = open_precomp(data, "dev")
    with sgraf_deploy.load(bundle) as scorer:
        expected = scorer.encode_images(split.regions)
        for shard in range(SHARDS):
            with Gallery.open(f"g/part-{shard}.gallery") as gallery:
                rows = [row for row, name in enumerate(NAMES) if shard_of(name, SHARDS) == shard]
                assert gallery.ids() == [NAMES[row] for row in rows]
                found = gallery.images(scorer, gallery.ids()).to_host()
            for member, named in expected[rows].to_host().items():
                for name, array in named.items():
                    assert np.allclose(found[member][name], array, 0, atol)


def written(result: Ran) -> dict[int, tuple[int, int]]:
    """By shard, how many were written and how many were there."""
    assert (result.exit_code, result.stderr) == (0, ""), result.output + repr(result.exception)
    found = {}
    for shard in range(SHARDS):
        line = line_naming(result.stdout, f"part-{shard}.gallery")
        added, present = line.partition(": ")[2].split(" added, ")
        found[shard] = int(added.split()[0]), int(present.split()[0])
    return found


def counts() -> dict[int, int]:
    return {n: sum(shard_of(name, SHARDS) == n for name in NAMES) for n in range(SHARDS)}


def test_every_image_is_in_the_shard_of_its_id(exported: Bundle, data: Path) -> None:
    assert written(index(exported, data, "--shards", SHARDS)) == {
        shard: (number, 0) for shard, number in counts().items()
    }
    check_shards(exported, data)
    assert json.loads(Path("g/shards.json").read_text())["shards"] == SHARDS
    assert written(index(exported, data, "--shards", SHARDS)) == {
        shard: (0, number) for shard, number in counts().items()
    }


def test_only_what_is_missing_is_encoded(exported: Bundle, data: Path) -> None:
    index(exported, data, "--shards", SHARDS, "--limit-images", 10)
    found = written(index(exported, data, "--shards", SHARDS))
    assert sum(present for _, present in found.values()) == 10
    assert sum(added for added, _ in found.values()) == IMAGES - 10


def test_what_has_changed_is_encoded_anew_on_request(
    exported: Bundle, data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data, tmp_path / "copy")
    index(exported, data, "--shards", SHARDS, "--limit-images", 10)
    regions = np.load(data / "dev_ims.npy")
    regions[3] += 1
    np.save(data / "dev_ims.npy", regions)
    refused_line(index(exported, data, "--shards", SHARDS), DataError, hint="index --replace")
    result = index(exported, data, "--shards", SHARDS, "--replace")
    assert result.exit_code == 0, result.output
    check_shards(exported, data, atol=1e-6)  # in a batch by itself
    shard = shard_of(NAMES[3], SHARDS)
    there = sum(shard_of(name, SHARDS) == shard for name in NAMES[:10])
    added = counts()[shard] - there
    line_naming(result.stdout, f"part-{shard}.gallery", added, 1, there - 1)


def test_another_number_of_shards_is_refused(exported: Bundle, data: Path) -> None:
    index(exported, data, "--shards", SHARDS)
    result = index(exported, data, "--shards", SHARDS + 1)
    refused_line(result, InputError, "--shards", "g", expected=SHARDS, got=SHARDS + 1)
    Path("g/shards.json").write_text('{"format": 1}')
    refused_line(index(exported, data, "--shards", SHARDS), DataError, "shards.json", "kind")


def test_suspicious_data_are_told_once(exported: Bundle, data: Path, tmp_path: Path) -> None:
    zeros = write_precomp(tmp_path / "zeros", np.zeros_like(np.load(data / "dev_ims.npy")), ["a"])
    result = index(exported, zeros, "--shards", SHARDS)
    assert (result.exit_code, result.warned) == (0, ["zero-images"])


def test_a_bundle_that_cannot_be_loaded_is_tried_once(
    exported: Bundle, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Bundle] = []

    def load(_: ScorerSettings, bundle: Bundle) -> Any:
        tried.append(bundle)
        raise DataError("the bundle")

    monkeypatch.setattr(ScorerSettings, "load", load)
    refused_line(index(exported, data, "--shards", SHARDS), DataError, "the bundle")
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--ray",), "--ray"),
        (("--actors", 2), "--actors"),
        (("--shards", 2, "--actors", 2), "--actors"),
    ],
)
def test_options_that_need_others(
    exported: Bundle, data: Path, more: tuple[object, ...], named: str
) -> None:
    refused_line(index(exported, data, *more), InputError, named)
    assert not Path("g").exists()


def test_what_is_encoded_already_is_not_put_into_shards(exported: Bundle) -> None:
    result = run("index", exported.path, "--from-npz", "x.npz", "-o", "g", "--shards", 2)
    refused_line(result, InputError, "--shards")


@pytest.mark.ray
def test_actors_write_the_same_shards(cluster: Any, exported: Bundle, data: Path) -> None:
    ray = ("--shards", SHARDS, "--ray", cluster.address, "--actors", 2)
    done("index", exported.path, "--data", data, "--split", "dev", "-o", "g", *ray)
    check_shards(exported, data)
