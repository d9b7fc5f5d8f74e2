"""FP8 through the command line: asked for, judged on real data, and only where it is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli_world import World, done, line_naming, refused_line, run, suggested
from support.refusals import naming

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS
from sgraf_deploy.errors import GateError, InputError, UnavailableError
from sgraf_deploy.evaluation import parity
from sgraf_deploy.gate import values as gate


@pytest.fixture
def lenient(world: World) -> World:
    """Random weights move further than trained ones: only what must be computed is tested."""
    world.monkeypatch.setattr(gate, "FP16_LOGITS_SHARE_DATA", 0.5)
    world.monkeypatch.setattr(gate, "FP16_SIMILARITIES", 0.5)
    world.monkeypatch.setattr(gate, "FP16_SPEARMAN", 0.5)
    world.monkeypatch.setattr(parity, "SHARES", {"fp16": 10.0, "fp8": 10.0})
    for name in ("RECALL_POINTS", "RSUM_POINTS"):
        world.monkeypatch.setattr(parity, name, 600.0)
    return world


def test_all_exports_fp8_too_and_says_what_it_does_to_recall(lenient: World) -> None:
    data = ("--vocab", lenient.vocabulary, "--gate-data", lenient.data)
    result = done("export", lenient.sgr, lenient.saf, *data, "--precision", "all", "-o", "a.sgraf")

    assert Bundle.open("a.sgraf").manifest.precisions == ("fp32", "fp16", "fp8")
    line_naming(result.stdout, "fp8", "dev", 6, 30, "SGR", "SAF", "SGRAF")
    line_naming(result.stderr, "fp8")
    lines = done("verify", "a.sgraf", "--layers").stdout
    line_naming(lines, "sgr fp8")
    for graph in GRAPHS:
        line_naming(lines, "saf", "fp16", graph)
        line_naming(lines, "saf", "fp8", graph)


def test_fp8_alone_names_an_engine_that_runs_it(lenient: World) -> None:
    data = ("--vocab", lenient.vocabulary, "--gate-data", lenient.data, "--no-reference")
    result = done("export", lenient.sgr, *data, "--precision", "fp8", "-o", "a.sgraf")

    assert suggested(result.stdout)[-4:] == ["--precision", "fp8", "--engine", "torch"]


def test_fp8_needs_real_data(world: World) -> None:
    result = run("export", world.sgr, "--vocab", world.vocabulary, "--precision", "fp8")

    refused_line(result, InputError, "fp8", expected=naming("--gate-data"))
    assert list(world.folder.iterdir()) == []


def test_fp8_that_loses_recall_is_not_published(lenient: World) -> None:
    lenient.monkeypatch.setattr(parity, "SHARES", {"fp8": 1e-9})
    data = ("--vocab", lenient.vocabulary, "--gate-data", lenient.data)

    result = run("export", lenient.sgr, *data, "--precision", "fp8")

    names = ("torch", "fp8-rounded", "dev")
    refused_line(result, GateError, *names, got=naming("SGR", "1e-09"), hint="--precision fp16")
    assert list(lenient.folder.iterdir()) == []


def test_bench_compares_it_and_does_not_time_it(lenient: World, exported_fp8: Bundle) -> None:
    few = ("--data", lenient.data, "--split", "dev", "--repeats", 1, "--warmup", 0, "--queries", 2)
    engines = ("--engine", "ort", "--engine", "torch:fp8")

    done("bench", exported_fp8.path, *few, *engines, "--json", "r.json")

    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert list(report["parity"]) == ["ort fp32", "torch fp8-rounded"]
    timed = [each["engine"] for each in report["throughput"]["engines"]]
    assert "ort fp32" in timed
    assert "torch fp8-rounded" not in timed


@pytest.mark.parametrize("command", ["eval", "bench"])
def test_an_engine_that_cannot_is_one_line(
    command: str, world: World, exported_fp8: Bundle
) -> None:
    data = ("--data", world.data, "--split", "dev")
    result = run(command, exported_fp8.path, *data, "--engine", "ort", "--precision", "fp8")

    expected = naming("fp32", "fp16")
    refused_line(
        result, UnavailableError, "ort", expected=expected, got="fp8", hint="--engine torch"
    )
