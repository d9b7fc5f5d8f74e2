"""A SPEC opens an extractor: its options, what they decide, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.photo_models import PATCH, Backbone
from support.refusals import ANY, naming, refused

from sgraf_deploy.errors import DataError, GateError, InputError, UnavailableError
from sgraf_deploy.features.base import Picture, RegionExtractor
from sgraf_deploy.features.options import PRESETS
from sgraf_deploy.features.recipe import (
    BACKBONE,
    FILE,
    Pixels,
    Recipe,
    Resizing,
    differences,
    read_recipe,
    write_recipe,
)
from sgraf_deploy.features.spec import Parts, open_extractor, open_parts, read_parts

PICTURE = np.random.default_rng(4).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return Backbone().save(tmp_path / "small.onnx")


def recipe_of(model: Path, *options: str) -> Recipe:
    return read_parts(",".join([f"grid:{model}", *options])).recipe


def extracted(spec: str) -> Any:
    return open_extractor(spec).extract([PICTURE])


def test_what_is_not_said_is_the_models_or_a_default(small: Path) -> None:
    recipe = recipe_of(small, "preset=siglip")
    assert recipe.resizing[BACKBONE] == Resizing(16, 16, "squash", "bicubic", 0)
    half = (127.5,) * 3
    assert recipe.pixels[BACKBONE] == Pixels("RGB", "NCHW", half, half)
    model = recipe.models[BACKBONE]
    assert (model.file, model.input, model.outputs) == ("small.onnx", "image", ("out",))
    assert model.bytes == small.stat().st_size
    assert (recipe.kind, recipe.skip, recipe.projection) == ("grid", 0, None)


def test_every_option_is_in_the_recipe(small: Path) -> None:
    recipe = recipe_of(
        small,
        *("size=16x16", "fit=pad", "filter=lanczos", "fill=114", "mean=1/2/3", "scale=4/-5/6.5"),
        *("order=BGR", "layout=NCHW", "input=image", "output=out", "skip=2", "regions=7"),
    )
    assert recipe.resizing[BACKBONE] == Resizing(16, 16, "pad", "lanczos", 114)
    assert recipe.pixels[BACKBONE] == Pixels("BGR", "NCHW", (1, 2, 3), (4, -5, 6.5))
    assert (recipe.skip, recipe.regions) == (2, 7)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_in_the_order_of_the_channels(preset: str, small: Path) -> None:
    mean, scale = PRESETS[preset]
    straight = recipe_of(small, f"preset={preset}").pixels[BACKBONE]
    assert (straight.mean, straight.scale) == (mean, scale)
    reversed_ = recipe_of(small, f"preset={preset}", "order=BGR").pixels[BACKBONE]
    assert (reversed_.mean, reversed_.scale) == (mean[::-1], scale[::-1])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ([], "preset"),
        (["mean=1"], "preset"),
        (["scale=1"], "preset"),
        (["preset=imagenet", "mean=1"], "preset"),
        (["preset=imagenet21k"], "preset"),
        (["mean=a", "scale=1"], "mean"),
        (["mean=1/2", "scale=1"], "mean"),
        (["mean=nan", "scale=1"], "mean"),
        (["mean=1", "scale=0"], "scale"),
        (["mean=1", "scale=1/1/0"], "scale"),
        (["mean=1", "scale=inf"], "scale"),
    ],
)
def test_how_levels_become_numbers_must_be_said(options: list[str], what: str, small: Path) -> None:
    """Nothing in a model says it, and a wrong guess is seen nowhere."""
    with refused(InputError, what, expected=ANY):
        recipe_of(small, *options)


@pytest.mark.parametrize(
    "option",
    [
        *("size=", "size=0", "size=16x", "size=axb", "size=99999", "size=24", "size=16x24"),
        *("fit=stretch", "filter=cubic", "fill=256", "fill=-1", "order=GBR", "layout=HWC"),
        *("layout=NHWC", "input=pixels", "output=map", "output=out/out", "skip=-1", "skip=1.5"),
        *("colour=RGB", "detector.size=16", "preset", "regions=many", "preset=none"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(option: str, small: Path) -> None:
    with refused(InputError):
        recipe_of(small, "preset=unit", option)


def test_what_is_no_spec_is_refused(tmp_path: Path) -> None:
    for spec in ("", "grid", "frcnn-vg:weights.pth", "model.onnx", str(tmp_path)):
        with refused(InputError, "extractor", expected=naming("grid:MODEL.onnx"), got=spec):
            open_extractor(spec)
    with refused(InputError, "none.onnx"):
        open_extractor("grid:none.onnx,preset=unit")


def test_a_model_that_leaves_its_size_open_needs_one(tmp_path: Path) -> None:
    axes = ("batch", 3, "height", "width")
    model = Backbone(axes=axes).save(tmp_path / "open.onnx")
    with refused(InputError, "size"):
        recipe_of(model, "preset=unit")
    recipe = recipe_of(model, "preset=unit", "size=24x8")
    assert (recipe.resizing[BACKBONE].width, recipe.resizing[BACKBONE].height) == (24, 8)
    with open_it(f"grid:{model},preset=unit,size=24x8") as found:
        assert (found.regions, found.img_dim) == (12, 5)


class open_it:  # noqa: N801  # reads as `open` does
    """An extractor that is closed after the block."""

    def __init__(self, spec: str) -> None:
        self.extractor = open_extractor(spec)

    def __enter__(self) -> RegionExtractor:
        return self.extractor

    def __exit__(self, *error: object) -> None:
        self.extractor.close()


def test_channels_that_are_last_are_seen(tmp_path: Path) -> None:
    first = extracted(f"grid:{Backbone().save(tmp_path / 'a.onnx')},preset=unit")
    last = Backbone(last=True, gives="map, channels last").save(tmp_path / "b.onnx")
    assert recipe_of(last, "preset=unit").pixels[BACKBONE].layout == "NHWC"
    np.testing.assert_allclose(extracted(f"grid:{last},preset=unit").regions, first.regions)


@pytest.mark.parametrize(("gives", "skip"), [("tokens", 0), ("class token", 1)])
def test_tokens_are_cells(gives: Any, skip: int, tmp_path: Path) -> None:
    """Row by row, as those of a map; what stands in front of them is left out."""
    options = f"preset=unit,skip={skip}"
    first = extracted(f"grid:{Backbone(height=8).save(tmp_path / 'a.onnx')},preset=unit")
    tokens = Backbone(height=8, gives=gives).save(tmp_path / "b.onnx")
    found = extracted(f"grid:{tokens},{options}")
    assert found.regions.shape == (1, 8, 5)
    np.testing.assert_allclose(found.regions, first.regions, rtol=1e-6)
    np.testing.assert_array_equal(found.boxes, first.boxes)


def test_a_class_token_that_is_not_skipped_is_found(tmp_path: Path) -> None:
    model = Backbone(gives="class token").save(tmp_path / "model.onnx")
    with refused(InputError, "model.onnx", got=naming(17), hint=["skip", 1]):
        open_extractor(f"grid:{model},preset=unit")


@pytest.mark.parametrize("last", [False, True])
def test_a_map_in_another_layout_than_the_input_is_refused(last: bool, tmp_path: Path) -> None:
    """It would be read as a grid of channels by columns."""
    gives: Any = "map" if last else "map, channels last"
    model = Backbone(gives=gives, last=last).save(tmp_path / "model.onnx")
    layout = "NHWC" if last else "NCHW"
    with refused(InputError, "model.onnx", expected=naming(layout), got=naming("(1")):
        open_extractor(f"grid:{model},preset=unit")


def test_one_vector_is_no_grid(tmp_path: Path) -> None:
    model = Backbone(gives="vector").save(tmp_path / "model.onnx")
    with refused(InputError, "model.onnx", got=naming("(1, 5)"), hint="output=NAME"):
        open_extractor(f"grid:{model},preset=unit")


def test_tokens_of_a_map_cannot_be_skipped(small: Path) -> None:
    with refused(InputError, "small.onnx", got=naming("skip=1")):
        open_extractor(f"grid:{small},preset=unit,skip=1")


def test_regions_of_zeros_are_refused(small: Path, tmp_path: Path) -> None:
    """Zeros are as alike as can be: no reference picture would ever show them."""
    np.savez(tmp_path / "none.npz", mean=np.zeros(5), matrix=np.zeros((5, 2)))
    with refused(InputError, "reference picture", got="zeros"):
        open_extractor(f"grid:{small},preset=unit,projection={tmp_path / 'none.npz'}")


def test_regions_that_are_said_must_come_out(small: Path) -> None:
    assert open_extractor(f"grid:{small},preset=unit,regions=16").regions == 16
    with refused(InputError, "regions", expected=36, got=16):
        open_extractor(f"grid:{small},preset=unit,regions=36")


def test_another_device_is_refused(small: Path) -> None:
    with refused(InputError, expected="cpu", got="cuda:0"):
        open_extractor(f"grid:{small},preset=unit", device="cuda:0")


def test_without_pillow_nothing_opens(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with refused(UnavailableError, "Pillow", hint="pip install 'sgraf-deploy[images]'"):
        open_extractor(f"grid:{small},preset=unit")


def test_the_boxes_are_the_cells(small: Path) -> None:
    """Of a picture of 60 × 40: a sixteenth is 15 × 10."""
    boxes = extracted(f"grid:{small},preset=unit").boxes[0]
    assert boxes[0].tolist() == [0, 0, 15, 10]
    assert boxes[1].tolist() == [15, 0, 30, 10]
    assert boxes[4].tolist() == [0, 10, 15, 20]
    assert boxes[15].tolist() == [45, 30, 60, 40]


def test_a_cropped_pictures_boxes_lie_in_its_middle(small: Path) -> None:
    boxes = extracted(f"grid:{small},preset=unit,fit=crop").boxes[0]
    assert boxes[0].tolist() == [10, 0, 20, 10]
    assert boxes[15].tolist() == [40, 30, 50, 40]


def test_a_padded_pictures_boxes_end_at_its_edges(small: Path) -> None:
    """60 × 40 becomes 16 × 11 pixels, of which a cell has four."""
    boxes = extracted(f"grid:{small},preset=unit,fit=pad").boxes[0]
    np.testing.assert_allclose(boxes[0], [0, 0, 15, 4 * 40 / 11], rtol=1e-6)
    np.testing.assert_allclose(boxes[8], [0, 8 * 40 / 11, 15, 40], rtol=1e-6)
    assert boxes[:, [1, 3]].max() == 40


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_cell_sees_what_its_box_says(fit: str, tmp_path: Path) -> None:
    """A white square on black, where a cell's box is: that cell is the brightest."""
    model = Backbone(size=64, seed=2).save(tmp_path / "model.onnx")
    with open_it(f"grid:{model},preset=unit,fit={fit},filter=box") as extractor:
        black = np.zeros((90, 120, 3), np.uint8)
        features = extractor.extract([black])
        side = 64 // PATCH
        for cell in (0, 5 * side + 7, 8 * side + side - 1):
            x1, y1, x2, y2 = np.rint(features.boxes[0, cell]).astype(int)
            lit = black.copy()
            lit[y1:y2, x1:x2] = 255
            brightness = np.linalg.norm(extractor.extract([lit]).regions[0], axis=1)
            assert brightness.argmax() == cell


