"""A BUNDLE that is an address on the Hub: every command takes it."""

from __future__ import annotations

import pytest
from support.cli_world import World, done, refused_line, run
from support.hub import ADDRESS, Hub, served, used

from sgraf_deploy.errors import BundleError


@pytest.fixture
def hub(world: World, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub with the bundle of this folder's world."""
    found = world.until_the_end.enter_context(served(world.folder.parent / "home"))
    world.until_the_end.enter_context(used(found, monkeypatch))
    found.commit(world.bundle)
    return found


def test_inspect_says_which_commit_it_is_and_where_it_is_kept(hub: Hub) -> None:
    pinned = f"{ADDRESS}@{hub.refs['main']}"
    said = done("inspect", ADDRESS)
    assert f"{ADDRESS} is {pinned}" in said.stderr.splitlines()
    (folder,) = hub.bundles()
    assert f"from {pinned}, kept in {folder}" in said.stdout.splitlines()
    assert pinned not in done("inspect", pinned).stderr


@pytest.mark.parametrize(
    "command",
    [
        ("verify",),
        ("rerank", "--data", "DATA", "--split", "dev", "--caption", "w3 w4"),
        ("eval", "--data", "DATA", "--split", "dev"),
        ("bench", "profile", "--images", "2", "--captions", "2"),
    ],
    ids=lambda command: command[0],
)
def test_the_address_stands_where_a_folder_does(
    hub: Hub, world: World, command: tuple[str, ...]
) -> None:
    words = [word.replace("DATA", str(world.data)) for word in command]
    before = 2 if words[0] == "bench" else 1
    done(*words[:before], ADDRESS, *words[before:])
    assert len(hub.bundles()) == 1


def test_an_address_that_is_not_there_is_one_line(hub: Hub) -> None:
    refused_line(run("inspect", f"{ADDRESS}@none"), BundleError, f"{ADDRESS}@none")
