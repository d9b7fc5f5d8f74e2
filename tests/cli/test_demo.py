"""The embedded demo: its files, its commands, and that it leaves other folders alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli_world import done, recall_rows, refused_line, run, tree
from support.refusals import holds, naming, refused

import sgraf_deploy
from sgraf_deploy.bench import measure
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.demo import assets
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.evaluate import evaluate_split
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
    assert {"SGRAF i", "chance i"} <= set(recall_rows(output))
    assert holds(output, "fp16-rounded")
    scene = (here / "sgraf-demo/scenes/test_ids.txt").read_text().splitlines()[QUERY]
    assert output.count(scene) == 2  # found by the rerank, and said to be right
    again = done("eval", *steps[1].split()[3:]).output.splitlines()
    table = [line for line in again if recall_rows(line)]
    assert len(table) == 8
    assert set(table) <= set(output.splitlines())


@pytest.mark.slow
def test_a_demo_may_be_run_again() -> None:
    assert done("demo", "-o", "mine").exit_code == 0
    assert done("demo", "-o", "mine").exit_code == 0


def test_a_folder_of_somebody_else_is_left_alone(here: Path) -> None:
    (here / "sgraf-demo").mkdir()
    (here / "sgraf-demo" / "thesis.txt").write_text("mine")
    before = tree(here)
    result = run("demo")
    refused_line(result, InputError, "sgraf-demo", hint="-o")
    assert tree(here) == before


def _another_checkpoint(folder: Path) -> str:
    (folder / "saf.pth.tar").write_bytes(b"trained for a week")
    return "saf.pth.tar"


def _another_scene(folder: Path) -> str:
    (folder / "scenes" / "test_caps.txt").write_text("mine\n")
    return "scenes/test_caps.txt, scenes/test_ims.npy"


def _another_bundle(folder: Path) -> str:
    path = folder / "demo.sgraf" / "manifest.json"
    text = path.read_text(encoding="utf-8")
    sha256 = Bundle.open(folder / "demo.sgraf").manifest.members["sgr"].checkpoint.sha256
    path.write_text(text.replace(sha256, "0" * 64), encoding="utf-8")
    return "demo.sgraf"


@pytest.mark.parametrize("change", [_another_checkpoint, _another_scene, _another_bundle])
def test_what_took_the_place_of_the_demos_files_stays(
    here: Path, change: Callable[[Path], str]
) -> None:
    assets.lay_out(here / "mine")
    assets.export_demo(here / "mine" / "demo.sgraf")
    assets.lay_out(here / "mine")
    changed = change(here / "mine")
    before = tree(here)
    with refused(InputError, here / "mine", got=naming(changed)):
        assets.lay_out(here / "mine")
    assert tree(here) == before


def test_bench_without_a_bundle_takes_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["sgraf_deploy.cli.bench"], "_DEMO_IMAGES", 30)
    once = ("--repeats", 1, "--warmup", 0, "--threads", 1)
    first = done("bench", "--engine", "ort", *once).output.splitlines()[0]
    assert all(holds(first, name) for name in ("demo.sgraf", "SGRAF", "test", 30, 150))


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
