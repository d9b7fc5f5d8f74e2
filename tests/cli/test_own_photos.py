"""One's own photographs, from files to a ranking: features, train, export, rerank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.cli_world import World, captions_of, done, line_naming, refused_line, run, tree
from support.refusals import naming
from support.small_models import SGR
from support.tiny_backbone import spec_of, write_backbone, write_photos

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.regions import open_regions, region_statistics
from sgraf_deploy.errors import CheckpointError, DataError, GateError, InputError
from sgraf_deploy.features.recipe import FILE, read_recipe
from sgraf_deploy.features.trained import Trained, read_trained
from sgraf_deploy.model.checkpoint import read_checkpoint, write_checkpoint

PHOTOS = 12
SMALL = (
    *("--split", "dev", "--embed", 8, "--sim-dim", 4, "--word-dim", 6, "--epochs", 1),
    *("--batch-size", 10, "--min-count", 1, "--module", "SAF"),
)


@dataclass(frozen=True)
class Own:
    """A folder of features of photographs, with captions, and a checkpoint trained on it."""

    spec: str
    photos: Path
    data: Path
    checkpoint: Path

    @property
    def export(self) -> tuple[object, ...]:
        return ("export", self.checkpoint, "--vocab", "own_vocab.json", "--precision", "fp32")


def make(world: World, backbone: Path, *more: object) -> Own:
    spec, photos, data = spec_of(backbone), world.folder / "photos", world.folder / "data"
    write_photos(photos, range(PHOTOS))
    done("features", photos, "--extractor", spec, "-o", data, "--split", "dev", *more)
    (data / "dev_caps.txt").write_text("\n".join(captions_of(PHOTOS)) + "\n")
    done("train", data, "-o", "own.pth.tar", *SMALL)
    return Own(spec, photos, data, world.folder / "own.pth.tar")


@pytest.fixture
def own(world: World, backbone_file: Path) -> Own:
    return make(world, backbone_file)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_way_from_photographs_to_a_ranking(
    world: World, backbone_file: Path, dtype: str
) -> None:
    own = make(world, backbone_file, "--dtype", dtype)
    extractor = ("--extractor", own.spec, "--gate-data", own.data, "-o", "own.sgraf")

    done(*own.export, *extractor)

    photos = sorted(own.photos.iterdir())
    ids = (own.data / "dev_ids.txt").read_text().splitlines()
    assert sorted(ids) == [path.name for path in photos]
    stored = open_regions(own.data / "dev_ims.npy")
    captions = captions_of(3)
    with sgraf_deploy.load("own.sgraf") as scorer:
        seen = scorer.encode_photos([own.photos / name for name in ids])
        known = scorer.encode_images(stored)
        bound = 1e-5 if dtype == "float32" else 4 * float(np.finfo(np.float16).eps)
        for member, rows in seen.to_host().items():
            for name, found in rows.items():
                np.testing.assert_allclose(found, known.to_host()[member][name], atol=bound, rtol=0)
        one, other = scorer.score(seen, captions), scorer.score(known, captions)
        np.testing.assert_allclose(one, other, atol=bound, rtol=0)
        best = scorer.rerank(captions[0], known)
    query = ("--caption", captions[0], "--top-k", PHOTOS)
    shown = done("rerank", "own.sgraf", "--images", own.photos, *query)
    lines = shown.stdout.splitlines()[-PHOTOS:]
    assert [line.split()[-1] for line in lines] == [ids[row] for row in best.indices]


def test_a_checkpoint_remembers_its_features(own: Own) -> None:
    checkpoint = read_checkpoint(own.checkpoint)

    found = read_trained(checkpoint.options, (SGR.regions, SGR.img_dim))

    assert found.statistics == region_statistics(open_regions(own.data / "dev_ims.npy"))
    assert found.recipe == read_recipe(own.data / FILE)


def test_an_export_takes_the_statistics_of_the_training(own: Own) -> None:
    exported = done(*own.export, "-o", "own.sgraf")

    assert exported.warned == []
    statistics = Bundle.open("own.sgraf").manifest.region_statistics
    assert statistics == region_statistics(open_regions(own.data / "dev_ims.npy"))


def test_gate_data_of_another_kind_are_told_by_the_statistics_of_the_training(
    own: Own, world: World
) -> None:
    foreign = world.folder / "foreign"
    foreign.mkdir()
    (foreign / "dev_caps.txt").write_text((own.data / "dev_caps.txt").read_text())
    regions = np.load(own.data / "dev_ims.npy")
    np.save(foreign / "dev_ims.npy", np.ascontiguousarray(regions[..., ::-1]))

    found = done(*own.export, "-o", "own.sgraf", "--gate-data", foreign)

    assert "foreign-channels" in found.warned


def test_features_of_another_kind_are_warned_of_wherever_they_are_read(
    own: Own, world: World
) -> None:
    done(*own.export, "-o", "own.sgraf")
    foreign = world.folder / "foreign"
    foreign.mkdir()
    (foreign / "dev_caps.txt").write_text((own.data / "dev_caps.txt").read_text())
    regions = np.load(own.data / "dev_ims.npy")
    np.save(foreign / "dev_ims.npy", np.ascontiguousarray(regions[..., ::-1]))
    world.monkeypatch.setattr("sgraf_deploy.bench.latency.CANDIDATES", (2, 5))
    world.monkeypatch.setattr("sgraf_deploy.bench.speed.SETTLE_SECONDS", 0)

    for data, expected in ((own.data, []), (foreign, ["foreign-channels"])):
        split = ("--data", data, "--split", "dev")
        for command in (
            ("eval", "own.sgraf", *split),
            ("rerank", "own.sgraf", *split, "--caption", "word3"),
            ("index", "own.sgraf", *split, "-o", f"{data.name}.gallery"),
            ("bench", "own.sgraf", *split, "--engine", "ort", "--repeats", 1, "--warmup", 0),
            ("features", "-o", data, "--split", "dev", "--like", "own.sgraf"),
        ):
            warned = [code for code in done(*command).warned if code == "foreign-channels"]
            assert warned == expected, command[0]


@pytest.mark.filterwarnings("always::sgraf_deploy.errors.RegionsWarning")
def test_photographs_through_a_foreign_extractor_are_warned_of(own: Own, world: World) -> None:
    other = spec_of(write_backbone(world.folder / "other.onnx", SGR.regions, SGR.img_dim, seed=9))
    foreign = ("--extractor", other, "--allow-foreign-features")
    for name, extractor in (("right", ("--extractor", own.spec)), ("foreign", foreign)):
        done(*own.export, *extractor, "-o", f"{name}.sgraf")
        for command in (
            ("rerank", f"{name}.sgraf", "--images", own.photos, "--caption", "word3"),
            ("index", f"{name}.sgraf", "--photos", own.photos, "-o", f"{name}.gallery"),
        ):
            warned = [line for line in done(*command).warned if "deviations" in line]
            assert len(warned) == (name == "foreign"), command[0]


@pytest.mark.parametrize("where", ["training", "gate-data"])
def test_another_extractor_than_that_of_the_features_is_refused(
    own: Own, world: World, where: str
) -> None:
    other = spec_of(write_backbone(world.folder / "other.onnx", SGR.regions, SGR.img_dim, seed=9))
    given = [*own.export, "--extractor", other, "-o", "own.sgraf"]
    if where == "gate-data":
        checkpoint = read_checkpoint(own.checkpoint)
        checkpoint.options.pop("extractor")
        write_checkpoint(own.checkpoint, checkpoint)
        given += ["--gate-data", own.data]
    before = tree(world.folder)

    named = own.data if where == "gate-data" else "saf"
    hint = "--allow-foreign-features"
    refused_line(run(*given), InputError, named, got=naming("models.backbone.sha256"), hint=hint)
    assert tree(world.folder) == before

    done(*given, "--allow-foreign-features")
    made = Bundle.open("own.sgraf").manifest.extractor
    assert made is not None
    assert made.identity != read_recipe(own.data / FILE).sha256


def test_the_same_extractor_by_its_recipe_or_a_bundle_is_taken(own: Own) -> None:
    done(*own.export, "--extractor", own.spec, "-o", "one.sgraf")
    done(*own.export, "--extractor", "one.sgraf", "-o", "two.sgraf")

    one, two = (Bundle.open(name).manifest.extractor for name in ("one.sgraf", "two.sgraf"))
    assert one == two
    assert one is not None
    assert one.identity == read_recipe(own.data / FILE).sha256


@pytest.mark.parametrize(("regions", "img_dim"), [(5, 64), (7, 32)])
def test_an_extractor_of_other_dimensions_is_refused(
    world: World, regions: int, img_dim: int
) -> None:
    spec = spec_of(write_backbone(world.folder / "other.onnx", regions, img_dim))

    result = run("export", world.sgr, "--extractor", spec, "-o", "a.sgraf")

    refused_line(
        result, InputError, "--extractor", expected=naming(7, 64), got=naming(regions, img_dim)
    )
    assert not Path("a.sgraf").exists()


def test_weights_beside_a_model_are_stored_inside(world: World) -> None:
    folder = world.folder / "model"
    folder.mkdir()
    spec = spec_of(write_backbone(folder / "m.onnx", SGR.regions, SGR.img_dim, outside=True))
    assert (folder / "weights.bin").exists()

    done("export", world.sgr, "--precision", "fp32", "--extractor", spec, "-o", "a.sgraf")

    (folder / "weights.bin").unlink()
    opened = Bundle.open("a.sgraf")
    assert opened.verify_files() == ()
    assert sorted(path.name for path in Path("a.sgraf/extractor").iterdir()) == [
        "backbone.onnx",
        "extractor.json",
    ]
    with sgraf_deploy.load(opened) as scorer:
        assert len(scorer.encode_photos(write_photos(world.folder / "photos", [1]))) == 1
    line_naming(done("inspect", "a.sgraf").stdout, "grid", 7, 64)
    line_naming(done("verify", "a.sgraf").stdout, "extractor", "reference picture")


def test_a_stored_copy_of_other_pixels_is_found(world: World, backbone_file: Path) -> None:
    """The recipe's reference picture is of other colours than the recipe now says."""
    done(
        *("export", world.sgr, "--precision", "fp32", "-o", "a.sgraf"),
        *("--extractor", spec_of(backbone_file)),
    )
    text = Path("a.sgraf/extractor/extractor.json").read_text()
    folder = world.folder / "changed"
    folder.mkdir()
    (folder / "backbone.onnx").write_bytes(backbone_file.read_bytes())
    (folder / FILE).write_text(text.replace('"RGB"', '"BGR"'))

    result = run("export", world.sgr, "-o", "b.sgraf", "--extractor", folder / FILE)

    refused_line(result, GateError, "reference picture")
    assert not Path("b.sgraf").exists()


