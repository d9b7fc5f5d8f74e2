"""Every bad input is one line that says what is wrong and how to mend it, and exit code 2."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cli.bad_exports import BAD_EXPORTS, Bad
from cli.bad_runs import BAD_BUNDLES, BAD_DATA, BAD_OPTIONS
from cli.world import World, error_line, run, tree

BAD = [*BAD_EXPORTS, *BAD_BUNDLES, *BAD_DATA, *BAD_OPTIONS]


@pytest.fixture(autouse=True)
def nothing_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input must be found before the work begins that may take an hour."""

    def encode(*_: object, **__: object) -> None:
        raise AssertionError("encoding began")

    monkeypatch.setattr("sgraf_deploy.runtime.scorer.Scorer.encode_images", encode)


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_input(world: World, bad: Bad) -> None:
    arguments = bad.arguments(world)
    roots = (world.folder, world.bundle.parent, world.bare.parent, world.data.parent)
    before = tree(*roots)

    result = run(*arguments)

    message = error_line(result)
    assert result.exit_code == 2
    for part in bad.says:
        assert part in message
    assert tree(*roots) == before


def test_the_names_of_the_bad_inputs_differ() -> None:
    assert len(BAD) == len({bad.name for bad in BAD}) >= 25


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export"], "Missing argument 'CHECKPOINT...'"),
        (["eval", "a.sgraf"], "Missing option '--data'"),
        (["eval", "a.sgraf", "--data", "."], "Missing option '--split'"),
        (["verify"], "Missing argument 'BUNDLE'"),
        (["inspect", "a.sgraf", "b.sgraf"], "unexpected extra argument"),
        (["export", "a.pth", "--precision", "int8"], "'int8' is not one of"),
        (["eval", "a.sgraf", "--precision", "both"], "'both' is not one of"),
        (["eval", "a.sgraf", "--ties", "first"], "'first' is not one of"),
        (["eval", "a.sgraf", "--threads", "0"], "0 is not in the range x>=1"),
        (["eval", "a.sgraf", "--folds", "0"], "0 is not in the range x>=1"),
        (["rerank", "a.sgraf", "--top-k", "0"], "0 is not in the range x>=1"),
        (["eval", "a.sgraf", "--limit-images", "all"], "'all' is not a valid integer"),
        (["export", "a.pth", "--fp16"], "No such option '--fp16'"),
        (["evaluate"], "No such command 'evaluate'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage(world: World, arguments: Sequence[str], says: str) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert says in error_line(result)
    assert result.stderr.startswith("Usage: ")
    assert list(world.folder.iterdir()) == []