def test_no_picture_gives_no_regions(small: Path) -> None:
    with open_it(f"grid:{small},preset=unit") as extractor:
        features = extractor.extract([])
    assert features.regions.shape == (0, 16, 5)
    assert features.boxes.shape == (0, 16, 4)
    assert features.confidence is None


def test_a_recipe_opens_the_same_extractor_again(small: Path) -> None:
    first = open_extractor(f"grid:{small},mean=3/4/5,scale=70,order=BGR,fit=crop,filter=box")
    write_recipe(small.parent, first.spec)
    for spec in (str(small.parent / FILE), f"grid:{small},recipe={small.parent / FILE}"):
        again = open_extractor(spec)
        assert again.spec == first.spec
        found, expected = (one.extract([PICTURE]) for one in (again, first))
        assert found.regions.tobytes() == expected.regions.tobytes()
        assert found.boxes.tobytes() == expected.boxes.tobytes()


def test_a_recipe_without_its_models_says_how_to_name_them(small: Path, tmp_path: Path) -> None:
    """As `features` writes it, beside features and not beside models."""
    path = tmp_path / "features" / FILE
    path.parent.mkdir()
    write_recipe(path.parent, open_extractor(f"grid:{small},preset=unit").spec)
    with refused(InputError, path, expected=naming(small.name), hint=[f"recipe={path}", "grid:"]):
        open_extractor(str(path))


