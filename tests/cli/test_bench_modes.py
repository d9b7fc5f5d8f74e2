"""`sgraf-deploy bench --scaling` and `--profile`: what they show and write, what they refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from auto_engine import auto_engine
from bench.test_scaling import Machine
from cli.world import World, done, error_line, run

from sgraf_deploy.bundle import Bundle

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
    stdout = done("bench", world.bundle, "--scaling", *SIZES, *words, *files).stdout

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
    done("bench", world.bundle, "--scaling", *size, "--json", "r.json")
    (one,) = report()["sizes"]
    assert (one["pairs"], report()["run"]["engine"]) == (200_000, auto_engine())
    assert one["pairs_per_second"] > 0


def test_profile_shows_every_stage(world: World) -> None:
    size = ("--images", 12, "--captions", 30, "--threads", 1)

    stdout = done("bench", world.bundle, "--profile", *size, "--json", "r.json").stdout

    assert "random regions and ids: 12 images × 30 captions" in stdout
    for stage in ("attention products", "SGR steps", "SAF gate", "local projection", "head"):
        assert stage in stdout
    assert "not arithmetic: " in stdout
    found = report()
    assert (found["run"]["images"], found["run"]["captions"]) == (12, 30)
    spent = sum(found["milliseconds_by_kind"].values())
    assert spent == pytest.approx(found["thread_milliseconds"])
    assert [path.name for path in world.folder.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--scaling", "--profile"), ("--scaling: expected no --profile",)),
        (("--scaling", "--data", "."), ("--scaling: expected no --data",)),
        (("--scaling", "--images", 3), ("--scaling: expected no --images",)),
        (("--scaling", "--warmup", 1), ("--scaling: expected no --warmup",)),
        (("--scaling", "--engine", "ort", "--engine", "torch"), ("one --engine", "ort and torch")),
        (("--scaling", "--size", "10by50"), ("--size: expected IMAGESxCAPTIONS", "got 10by50")),
        (("--scaling", "--size", "0x5"), ("--size: expected IMAGESxCAPTIONS", "got 0x5")),
        (("--scaling", "--max-pairs", 9), ("--max-pairs: expected at least 10,125, got 9",)),
        (("--scaling", "--plot", "no/p.svg"), ("--plot no/p.svg", "create it")),
        (("--scaling", "--json", "no/r.json"), ("--json no/r.json", "create it")),
        (("--plot", "p.svg"), ("--plot: expected --scaling beside it",)),
        (("--max-pairs", 10**5), ("--max-pairs: expected --scaling beside it",)),
        (("--profile", "--size", "9x9"), ("--profile: expected no --size",)),
        (("--profile", "--repeats", 2), ("--profile: expected no --repeats",)),
        (("--profile", "--device", "cpu"), ("--profile: expected no --device",)),
        (("--profile", "--engine", "torch"), ("--profile: expected --engine ort, got torch",)),
        (("--profile", "--engine", "ort:fp16"), ("expected --engine ort, got ort:fp16",)),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_bad_input_is_one_line(
    world: World, machine: Machine, arguments: tuple[object, ...], says: tuple[str, ...]
) -> None:
    result = run("bench", world.bundle, *arguments)

    assert result.exit_code == 2
    for part in says:
        assert part in error_line(result)
    assert machine.jobs == []
    assert list(world.folder.iterdir()) == []


def test_a_failed_child_is_one_line(world: World) -> None:
    result = run("bench", world.bare, "--scaling", "--engine", "torch", *SIZES)
    assert result.exit_code == 2
    assert "measuring 10 images × 50 captions failed" in error_line(result)
    assert "--checkpoint FILE" in error_line(result)
