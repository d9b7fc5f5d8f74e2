"""`sgraf-deploy score`: the best candidates are the scorer's, in every format; --job and --ray."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_world import IMAGES, Ran, World, done, line_naming, refused_line, run
from support.refusals import holds, naming

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.distributed.cluster import INSTALL
from sgraf_deploy.errors import DataError, InputError, UnavailableError

NAMES = [f"photo{row}.jpg" for row in range(IMAGES)]
LINES = [str(line) for line in range(1, 5 * IMAGES + 1)]
DIRECTIONS = ("image_to_text", "text_to_image")
K = 3


def score(world: World, output: str, *more: object, data: Path | None = None) -> Ran:
    source = ("--data", data or world.data, "--split", "dev", "--top-k", K)
    return run("score", world.bundle, *source, "-o", output, *more)


def scored(world: World, output: str, *more: object, data: Path | None = None) -> str:
    result = score(world, output, *more, data=data)
    assert (result.exit_code, result.stderr) == (0, ""), result.output + repr(result.exception)
    line_naming(result.stdout, "wrote", output)
    return result.stdout


@pytest.fixture
def expected(world: World) -> dict[str, Any]:
    """The best candidates by direction, straight from the scorer."""
    split = open_precomp(world.data, "dev")
    with sgraf_deploy.load(world.bundle) as scorer:
        found: Any = scorer.top_k_tiles(split.regions, split.captions, K).result()
        return dict(found)


def ranked(best: Any, queries: list[str], candidates: list[str]) -> list[tuple[Any, ...]]:
    """Rows of a query, a rank, a candidate, a similarity and a logit."""
    return [
        (
            query,
            rank + 1,
            candidates[best.indices[row, rank]],
            best.similarities[row, rank],
            best.logits[row, rank],
        )
        for row, query in enumerate(queries)
        for rank in range(K)
    ]


def all_ranked(expected: dict[str, Any]) -> dict[str, list[tuple[Any, ...]]]:
    sides = {"image_to_text": (NAMES, LINES), "text_to_image": (LINES, NAMES)}
    return {name: ranked(best, *sides[name]) for name, best in expected.items()}


def test_arrays(world: World, expected: dict[str, Any]) -> None:
    scored(world, "best.npz")
    with np.load("best.npz") as found:
        assert found["image_ids"].tolist() == NAMES
        assert found["caption_ids"].tolist() == LINES
        for direction in DIRECTIONS:
            for name, array in vars(expected[direction]).items():
                assert np.array_equal(found[f"{direction}.{name}"], array), (direction, name)


def test_comma_separated_values(world: World, expected: dict[str, Any]) -> None:
    scored(world, "best.csv")
    with Path("best.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for direction, lines in all_ranked(expected).items():
        found = [row for row in rows if row["direction"] == direction]
        assert [
            (
                row["query"],
                int(row["rank"]),
                row["candidate"],
                np.float32(row["similarity"]),
                np.float32(row["logit"]),
            )
            for row in found
        ] == lines


def test_lines_of_json(world: World, expected: dict[str, Any]) -> None:
    scored(world, "best.jsonl", "--direction", "text_to_image")
    lines = [json.loads(line) for line in Path("best.jsonl").read_text().splitlines()]
    assert {line["direction"] for line in lines} == {"text_to_image"}
    assert [
        (line["query"], rank, each["id"], np.float32(each["similarity"]), np.float32(each["logit"]))
        for line in lines
        for rank, each in enumerate(line["candidates"], 1)
    ] == all_ranked(expected)["text_to_image"]


def test_a_run_of_trec(world: World, expected: dict[str, Any]) -> None:
    scored(world, "best.trec", "--direction", "image_to_text")
    rows = [line.split(" ") for line in Path("best.trec").read_text().splitlines()]
    assert {(row[1], row[5]) for row in rows} == {("Q0", "sgraf-deploy")}
    assert [(row[0], int(row[3]), row[2], np.float32(row[4])) for row in rows] == [
        (query, rank, id_, logit)
        for query, rank, id_, _, logit in all_ranked(expected)["image_to_text"]
    ]


def test_more_candidates_than_there_are(world: World) -> None:
    scored(world, "best.npz", "--top-k", 100, "--limit-images", 2)
    with np.load("best.npz") as found:
        assert found["image_to_text.indices"].shape == (2, 10)
        assert np.sort(found["text_to_image.indices"]).tolist() == [[0, 1]] * 10


def test_pieces_give_the_same_file_and_are_not_done_twice(world: World) -> None:
    scored(world, "one.csv")
    line_naming(scored(world, "two.csv", "--job", "job"), "job", 1, 0)
    assert Path("two.csv").read_bytes() == Path("one.csv").read_bytes()
    pieces = len(list(Path("job").glob("*.npz")))
    line_naming(scored(world, "three.csv", "--job", "job"), "job", 0, pieces)
    assert Path("three.csv").read_bytes() == Path("one.csv").read_bytes()
    result = score(world, "four.csv", "--job", "job", "--top-k", K + 1)
    refused_line(result, InputError, "job", "k", expected=K + 1, got=str(K))
    assert not Path("four.csv").exists()


def test_members_are_left_out_and_the_shares_are_shown(world: World, spread: Bundle) -> None:
    spread_world = replace(world, bundle=spread.path)
    native = ("--engine", "native", "--top-k", 1)
    pruned = scored(spread_world, "pruned.csv", *native)
    every = scored(spread_world, "every.csv", *native, "--no-prune")
    shared = scored(spread_world, "shared.csv", *native, "--job", "job")
    unpruned = scored(spread_world, "unpruned.csv", *native, "--job", "all", "--no-prune")

    first, *others = (Path(f"{name}.csv") for name in ("pruned", "every", "shared", "unpruned"))
    for other in others:
        assert other.read_bytes() == first.read_bytes()
    line_naming(pruned, "SAF 100.0%", "SGR")
    line_naming(shared, "SAF 100.0%", "SGR")
    assert not any(holds(text, "100.0%") for text in (every, unpruned))


@pytest.mark.parametrize("output", ["best", "best.txt", "best.npy"])
def test_another_format_is_refused_before_the_work(world: World, output: str) -> None:
    refused_line(score(world, output), InputError, output, expected=naming(".npz"))


def test_what_a_run_of_trec_cannot_hold(world: World) -> None:
    refused_line(score(world, "best.trec"), InputError, "best.trec", hint=naming("--direction"))
    data = world.precomp()
    (data / "dev_ids.txt").write_text("".join(f"photo {row}\n" for row in range(IMAGES)))
    result = score(world, "best.trec", "--direction", "text_to_image", data=data)
    refused_line(result, DataError, got=naming("photo 0"))
    assert not Path("best.trec").exists()


@pytest.mark.parametrize("command", ["eval", "score"])
def test_options_that_need_others(world: World, command: str) -> None:
    source = (command, world.bundle, "--data", world.data, "--split", "dev")
    more = ("--top-k", K, "-o", "best.csv") if command == "score" else ()
    refused_line(run(*source, *more, "--ray"), InputError, "--ray", expected=naming("--job"))
    refused_line(run(*source, *more, "--actors", 2), InputError, "--actors")


@pytest.mark.parametrize(
    "option", [("--ties", "authors"), ("--folds", 2), ("--save-similarities", "all.npy")]
)
def test_what_needs_the_matrix_is_not_shared_out(world: World, option: tuple[str, Any]) -> None:
    source = ("eval", world.bundle, "--data", world.data, "--split", "dev", "--job", "job")
    refused_line(run(*source, *option), InputError, option[0])
    assert not Path("job").exists()


@pytest.mark.parametrize("more", [(), ("--models", "sgraf")])
def test_pieces_give_the_report_of_one_process(world: World, more: tuple[str, ...]) -> None:
    source = ("eval", world.bundle, "--data", world.data, "--split", "dev", *more, "--json")
    done(*source, "one.json")
    line_naming(done(*source, "two.json", "--job", "job").stdout, "job", 1, 0)
    one, two = (json.loads(Path(f"{name}.json").read_text()) for name in ("one", "two"))
    assert two["run"] == {**one["run"], "workers": 1}
    for name in ("reports", "folds", "words", "memory_bytes", "warnings", "notes"):
        assert two[name] == one[name]
    stdout = done(*source, "three.json", "--job", "job").stdout
    three = json.loads(Path("three.json").read_text())
    assert three["seconds"] == {"encode": None, "score": None}
    assert three["reports"] == one["reports"]
    assert "pairs/s" not in stdout


@pytest.mark.parametrize("command", ["eval", "score", "index"])
def test_without_ray_one_line_says_what_to_install(world: World, command: str) -> None:
    world.monkeypatch.setitem(sys.modules, "ray", None)
    source = (command, world.bundle, "--data", world.data, "--split", "dev", "--ray")
    more = {
        "eval": ("--job", "job"),
        "score": ("--job", "job", "--top-k", K, "-o", "best.csv"),
        "index": ("--shards", 2, "-o", "g"),
    }
    refused_line(run(*source, *more[command]), UnavailableError, "--ray", hint=INSTALL)
    assert not Path("g").exists()