def test_a_recipe_that_does_not_fit_its_folder_is_refused(own: Own) -> None:
    np.save(own.data / "dev_ims.npy", np.load(own.data / "dev_ims.npy")[:, :5])

    result = run("train", own.data, "-o", "new.pth.tar", *SMALL)

    refused_line(result, DataError, own.data / FILE, expected=naming(5, 64), got=naming(7, 64))
    assert not Path("new.pth.tar").exists()


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("region_statistics", 3, "opt.region_statistics"),
        ("region_statistics", {"images": 4}, "opt.region_statistics.channel_mean"),
        ("extractor", {"kind": "grid"}, "opt.extractor"),
        ("extractor", "mine", "opt.extractor"),
    ],
)
def test_what_no_training_wrote_is_refused(
    own: Own, option: str, value: object, named: str
) -> None:
    checkpoint = read_checkpoint(own.checkpoint)
    checkpoint.options[option] = value  # type: ignore[assignment]
    write_checkpoint(own.checkpoint, checkpoint)

    refused_line(run(*own.export, "-o", "own.sgraf"), CheckpointError, named)


def test_nothing_is_remembered_of_nothing() -> None:
    assert Trained(None, None).to_opt() == {}
    empty = read_trained({}, (7, 64))
    assert (empty.statistics, empty.recipe) == (None, None)


def test_foreign_features_need_an_extractor(world: World) -> None:
    result = run("export", world.sgr, "--allow-foreign-features", "-o", "a.sgraf")

    refused_line(result, InputError, "--allow-foreign-features", expected=naming("--extractor"))
