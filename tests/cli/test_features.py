"""`sgraf-deploy features`: from photographs to a folder that the other commands read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cells import write_photos
from support.cli_world import (
    Ran,
    World,
    captions_of,
    done,
    edit_manifest,
    line_naming,
    refused_line,
    run,
)
from support.refusals import holds, naming
from support.small_models import SGR
from support.tiny_backbone import write_backbone

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import open_images
from sgraf_deploy.data.regions import region_statistics
from sgraf_deploy.errors import DataError, GateError, InputError
from sgraf_deploy.features.recipe import read_recipe

IMAGES = 6


@pytest.fixture
def photos(world: World) -> Path:
    """Photographs beside a backbone whose regions fit the small models."""
    write_backbone(world.folder / "backbone.onnx", SGR.regions, SGR.img_dim)
    write_photos(world.folder / "photos", IMAGES, (40, 30))
    return world.folder / "photos"


def spec(options: str = "preset=imagenet") -> str:
    return f"grid:backbone.onnx,{options}"


def features(*more: object, options: str = "preset=imagenet", folder: str = "f") -> Ran:
    """Extract the photographs as `dev`."""
    given = ("photos", "--extractor", spec(options), "-o", folder, "--split", "dev")
    return run("features", *given, *more)


def extracted(*more: object, options: str = "preset=imagenet", folder: str = "f") -> Ran:
    result = features(*more, options=options, folder=folder)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result


@pytest.mark.usefixtures("photos")
def test_photographs_become_a_split(world: World) -> None:
    result = extracted()
    line_naming(result.stdout, IMAGES, SGR.regions, SGR.img_dim)
    line_naming(result.stdout, "dev", "f", IMAGES)
    split = open_images("f", "dev", model=(SGR.regions, SGR.img_dim))
    assert split.ids == [f"photo{row:03d}.png" for row in range(IMAGES)]
    assert np.load("f/dev_sizes.npy").tolist() == [[40, 30]] * IMAGES
    assert np.load("f/dev_boxes.npy").shape == (IMAGES, SGR.regions, 4)
    assert read_recipe(Path("f/extractor.json")).models["backbone"].file == "backbone.onnx"
    assert sorted(path.name for path in world.folder.iterdir()) == ["backbone.onnx", "f", "photos"]


@pytest.mark.usefixtures("photos")
def test_jobs_and_a_second_run_change_no_byte(world: World) -> None:
    for folder, jobs in (("a", 1), ("b", 2), ("c", 2)):
        extracted("--jobs", jobs, "--dtype", "float16", folder=folder)
    contents = [
        {path.name: path.read_bytes() for path in (world.folder / name).iterdir()} for name in "abc"
    ]
    assert contents[0] == contents[1] == contents[2]
    assert open_images("a", "dev").regions.dtype == np.float16


def test_a_folder_of_features_is_ranked_without_captions(world: World, photos: Path) -> None:
    extracted()
    arguments = ("rerank", world.bundle, "--data", "f", "--split", "dev")
    found = done(*arguments, "--caption", "word3 word7 word11").stdout
    for photo in photos.iterdir():
        line_naming(found, photo.name)
    line_naming(found, IMAGES, IMAGES)
    assert (world.folder / "f" / "dev_caps.txt").exists() is False
    # Captions that are put beside them are found by the commands that need them.
    refused_line(run(*arguments, "--image", 0), DataError, expected="dev_caps.txt")
    world.write("f/dev_caps.txt", "\n".join(captions_of(IMAGES)))
    done(*arguments, "--image", "photo002.png")
    done("eval", world.bundle, "--data", "f", "--split", "dev")


def test_five_copies_of_one_photograph_are_five_images(world: World, photos: Path) -> None:
    """Features that are stored once per caption look the same, but have other names."""
    for name in range(10):
        content = (photos / f"photo00{name // 5}.png").read_bytes()
        (photos / f"copy{name}.png").write_bytes(content)
    for photo in photos.glob("photo*"):
        photo.unlink()
    extracted()
    arguments = ("rerank", world.bundle, "--data", "f", "--split", "dev", "--caption", "word3")
    line_naming(done(*arguments).stdout, "copy3.png")


def test_boxes_go_along_into_a_gallery(world: World, photos: Path) -> None:
    from sgraf_deploy.gallery import Gallery

    extracted()
    done("index", world.bundle, "--data", "f", "--split", "dev", "-o", "g")
    found = Gallery.open("g").details([next(photos.iterdir()).name])[0]
    assert found.size == (40, 30)
    assert found.boxes is not None
    assert found.boxes[:, 2].max() == pytest.approx(40)


def test_what_cannot_be_read_is_skipped_with_an_exit_code(world: World, photos: Path) -> None:
    (photos / "photo001.png").write_bytes(b"none")
    (photos / "notes.txt").write_text("none")
    result = features()
    assert result.exit_code == 3
    assert [holds(line, "photo001.png") for line in result.warned] == [True]
    line_naming(result.stdout, IMAGES, 1)
    line_naming(result.stdout, "dev", "f", IMAGES - 1, 1)
    listed = (world.folder / "f" / "dev_skipped.txt").read_text()
    assert listed.startswith("photo001.png\t")
    named = run(
        *("features", photos / "notes.txt", "--extractor", spec(), "-o", "h", "--split", "dev"),
        *("--on-error", "stop"),
    )
    refused_line(named, DataError, photos / "notes.txt")


def test_only_some_of_many_are_named_on_the_screen(world: World, photos: Path) -> None:
    for number in range(12):
        (photos / f"bad{number:02d}.jpg").write_bytes(b"")
    result = features()
    assert result.exit_code == 3
    assert len(result.warned) == 11
    assert holds(result.warned[-1], 2)
    assert holds(result.warned[-1], os.path.join("f", "dev_skipped.txt"))
    assert len((world.folder / "f" / "dev_skipped.txt").read_text().splitlines()) == 12


def test_stop_leaves_work_that_resume_goes_on_with(world: World, photos: Path) -> None:
    (photos / "photo005.png").write_bytes(b"none")
    refused_line(features("--on-error", "stop"), DataError, Path("photos/photo005.png"))
    assert [path.name for path in (world.folder / "f").iterdir()] == [".dev.work"]
    refused_line(features(), InputError, "dev", hint=["--resume", "--force"])
    assert features("--resume").exit_code == 3
    again = features("--resume")
    assert again.exit_code == 3
    line_naming(again.stdout, "dev", IMAGES - 1, IMAGES)
    refused_line(features(), InputError, "dev", hint="--force")
    assert features("--force").exit_code == 3


def test_a_list_of_ids_chooses(world: World, photos: Path) -> None:
    ids = world.write("ids.txt", "photo004.png\nphoto001.png\n")
    extracted("--ids", ids)
    assert open_images("f", "dev").ids == ["photo004.png", "photo001.png"]


@pytest.mark.usefixtures("photos")
def test_an_extractor_json_is_a_spec(world: World) -> None:
    extracted()
    recipe = world.write("extractor.json", (world.folder / "f" / "extractor.json").read_bytes())
    done("features", "photos", "--extractor", recipe, "-o", "g", "--split", "dev")
    first, second = (world.folder / name / "dev_ims.npy" for name in "fg")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("options", "named", "expected"),
    [
        (("photos", "-o", "f", "--split", "dev"), "--extractor", "SPEC"),
        (("-o", "f", "--split", "dev"), "PATHS", ""),
        (("-o", "f", "--split", "dev", "--extractor", "x"), "PATHS", ""),
        (
            ("photos", "--extractor", "x", "-o", "f", "--split", "dev", "--json", "a.json"),
            "--json",
            "--compare",
        ),
    ],
)
@pytest.mark.usefixtures("photos")
def test_options_that_do_not_go_together_are_refused(
    options: tuple[str, ...], named: str, expected: str
) -> None:
    wanted = naming(expected) if expected else naming()
    refused_line(run("features", *options), InputError, named, expected=wanted)


@pytest.mark.usefixtures("photos")
def test_like_refuses_what_does_not_fit_before_anything_is_extracted(world: World) -> None:
    write_backbone(world.folder / "backbone.onnx", 2 * SGR.regions, SGR.img_dim)
    result = features("--like", world.bundle)
    refused_line(result, DataError, got=(2 * SGR.regions, SGR.img_dim), expected=naming(7, 64))
    assert not (world.folder / "f").exists()


@pytest.mark.usefixtures("photos")
def test_like_a_bundle_with_an_extractor_the_reference_picture_must_be_the_same(
    world: World, photographed: Bundle
) -> None:
    extracted("--like", photographed.path)
    for wrong in ("preset=imagenet,order=BGR", "preset=clip", "preset=none"):
        result = features("--like", photographed.path, options=wrong, folder="g")
        refused_line(result, GateError, expected=naming("0.999"))
        assert not (world.folder / "g").exists()
    extracted(options="preset=clip", folder="g")
    result = done("features", "-o", "g", "--split", "dev", "--like", photographed.path)
    assert [holds(line, "pixels.backbone.mean") for line in result.warned] == [True]


@pytest.mark.usefixtures("photos")
def test_like_warns_of_channels_that_are_unlike_those_of_the_training(world: World) -> None:
    write_photos(world.folder / "photos", 10, (40, 30))
    extracted()
    alike = region_statistics(np.load("f/dev_ims.npy"))
    other = {**alike, "channel_std": alike["channel_std"][::-1]}
    like = ("features", "-o", "f", "--split", "dev", "--like")
    for statistics, warned in ((alike, []), (other, ["foreign-channels"])):
        copy = world.copy()
        edit_manifest(copy, lambda manifest: manifest.update(region_statistics=statistics))  # noqa: B023
        assert done(*like, copy).warned == warned
        shutil.rmtree(copy)


def test_a_bundle_is_a_spec(photos: Path, photographed: Bundle) -> None:
    extracted()
    given = ("features", photos, "--extractor", photographed.path, "-o", "g", "--split", "dev")
    done(*given, "--compare", "f", "--json", "found.json")
    assert json.loads(Path("found.json").read_text())["features"]["equal"] == 1


def test_an_interrupt_says_how_to_go_on(
    world: World, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sgraf_deploy.features.extraction.decode", interrupt)
        result = features()
    assert result.exit_code == 130
    line_naming(result.stderr, "--resume")
    assert [path.name for path in (world.folder / "f").iterdir()] == [".dev.work"]
    extracted("--resume")
    assert len(open_images("f", "dev").regions) == len(list(photos.iterdir()))


def compared(*more: object) -> tuple[Ran, dict[str, Any]]:
    given = ("-o", "f", "--split", "dev", "--compare", "g", "--json", "found.json")
    result = done("features", *given, *more)
    return result, json.loads(Path("found.json").read_text())


@pytest.mark.usefixtures("photos")
def test_features_are_compared_with_others_of_the_same_photographs(world: World) -> None:
    extracted()
    extracted(folder="g", options="preset=imagenet,filter=nearest")
    result, found = compared()
    line_naming(result.stdout, IMAGES, "f", "g")
    features = found["features"]
    assert (features["images"], features["regions"]) == (IMAGES, IMAGES * SGR.regions)
    assert (features["images_by"], features["regions_by"]) == ("ids", "boxes")
    assert (features["moved"], features["close"]) == (0, 0)
    assert features["lowest"] < features["mean"] < 0.999
    assert found["recall"] is None


def test_new_features_are_compared_at_once(world: World, photos: Path) -> None:
    extracted(folder="g")
    (photos / "photo000.png").unlink()
    extracted("--compare", "g", "--json", "found.json")
    found = json.loads((world.folder / "found.json").read_text())["features"]
    assert (found["mean"], found["close"], found["equal"]) == (pytest.approx(1), 1, 1)
    assert (found["only_first"], found["only_second"]) == (0, 1)


@pytest.mark.parametrize("where", ["f", "g"])
def test_with_a_bundle_and_captions_the_recall_of_both_is_measured(
    world: World, photos: Path, where: str
) -> None:
    extracted(folder="g")
    (photos / "photo000.png").unlink()
    extracted(options="preset=clip,order=BGR")
    captions = captions_of(IMAGES)
    lines = captions if where == "g" else captions[5:]
    world.write(f"{where}/dev_caps.txt", "\n".join(lines))
    result, found = compared("--like", world.bundle)
    first, second = found["recall"]
    # The same photographs and captions, evaluated by themselves.
    write = [np.load(f"{name}/dev_ims.npy")[-IMAGES + 1 :] for name in "fg"]
    for regions, reports in zip(write, (first, second), strict=True):
        data = world.folder / f"data{len(list(world.folder.iterdir()))}"
        data.mkdir()
        np.save(data / "dev_ims.npy", regions)
        (data / "dev_caps.txt").write_text("\n".join(captions[5:]))
        done("eval", world.bundle, "--data", data, "--split", "dev", "--json", "eval.json")
        assert json.loads(Path("eval.json").read_text())["reports"] == reports
    change = first["SGRAF"]["rsum"] - second["SGRAF"]["rsum"]
    line_naming(result.stdout, f"{change:+.2f}")


@pytest.mark.usefixtures("photos")
def test_a_bundle_without_captions_says_that_recall_is_not_measured(world: World) -> None:
    extracted()
    extracted(folder="g")
    result, found = compared("--like", world.bundle)
    assert found["recall"] is None
    assert [holds(line, "dev_caps.txt") for line in result.noted] == [True]
