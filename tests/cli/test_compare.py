"""`sgraf-deploy compare`, on reports that `bench` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli_world import IMAGES, World, done, error_line, run

from sgraf_deploy.bench import measure
from sgraf_deploy.bench.saved import read_report
from sgraf_deploy.evaluation.recall import Recall

ROUNDS = 10
ONCE = ("--repeats", 1, "--warmup", 0, "--threads", 1)


@pytest.fixture
def report(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A report of engine ort on the split `dev`; all of its ten rounds took a second."""
    monkeypatch.setattr(measure, "PRODUCTS", ((8, 8, 8),))
    monkeypatch.setattr("sgraf_deploy.bench.latency.CANDIDATES", (2, 5))
    monkeypatch.setattr("sgraf_deploy.bench.speed.SETTLE_SECONDS", 0)
    data = ("--data", world.data, "--split", "dev")
    done("bench", world.bundle, *data, *ONCE, "--engine", "ort", "--json", "a.json")
    value = json.loads(Path("a.json").read_text(encoding="utf-8"))
    for engine in value["throughput"]["engines"]:
        for scope in engine["seconds"].values():
            scope["seconds"] = [1.0] * ROUNDS
    Path("a.json").write_text(json.dumps(value), encoding="utf-8")
    return Path("a.json")


def test_a_report_holds_what_two_are_compared_by(report: Path) -> None:
    value = json.loads(report.read_text(encoding="utf-8"))
    read = read_report(report)
    assert value["schema_version"] == 2
    assert value["throughput"]["order"] == ["matrix product", "literal loop", "ort fp32"]
    data = read.run.data
    assert (data.split, data.images, data.captions_per_image) == ("dev", IMAGES, 5)
    assert {len(rounds) for scopes in read.seconds.values() for rounds in scopes.values()} == {
        ROUNDS
    }
    for model, engines in read.ranks.items():
        assert list(engines) == ["literal loop", "ort fp32"]
        expected = value["reference"][model]["image_to_text"]
        for ranks in engines.values():
            first = sum(rank == 1 for rank in ranks.image_to_text)
            assert 100 * first / IMAGES == pytest.approx(expected["r1"])
            assert sum(ranks.image_to_text) / IMAGES == pytest.approx(expected["mean_rank"])
    assert set(Recall.__annotations__) == set(expected)


def test_markdown_says_the_verdict_first_and_the_exit_code_follows_it(report: Path) -> None:
    value = json.loads(report.read_text(encoding="utf-8"))
    result = done("compare", report, report, "--json", "c.json", "--plot", "c.svg")
    lines = result.stdout.splitlines()
    assert lines[0] == "**no worse**"
    assert sum(line.startswith("| ort fp32 | ") for line in lines) == 9
    assert json.loads(Path("c.json").read_text(encoding="utf-8"))["verdict"] == "no worse"
    assert Path("c.svg").read_text(encoding="utf-8").count(">same<") == 9

    for scope in value["throughput"]["engines"][1]["seconds"].values():
        scope["seconds"] = [100 * seconds for seconds in scope["seconds"]]
    Path("slow.json").write_text(json.dumps(value), encoding="utf-8")
    worse = run("compare", report, "slow.json")
    assert worse.exit_code == 1
    assert worse.stdout.startswith("**worse**: ort fp32, score; ort fp32, end to end")
    assert done("compare", "slow.json", report).stdout.startswith("**no worse**")


def test_undecided_fails_only_where_that_is_asked_for(report: Path) -> None:
    value = json.loads(report.read_text(encoding="utf-8"))
    for scope in value["throughput"]["engines"][1]["seconds"].values():
        scope["seconds"] = [1.0, 3.0] * (ROUNDS // 2)
    Path("noisy.json").write_text(json.dumps(value), encoding="utf-8")
    files = ("compare", "noisy.json", "noisy.json")
    assert done(*files).stdout.startswith("**undecided**")
    assert run(*files, "--strict").exit_code == 1


def test_what_cannot_be_used_exits_with_2(report: Path) -> None:
    for arguments, name in (
        ((report, "absent.json"), "absent.json"),
        ((report, report, "--pair", "ort"), "--pair"),
        ((report, report, "--model", "SAF-9"), "--model"),
        ((report, report, "--json", "absent/c.json"), "--json"),
    ):
        result = run("compare", *arguments)
        assert result.exit_code == 2
        assert name in error_line(result)
