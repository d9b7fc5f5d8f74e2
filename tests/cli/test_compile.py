"""`sgraf-deploy compile`: with TensorRT for RTX where it is installed, and without any."""

from __future__ import annotations

import pytest
from cli.world import IMAGES, World, captions_of, done, error_line, run, tree

from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.runtime import tensorrt as adaptor

SMALL = ("--max-images", 4, "--max-captions", 3, "--max-words", 9, "--max-candidates", 10)


@pytest.fixture
def installed() -> None:
    try:
        adaptor.find_tensorrt()
    except UnavailableError as error:
        pytest.skip(f"needs a TensorRT that builds: {error}")


@pytest.mark.usefixtures("installed")
def test_every_engine_is_built_and_said_to_be_unverified(world: World) -> None:
    copy = world.copy()
    output = done("compile", copy, *SMALL).output
    for member in ("sgr", "saf"):
        for graph in ("image_encoder", "text_encoder", "scorer", "pair_scorer"):
            assert f"{member} {graph}" in output
            assert f"{member}-fp16-{graph}" in output
    assert "images ≤ 4, captions ≤ 3, words ≤ 9" in output
    assert output.count("not verified") == 8
    assert "HALF" in output
    assert f"wrote 8 engines to {copy / 'engines'}" in output
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
    assert "wrote 4 engines" in output
    assert "sgr-fp32-scorer" in output


@pytest.mark.usefixtures("installed")
def test_a_precision_that_the_bundle_lacks_is_named(world: World) -> None:
    result = run("compile", world.bare, "--precision", "fp16")
    assert result.exit_code == 2
    assert "fp16" in error_line(result)


def test_without_tensorrt_one_line_says_what_to_install(world: World) -> None:
    world.monkeypatch.setattr(adaptor, "MODULES", (("no_such_tensorrt", "tensorrt"),))
    result = run("compile", world.bundle)
    assert result.exit_code == 2
    assert "pip install tensorrt" in error_line(result)