def test_a_recipe_is_not_changed_by_options(small: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path, open_extractor(f"grid:{small},preset=unit").spec)
    with refused(InputError, got="order"):
        open_extractor(f"grid:{small},recipe={tmp_path / FILE},order=BGR")


def test_a_recipe_knows_its_models(small: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path, open_extractor(f"grid:{small},preset=unit").spec)
    before = read_recipe(tmp_path / FILE).models[BACKBONE].sha256
    other = Backbone(seed=9).save(tmp_path / "other.onnx")
    with refused(DataError, "sha256", expected=before):
        open_extractor(f"grid:{other},recipe={tmp_path / FILE}")
    other.replace(small)
    with refused(DataError, "sha256", small, expected=before):
        open_extractor(str(tmp_path / FILE))


def with_projection(model: Path, spec: str) -> tuple[Path, RegionExtractor]:
    path = model.parent / "pca.npz"
    np.savez(path, mean=np.arange(5.0), matrix=np.eye(5)[:, :3], row_norm=4, rounding=64)
    return path, open_extractor(f"{spec},projection={path}")


def test_a_projection_belongs_to_the_recipe(small: Path) -> None:
    spec = f"grid:{small},preset=unit"
    path, extractor = with_projection(small, spec)
    assert (extractor.regions, extractor.img_dim) == (16, 3)
    plain = extracted(spec).regions[0].astype(np.float64)
    wanted = (plain - np.arange(5.0))[:, :3]
    wanted *= 4 / np.linalg.norm(wanted, axis=1, keepdims=True)
    found = extractor.extract([PICTURE]).regions[0]
    np.testing.assert_array_equal(found, np.round(wanted * 64) / 64)
    write_recipe(small.parent, extractor.spec)
    recipe = small.parent / FILE
    assert open_extractor(str(recipe)).spec == extractor.spec
    assert open_extractor(f"grid:{small},recipe={recipe},projection={path}").img_dim == 3
    with refused(DataError, "projection", got="none", hint="projection"):
        open_extractor(f"grid:{small},recipe={recipe}")
    np.savez(path, mean=np.arange(5.0), matrix=np.eye(5)[:, 1:4])
    with refused(DataError, "sha256", path):
        open_extractor(str(recipe))


