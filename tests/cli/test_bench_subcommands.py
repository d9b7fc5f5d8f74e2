"""`sgraf-deploy bench scaling` and `bench profile`: what they show and write, what they refuse."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from bench.test_scaling import Machine
from support.auto_engine import auto_engine
from support.cli_world import World, done, error_line, refused_line, run
from support.refusals import holds, naming

from sgraf_deploy.bench import measure
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.policy import Choice
from sgraf_deploy.errors import InputError, SgrafDeployError

SIZES = ("--size", "10x50", "--size", "20×100")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Stands in for the child processes."""
    found = Machine(1.0, 1.0)
    monkeypatch.setattr("sgraf_deploy.bench.scaling.measure_scaling.__defaults__", (None, found))
    return found


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("r.json").read_text(encoding="utf-8"))
    return found


def test_scaling_shows_writes_and_draws(
    world: World, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--repeats", 2, "--threads", 1, "--engine", "ort")
    files = ("--json", "r.json", "--plot", "p.svg")

    monkeypatch.setattr(sys, "argv", ["/bin/sgraf-deploy", "bench", "a bundle"])
    stdout = done("bench", "scaling", world.bundle, *SIZES, *words, *files).stdout

    assert [job.pairs for job in machine.jobs[:2]] == [500, 2000]
    assert {job.threads for job in machine.jobs} == {1}
    assert "medians of 2 rounds" in stdout
    (row,) = [" ".join(line.split()) for line in stdout.splitlines() if " 2,000 " in line]
    assert row == "20 100 2,000 1,000 0.333 80.0 MB 5.0 MB 8.0 kB 73.0 MB"
    assert [one["images"] for one in report()["sizes"]] == [10, 20]
    assert report()["command"] == "sgraf-deploy bench 'a bundle'"
    assert report()["run"]["bundle_sha256"] == Bundle.open(world.bundle).sha256
    drawn = ET.parse("p.svg").getroot()
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == 2 + 5


@pytest.mark.slow
def test_scaling_really_measures(world: World) -> None:
    world.monkeypatch.setattr("sgraf_deploy.bench.scaling.WORD_COUNTS", (5,))
    size = ("--size", "50x4000", "--repeats", 1, "--max-pairs", 200_000)
    done("bench", "scaling", world.bundle, *size, "--json", "r.json")
    (one,) = report()["sizes"]
    assert (one["pairs"], report()["run"]["engine"]) == (200_000, auto_engine())
    assert one["pairs_per_second"] > 0


@pytest.mark.parametrize("engine", ["auto", "ort"])
def test_profile_shows_every_stage(
    world: World, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(measure, "PRODUCTS", ((8, 8, 8),))
    size = ("--images", 12, "--captions", 30, "--threads", 1)
    chosen = () if engine == "auto" else ("--engine", engine)

    stdout = done("bench", "profile", world.bundle, *size, *chosen, "--json", "r.json").stdout

    assert "random regions and ids: 12 images × 30 captions" in stdout
    for stage in ("attention products", "SGR steps", "SAF gate", "local projection", "head"):
        assert stage in stdout
    assert "not arithmetic: " in stdout
    found = report()
    assert found["run"]["engine"] == (auto_engine("fp32") if engine == "auto" else engine)
    assert (found["run"]["images"], found["run"]["captions"]) == (12, 30)
    spent = sum(found["milliseconds_by_kind"].values())
    assert spent == pytest.approx(found["thread_milliseconds"])
    assert found["unprofiled_thread_milliseconds"] > 0
    assert [path.name for path in world.folder.iterdir()] == ["r.json"]


@pytest.mark.parametrize("engine", ["torch", "trt", "ort:fp16", "nothing"])
def test_profile_refuses_an_engine_without_stages(world: World, engine: str) -> None:
    result = run("bench", "profile", world.bundle, "--engine", engine)
    refused_line(result, InputError, engine, expected=naming("native", "ort"), got=engine)


def test_profile_refuses_what_auto_takes_where_no_other_engine_works(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Choice("torch", "fp32", "cpu")
    monkeypatch.setattr("sgraf_deploy.engines.policy.choose", lambda *_: taken)
    result = run("bench", "profile", world.bundle)
    refused_line(result, InputError, "torch", expected=naming("native", "ort"), hint="[cpu]")


BAD: list[tuple[tuple[object, ...], dict[str, Any]]] = [
    (("--engine", "nothing"), {"got": "nothing"}),
    (("--size", "10by50"), {"got": "10by50", "expected": naming("1000x5000")}),
    (("--size", "0x5"), {"got": "0x5", "expected": naming("1000x5000")}),
    (("--max-pairs", 9), {"got": 9, "expected": naming("10,125")}),
    (("--plot", "no/p.svg"), {}),
    (("--json", "no/r.json"), {}),
]


@pytest.mark.parametrize(("arguments", "fields"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line(
    world: World, machine: Machine, arguments: tuple[object, ...], fields: dict[str, Any]
) -> None:
    result = run("bench", "scaling", world.bundle, *arguments)

    name = "engine" if arguments[0] == "--engine" else arguments[0]
    refused_line(result, InputError, name, **fields)
    assert machine.jobs == []
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("scaling", "--data"),
        ("scaling", "--images"),
        ("scaling", "--warmup"),
        ("scaling", "--captions-per-image"),
        ("scaling", "--max-caption-words"),
        ("profile", "--size"),
        ("profile", "--repeats"),
        ("profile", "--device"),
        ("profile", "--captions-per-image"),
        ("profile", "--max-caption-words"),
    ],
)
def test_a_command_knows_its_own_options_alone(world: World, command: str, option: str) -> None:
    result = run("bench", command, world.bundle, option, 2)
    assert result.exit_code == 2
    assert holds(error_line(result), option)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("--scaling",), ("scaling",)),
        (("b.sgraf", "--scaling", "--size", "9x9"), ("scaling", "b.sgraf", "--size", "9x9")),
        (("--profile", "a bundle"), ("profile", "a bundle")),
    ],
    ids=" ".join,
)
def test_an_old_spelling_prints_the_new_one(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    result = run("bench", *old)
    hint = shlex.join(["bench", *new])
    refused_line(result, InputError, f"--{new[0]}", expected=naming(new[0]), hint=hint)


def test_a_failed_child_is_one_line(world: World) -> None:
    result = run("bench", "scaling", world.bare, "--engine", "torch", *SIZES)
    refused_line(result, SgrafDeployError, "10", "50", got=naming("--checkpoint"))
