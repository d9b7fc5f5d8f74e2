"""`sgraf-deploy eval --models`: the ensemble's ranks alone, and what its members then scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cli_world import World, done, recall_rows, refused_line, run
from support.refusals import holds, naming

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.cli.shares import shares_line
from sgraf_deploy.errors import InputError


def evaluate(world: World, *more: object) -> tuple[str, dict[str, Any]]:
    """Standard output and the report of an evaluation on engine native."""
    arguments = ("--data", world.data, "--split", "dev", "--json", "report.json")
    result = done("eval", world.bundle, "--engine", "native", *arguments, *more)
    return result.stdout, json.loads(Path("report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("more", [(), ("--no-prune",), ("--folds", 2), ("--ties", "authors")])
def test_the_ensembles_rows_are_those_among_all(world: World, more: tuple[object, ...]) -> None:
    stdout, report = evaluate(world, "--models", "sgraf", *more)
    _, whole = evaluate(world, *more)

    assert list(report["reports"]) == ["SGRAF"]
    assert report["reports"]["SGRAF"] == whole["reports"]["SGRAF"]
    assert report["folds"] == {name: whole["folds"][name] for name in report["folds"]}
    assert {name.split()[0] for name in recall_rows(stdout)} == {"SGRAF", "chance"}
    shares = report["run"]["scored_share"]
    assert shares["saf"] == 1.0
    assert shares["sgr"] == 1.0 or not more
    assert set(whole["run"]["scored_share"].values()) == {1.0}


def test_members_are_left_out_of_work_that_is_shared_out(world: World, spread: Bundle) -> None:
    spread_world = replace(world, bundle=spread.path)
    ensemble = ("--models", "sgraf")
    stdout, one = evaluate(spread_world, *ensemble)
    shared, two = evaluate(spread_world, *ensemble, "--job", "job")
    _, full = evaluate(spread_world, *ensemble, "--job", "full", "--no-prune")

    assert two["reports"] == one["reports"] == full["reports"]
    shares = two["run"]["scored_share"]
    assert shares == one["run"]["scored_share"]
    assert shares["sgr"] < shares["saf"] == 1.0
    assert full["run"]["scored_share"] == {"sgr": 1.0, "saf": 1.0}
    line = shares_line(shares, "change a rank of SGRAF")
    assert line in stdout
    assert line in shared
    arguments = ("--data", world.data, "--split", "dev", "--engine", "native", "--job", "job")
    result = run("eval", spread.path, *arguments)
    refused_line(result, InputError, "models", expected="all", got=naming("ensemble"))


def test_the_shares_are_shown() -> None:
    line = shares_line({"sgr": 0.25, "saf": 1.0}, "change a rank of SGRAF")
    assert all(holds(line, name) for name in ("SAF 100.0%", "SGR 25.0%", "SGRAF"))
    assert line.index("SAF") < line.index("SGR 25"), "the first member first"
    assert not holds(shares_line({"sgr": 1.0, "saf": 1.0}, "change a rank of SGRAF"), "SGRAF")


def test_similarities_that_are_written_are_of_every_pair(world: World) -> None:
    _, report = evaluate(world, "--models", "sgraf", "--save-similarities", "all.npy")
    assert set(report["run"]["scored_share"].values()) == {1.0}


def test_another_ensembles_name_is_refused(world: World) -> None:
    arguments = ("--data", world.data, "--split", "dev", "--models", "ensemble")
    result = run("eval", world.bundle, *arguments)
    refused_line(result, InputError, "--models", expected=naming("sgraf"), got="ensemble")
