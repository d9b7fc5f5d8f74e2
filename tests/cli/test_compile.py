"""`sgraf-deploy compile`: with TensorRT for RTX where it is installed, and without any."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_world import IMAGES, World, captions_of, done, error_line, run, tree

from sgraf_deploy.engines.gpu import Driver, Gpu
from sgraf_deploy.engines.trt import library as adaptor
from sgraf_deploy.engines.trt.library import TensorRT
from sgraf_deploy.engines.trt.rtx import CAPABILITIES, INSTEAD, RTX
from sgraf_deploy.errors import BundleError, UnavailableError

SMALL = ("--max-images", 4, "--max-captions", 3, "--max-words", 9, "--max-candidates", 10)


@pytest.fixture
def installed() -> None:
    try:
        adaptor.find_tensorrt()
    except UnavailableError as error:
        pytest.skip(f"needs a TensorRT that builds: {error}")


@pytest.mark.usefixtures("installed")
def test_every_plan_is_built_and_said_to_be_unverified(world: World) -> None:
    copy = world.copy()
    output = done("compile", copy, *SMALL).output
    for member in ("sgr", "saf"):
        for graph in ("image_encoder", "text_encoder", "scorer", "pair_scorer"):
            assert f"{member} {graph}" in output
            assert f"{member}-fp16-{graph}" in output
    assert "images ≤ 4, captions ≤ 3, words ≤ 9" in output
    assert output.count("not verified") == 8
    assert "HALF" in output
    assert f"wrote 8 plans to {copy / 'engines'}" in output
    done("verify", copy)


@pytest.mark.usefixtures("installed")
def test_a_profile_that_takes_too_much_is_refused_before_the_build(world: World) -> None:
    copy = world.copy()
    before = tree(copy)
    result = run("compile", copy, "--workspace-gb", 0.001)
    assert result.exit_code == 2
    assert "scratch memory" in error_line(result)
    assert tree(copy) == before


@pytest.mark.usefixtures("installed")
def test_what_is_suspicious_in_the_data_is_said_before_the_build(world: World) -> None:
    data = world.precomp(captions=[f"'{line}'" for line in captions_of(IMAGES)])
    split = ("--data", data, "--split", "dev")

    result = run("compile", world.copy(), *split, "--workspace-gb", 0.001)

    assert "scratch memory" in error_line(result)
    assert "Warning: 30 of 30 captions are in quotes" in result.stderr


@pytest.mark.usefixtures("installed")
def test_without_a_precision_it_takes_what_the_bundle_has(world: World) -> None:
    copy = world.copy(world.bare)
    output = done("compile", copy, *SMALL).output
    assert "wrote 4 plans" in output
    assert "sgr-fp32-scorer" in output


@pytest.mark.usefixtures("installed")
def test_a_precision_that_the_bundle_lacks_is_named(world: World) -> None:
    result = run("compile", world.bare, "--precision", "fp16")
    assert result.exit_code == 2
    assert "fp16" in error_line(result)


@pytest.fixture
def planned_only(world: World) -> World:
    """TensorRT for RTX that stops at the first build, wherever there is none."""

    def stop(*_: object, **__: object) -> None:
        raise BundleError("nothing is built")

    world.monkeypatch.setattr(adaptor, "find_tensorrt", lambda: TensorRT(RTX, "1.7.1", None))
    world.monkeypatch.setattr("sgraf_deploy.compile.publish.publish_plans", stop)
    return world


def gpus(world: World, *compute_capabilities: str) -> None:
    driver = Driver("13.0", tuple(Gpu("a GPU", each) for each in compute_capabilities))
    world.monkeypatch.setattr("sgraf_deploy.engines.trt.rtx.find_driver", lambda: driver)


@pytest.mark.parametrize(
    ("compute_capability", "warned"),
    [("7.5", True), ("9.0", True), ("10.0", True), ("8.9", False), ("12.0", False)],
)
def test_a_gpu_that_runs_none_of_it_is_named_before_the_build(
    planned_only: World, compute_capability: str, warned: bool
) -> None:
    gpus(planned_only, compute_capability)
    result = run("compile", planned_only.bundle, *SMALL)
    assert ", ".join(CAPABILITIES) in result.stdout
    warning = result.stderr.partition("nothing is built")[0]
    assert (INSTEAD in warning) == warned
    assert (f"got {compute_capability}" in warning) == warned


def long_caption(world: World, words: int) -> Path:
    """A split whose last caption has so many words, <start> and <end> included."""
    captions = captions_of(IMAGES)
    captions[-1] = " ".join(["word1"] * (words - 2))
    return world.precomp(captions=captions)


@pytest.mark.parametrize("limit", [(), ("--limit-images", 1)], ids=["all", "some-images"])
@pytest.mark.parametrize("words", [23, 57])
def test_profiles_take_the_longest_caption_of_the_split(
    planned_only: World, words: int, limit: tuple[object, ...]
) -> None:
    split = ("--data", long_caption(planned_only, words), "--split", "dev")
    stdout = run("compile", planned_only.bundle, *split, *limit).stdout
    assert f"--max-words {words}" in stdout
    assert f"words ≤ {words}" in stdout
    assert "words ≤ 40" not in stdout


def test_without_data_profiles_take_forty_words(planned_only: World) -> None:
    stdout = run("compile", planned_only.bundle).stdout
    assert "--max-words" not in stdout
    assert "words ≤ 40" in stdout


@pytest.mark.parametrize(("asked", "warned"), [(22, True), (23, False), (30, False)])
def test_what_was_asked_for_is_built_and_called_too_short(
    planned_only: World, asked: int, warned: bool
) -> None:
    split = ("--data", long_caption(planned_only, 23), "--split", "dev")
    result = run("compile", planned_only.bundle, *split, "--max-words", asked)
    assert f"words ≤ {asked}" in result.stdout
    assert (f"Warning: --max-words {asked}" in result.stderr) == warned


def test_without_tensorrt_one_line_says_what_to_install(world: World) -> None:
    world.monkeypatch.setattr(adaptor, "MODULES", (("no_such_tensorrt", "tensorrt"),))
    result = run("compile", world.bundle)
    assert result.exit_code == 2
    assert "pip install 'sgraf-deploy[tensorrt]'" in error_line(result)
