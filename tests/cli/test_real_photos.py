"""The shared Flickr8K checkpoints on photographs, by a bundle that has their extractor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from support.built_once import BuiltOnce
from support.cli_world import done, line_naming, refused_line, run
from support.efficientnet import backbone_file
from support.photographs import SHARED_PHOTOGRAPHS

import sgraf_deploy
from sgraf_deploy.data.precomp import PrecompSplit, open_precomp
from sgraf_deploy.errors import GateError
from sgraf_deploy.features.recipe import FILE, write_recipe
from sgraf_deploy.features.spec import open_extractor

PHOTOS, CAPTIONS, TOP = 120, 100, 10
LEAST_OVERLAP = 0.98

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Real:
    """The bundle of both checkpoints with the recipe's extractor, and the stored features."""

    bundle: Path
    photos: Path
    split: PrecompSplit
    spec: str

    @property
    def captions(self) -> list[str]:
        """Captions of the photographs, spread over all of them."""
        return self.split.captions[:: len(self.split.captions) // CAPTIONS][:CAPTIONS]


def recipe_of(model: Path, shared: Path) -> str:
    """The SPEC that ../shared/data/f8k_photos/README.md describes, of a backbone."""
    projection = shared / "data" / "f8k_photos" / "f8k_projection.npz"
    return f"grid:{model},size=192,mean=127,scale=128,projection={projection}"


@pytest.fixture(scope="module")
def real(shared: Path, lite2_file: Path, built_once: BuiltOnce) -> Real:
    photos, spec = shared / SHARED_PHOTOGRAPHS, recipe_of(lite2_file, shared)
    if not photos.is_dir():
        pytest.skip(f"needs the photographs in {photos}")
    data = shared / "data" / "f8k_precomp"

    def build(target: Path) -> None:
        done(
            "export",
            *(shared / "checkpoints" / f"f8k_{name}.pth.tar" for name in ("SGR", "SAF")),
            *("--vocab", shared / "data" / "f8k_precomp_vocab.json", "--precision", "fp32"),
            *("--gate-data", data, "--extractor", spec, "-o", target),
        )

    bundle = built_once("f8k_photos.sgraf", build)
    return Real(bundle, photos, open_precomp(data, "dev", limit_images=PHOTOS), spec)


def ranked(stdout: str) -> list[str]:
    """The images of the table, the best first."""
    lines = stdout.splitlines()
    rule = next(index for index, line in enumerate(lines) if line.strip().startswith("---"))
    return [line.split()[-1] for line in lines[rule + 1 :]]


def test_photographs_rank_as_the_stored_features_do(real: Real) -> None:
    names, jpegs = real.split.ids, sorted(real.photos.iterdir())
    assert names is not None
    assert {path.name for path in jpegs} == {*names}
    with sgraf_deploy.load(real.bundle) as scorer:
        stored = scorer.encode_images(real.split.regions)
        seen = scorer.encode_photos(jpegs)
        overlaps, firsts = [], []
        for caption in real.captions:
            right = [names[row] for row in scorer.rerank(caption, stored, TOP).indices]
            found = [jpegs[row].name for row in scorer.rerank(caption, seen, TOP).indices]
            overlaps.append(len({*right} & {*found}) / TOP)
            firsts.append(right[0] == found[0])
        assert len(overlaps) == CAPTIONS
        assert np.mean(overlaps) >= LEAST_OVERLAP, np.mean(overlaps)
        assert np.mean(firsts) >= LEAST_OVERLAP, np.mean(firsts)

        result = done("rerank", real.bundle, "--images", real.photos, "--caption", real.captions[7])
        best = scorer.rerank(real.captions[7], seen, TOP)
        assert ranked(result.stdout) == [jpegs[row].name for row in best.indices]
        assert result.stderr == ""
    line_naming(result.stdout, PHOTOS, "photographs")


def test_padding_for_another_size_is_refused(
    real: Real, shared: Path, built_once: BuiltOnce, tmp_path: Path
) -> None:
    """Of 192 in place of 260: the regions of the photographs then have a cosine of 0.46."""
    recipe = open_extractor(real.spec).spec
    other = open_extractor(recipe_of(backbone_file(built_once, padding_for=192), shared))
    model = other.spec.models["backbone"]
    folder = tmp_path / "recipe"
    folder.mkdir()
    for path in (backbone_file(built_once, padding_for=192), Path(real.spec.rpartition("=")[2])):
        (folder / path.name).write_bytes(path.read_bytes())
    write_recipe(folder, replace(recipe, models={"backbone": model}))

    checkpoint = shared / "checkpoints" / "f8k_SAF.pth.tar"
    result = run("export", checkpoint, "-o", tmp_path / "a.sgraf", "--extractor", folder / FILE)
    refused_line(result, GateError, "reference picture")
    assert not (tmp_path / "a.sgraf").exists()