def test_what_decides_the_output_is_in_the_hash(small: Path) -> None:
    base = open_extractor(f"grid:{small},preset=unit").spec
    assert differences(base, base) == []
    renamed = replace(base.models[BACKBONE], file="other.onnx")
    assert replace(base, models={BACKBONE: renamed}, reference=None).sha256 == base.sha256
    for option, path in (
        ("order=BGR", "pixels.backbone.order"),
        ("filter=box", "resizing.backbone.filter"),
        ("fit=crop", "resizing.backbone.fit"),
        ("fill=9", "resizing.backbone.fill"),
    ):
        other = open_extractor(f"grid:{small},preset=unit,{option}").spec
        assert other.sha256 != base.sha256
        (difference,) = differences(base, other)
        assert difference.startswith(f"{path}: ")


def changed(parts: Parts, recipe: Recipe, **pixels: Any) -> Parts:
    made = replace(recipe.pixels[BACKBONE], **pixels)
    return replace(parts, recipe=replace(recipe, pixels={BACKBONE: made}))


def test_what_changes_the_reference_pictures_regions_is_refused(small: Path) -> None:
    parts = read_parts(f"grid:{small},preset=siglip")
    recipe = open_parts(parts).spec
    open_parts(changed(parts, recipe))
    with refused(GateError, expected=naming(0.999)):
        open_parts(changed(parts, recipe, order="BGR"))
    assert recipe.reference is not None
    odd = replace(recipe.reference, picture=2)
    with refused(DataError, "reference.picture", expected=1, got=2):
        open_parts(replace(parts, recipe=replace(recipe, reference=odd)))
    for regions in ("", "AAAA", "no base64", recipe.reference.regions[:-4]):
        odd = replace(recipe.reference, regions=regions)
        with refused(DataError, "reference.regions"):
            open_parts(replace(parts, recipe=replace(recipe, reference=odd)))


def test_the_reference_picture_is_looked_at_once(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgraf_deploy.features import reference

    monkeypatch.setattr(reference, "_checked", set())
    parts = read_parts(f"grid:{small},preset=siglip,filter=hamming")
    parts = replace(parts, recipe=open_parts(parts).spec)
    asked: list[int] = []
    picture = reference.reference_picture()

    def counted() -> Picture:
        asked.append(1)
        return picture

    monkeypatch.setattr(reference, "reference_picture", counted)
    for _ in range(3):
        open_parts(parts)
    assert len(asked) == 1
    wrong = changed(parts, parts.recipe, order="BGR")
    for _ in range(2):
        with refused(GateError):
            open_parts(wrong)
    assert len(asked) == 3
