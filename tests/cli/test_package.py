"""`sgraf-deploy package`: its options, what it says, and what it refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from support.cli_world import IMAGES, World, done, left_by, line_naming, refused_line, run
from support.fake_npm import write_npm
from support.small_models import SGR, random_regions

from sgraf_deploy.errors import BundleError, DataError, InputError, UnavailableError
from sgraf_deploy.files.folders import list_files


@pytest.fixture
def npm(world: World) -> Path:
    return write_npm(world.folder / "node_modules")


def page_of(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    return found


def test_a_page(world: World, npm: Path) -> None:
    data = ("--data", world.data, "--split", "dev")
    result = done("package", world.bundle, "--web", "page", "--runtime", npm, *data)

    assert result.stderr == ""
    assert page_of(Path("page"))["names"] == [f"photo{row}.jpg" for row in range(IMAGES)]
    line_naming(result.stdout, "page", IMAGES, len(list_files(Path("page"))) - 1)
    shown = line_naming(result.stdout, "http.server", "page")
    assert shlex.split(shown.partition("cd ")[2])[0] == "page"


def test_the_options_of_a_page(world: World, npm: Path) -> None:
    data = ("--data", world.data, "--split", "dev", "--limit-images", 2)
    more = ("--title", "Photographs", "--max-caption-words", 20)
    arguments = ("package", world.bundle, "--web", "page", "--runtime", npm, *data, *more)
    done(*arguments)

    page = page_of(Path("page"))
    assert page["names"] == ["photo0.jpg", "photo1.jpg"]
    assert page["title"] == "Photographs"
    assert page["limits"] == {"most_words": 20, "characters_per_word": 16}

    refused_line(run(*arguments), InputError, "page", hint="--force")
    done(*arguments, "--force")


def test_images_without_captions_have_no_examples(world: World, npm: Path) -> None:
    data = world.precomp()
    (data / "dev_caps.txt").unlink()

    arguments = ("--runtime", npm, "--data", data, "--split", "dev")
    result = done("package", world.bundle, "--web", "page", *arguments)

    assert page_of(Path("page"))["examples"] == []
    line_naming("\n".join(result.noted), data, "dev")


def test_suspicious_regions_are_warned_of(world: World, npm: Path) -> None:
    regions = random_regions(SGR, IMAGES)
    regions[2] = 0
    data = world.precomp(regions)

    arguments = ("--runtime", npm, "--data", data, "--split", "dev")
    result = done("package", world.bundle, "--web", "page", *arguments)

    assert result.warned == ["zero-images"]


def test_a_repository(world: World) -> None:
    result = done("package", world.bundle, "--triton", "models")

    assert result.stderr == ""
    line_naming(result.stdout, "models", "onnxruntime", len(list_files(Path("models"))) - 1)
    line_naming(result.stdout, "tritonserver", "--model-repository=models")
    assert "TYPE_FP16" not in Path("models/sgr_scorer/config.pbtxt").read_text()

    done("package", world.bundle, "--triton", "models", "--precision", "fp16", "--force")
    assert "TYPE_FP16" in Path("models/sgr_scorer/config.pbtxt").read_text()


WEB = ("--web", "page")
TRITON = ("--triton", "models")
DATA = ("--data", "data", "--split", "dev")


@pytest.mark.parametrize(
    ("arguments", "named", "got"),
    [
        ((), "package", "neither"),
        ((*WEB, *TRITON), "package", "both"),
        (WEB, "--web", "none"),
        ((*WEB, *DATA), "--web", "none"),
        ((*WEB, "--runtime", "npm", "--data", "data"), "--web", "none"),
        ((*WEB, "--platform", "onnxruntime"), "--web", "--platform"),
        ((*WEB, "--precision", "fp32"), "--web", "--precision"),
        ((*WEB, "--engine-dir", "plans"), "--web", "--engine-dir"),
        ((*WEB, "--allow-unverified"), "--web", "--allow-unverified"),
        ((*TRITON, "--runtime", "npm"), "--triton", "--runtime"),
        ((*TRITON, *DATA), "--triton", "--data and --split"),
        ((*TRITON, "--title", "a"), "--triton", "--title"),
        ((*TRITON, "--limit-images", 3), "--triton", "--limit-images"),
    ],
)
def test_options_that_do_not_go_together(
    world: World, arguments: tuple[object, ...], named: str, got: str
) -> None:
    before = left_by(world)
    refused_line(run("package", world.bundle, *arguments), InputError, named, got=got)
    assert left_by(world) == before


def test_what_a_page_needs_is_named(world: World, npm: Path) -> None:
    data = ("--data", world.data, "--split", "dev")
    before = left_by(world)

    nowhere = world.folder / "nowhere"
    missing = nowhere / "onnxruntime-web" / "package.json"
    result = run("package", world.bundle, *WEB, "--runtime", nowhere, *data)
    refused_line(result, UnavailableError, expected=missing, hint="npm install onnxruntime-web")

    bare = run("package", world.bare, *WEB, "--runtime", npm, *data)
    refused_line(bare, BundleError, world.bare, hint="--vocab FILE")

    other = run(
        "package", world.bundle, *WEB, "--runtime", npm, "--data", world.data, "--split", "x"
    )
    refused_line(other, DataError, world.data)
    assert left_by(world) == before


def test_regions_that_do_not_fit_are_refused(world: World, npm: Path) -> None:
    data = world.precomp(np.zeros((IMAGES, 7, 5), np.float32))

    arguments = ("--runtime", npm, "--data", data, "--split", "dev")
    result = run("package", world.bundle, *WEB, *arguments)

    refused_line(result, DataError, data / "dev_ims.npy")
    assert not Path("page").exists()
