"""The embedded demo: its files, its commands, and that it leaves other folders alone."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from cli.world import done, error_line, run, tree

import sgraf_deploy
from sgraf_deploy.bench import measure
from sgraf_deploy.bench.evaluate import evaluate_split
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.demo import assets
from sgraf_deploy.model.checkpoint import read_checkpoint

QUERY = 1
"""The scene that the demo asks for."""

MOST_BYTES = 3_000_000


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and a demo of few scenes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assets, "SCENES", 30)
    # As an attribute of the package, `demo` is the command.
    monkeypatch.setattr(sys.modules["sgraf_deploy.cli.demo"], "SUBSET", 10)
    monkeypatch.setattr(measure, "PRODUCTS", ((8, 8, 8),))
    monkeypatch.setattr("sgraf_deploy.bench.latency.CANDIDATES", (2, 5))
    monkeypatch.setattr("sgraf_deploy.bench.speed.SETTLE_SECONDS", 0)
    return tmp_path


def test_the_packaged_files_are_small_and_belong_together() -> None:
    files = [path for path in assets.PACKAGED.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    vocabulary = Vocabulary.load(assets.PACKAGED / assets.VOCABULARY)
    modules = []
    for name in assets.CHECKPOINTS:
        checkpoint = read_checkpoint(assets.PACKAGED / name)
        modules.append(checkpoint.config.module)
        assert checkpoint.config.vocab_size == vocabulary.size
    assert modules == ["SGR", "SAF"]


def test_every_step_is_a_command_that_could_be_typed(here: Path) -> None:
    output = done("demo").output

    steps = [line for line in output.splitlines() if line.startswith("$ sgraf-deploy ")]
    assert [step.split()[2] for step in steps] == ["export", "eval", "bench", "rerank"]
    assert "SGRAF" in output
    assert "chance" in output
    assert "literal loop" in output
    assert "fp16-rounded" in output
    assert "MISSED" not in output
    scene = (here / "sgraf-demo/scenes/test_ids.txt").read_text().splitlines()[QUERY]
    assert output.count(scene) == 2  # found by the rerank, and said to be right
    again = done("eval", *steps[1].split()[3:]).output
    assert again.split("R@K")[1] in output


@pytest.mark.slow
def test_a_demo_may_be_run_again() -> None:
    assert done("demo", "-o", "mine").exit_code == 0
    assert done("demo", "-o", "mine").exit_code == 0


def test_a_folder_of_somebody_else_is_left_alone(here: Path) -> None:
    (here / "sgraf-demo").mkdir()
    (here / "sgraf-demo" / "thesis.txt").write_text("mine")
    before = tree(here)
    result = run("demo")
    assert result.exit_code == 2
    assert "sgraf-demo exists and holds no demo" in error_line(result)
    assert tree(here) == before


def test_bench_without_a_bundle_takes_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["sgraf_deploy.cli.bench"], "_DEMO_IMAGES", 30)
    once = ("--repeats", 1, "--warmup", 0, "--threads", 1)
    output = done("bench", "--engine", "ort", *once).output
    assert output.startswith("demo.sgraf (SGRAF), split test: 30 images × 150 captions")


@pytest.mark.slow
def test_the_held_out_scenes_are_what_the_demo_promises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """R@1 of 500 distinct scenes, by a bundle of the packaged checkpoints."""
    monkeypatch.undo()
    split = assets.demo_split()
    assert split.images == 500
    assert len(set(split.ids or [])) == 500
    bundle = assets.export_demo(tmp_path / "demo.sgraf").bundle
    with sgraf_deploy.load(bundle) as scorer:
        reports = evaluate_split(scorer, split).reports
    assert list(reports) == ["SGR", "SAF", "SGRAF"]
    for name, report in reports.items():
        for recall in (report.image_to_text, report.text_to_image):
            assert 30 <= recall.r1 <= 90, name
            assert math.isfinite(recall.mean_rank)
