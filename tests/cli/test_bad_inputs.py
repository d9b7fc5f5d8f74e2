"""Every bad input is one line that says what is wrong and how to hint it, and exit code 2."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.bad_checkpoints import BAD_CHECKPOINTS
from support.bad_exports import BAD_EXPORTS
from support.bad_input import Bad
from support.bad_runs import BAD_BUNDLES, BAD_OPTIONS
from support.bad_splits import BAD_DATA
from support.cli_world import World, error_line, left_by, refused_line, run
from support.refusals import holds

BAD = [*BAD_CHECKPOINTS, *BAD_EXPORTS, *BAD_BUNDLES, *BAD_DATA, *BAD_OPTIONS]


@pytest.fixture(autouse=True)
def nothing_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input must be found before the work begins that may take an hour."""

    def encode(*_: object, **__: object) -> None:
        raise AssertionError("encoding began")

    monkeypatch.setattr("sgraf_deploy.runtime.scorer.Scorer.encode_images", encode)


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_input(world: World, bad: Bad) -> None:
    arguments = bad.arguments(world)
    before = left_by(world)

    result = run(*arguments)

    refused_line(result, bad.kind, *bad.names, **bad.fields)
    assert result.exit_code == 2
    assert left_by(world) == before


def test_the_names_of_the_bad_inputs_differ() -> None:
    assert len(BAD) == len({bad.name for bad in BAD}) >= 25


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["export"], "CHECKPOINT"),
        (["eval", "a.sgraf"], "--data"),
        (["eval", "a.sgraf", "--data", "."], "--split"),
        (["verify"], "BUNDLE"),
        (["inspect", "a.sgraf", "b.sgraf"], "b.sgraf"),
        (["export", "a.pth", "--precision", "int8"], "int8"),
        (["eval", "a.sgraf", "--precision", "both"], "both"),
        (["eval", "a.sgraf", "--ties", "first"], "first"),
        (["eval", "a.sgraf", "--threads", "0"], "--threads"),
        (["eval", "a.sgraf", "--folds", "0"], "--folds"),
        (["rerank", "a.sgraf", "--top-k", "0"], "--top-k"),
        (["eval", "a.sgraf", "--limit-images", "all"], "all"),
        (["export", "a.pth", "--fp16"], "--fp16"),
        (["evaluate"], "evaluate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage(world: World, arguments: Sequence[str], name: str) -> None:
    """The library of the command line words the error, the more it shows the usage."""
    result = run(*arguments)

    assert result.exit_code == 2
    assert holds(error_line(result), name)
    assert result.stderr.startswith("Usage: ")
    assert list(world.folder.iterdir()) == []
