"""`sgraf-deploy eval`: its numbers are those of the scorer's logits, and nothing gets lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auto_engine import auto_engine
from cli.world import IMAGES, World, captions_of, done, error_line, run
from small_models import SGR, random_regions

import sgraf_deploy
from sgraf_deploy.bench import recall
from sgraf_deploy.bench.recall import Recall, RecallReport, Ties
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.runtime.logits import combine_logits, similarities

MODELS = ("SGR", "SAF", "SGRAF")


def expected_logits(world: World, images: int = IMAGES) -> dict[str, np.ndarray[Any, Any]]:
    """The logits by model, straight from the scorer."""
    split = open_precomp(world.data, "dev", limit_images=images)
    with sgraf_deploy.load(world.bundle, engine="ort") as scorer:
        members = scorer.logits(split.regions, split.captions)
    logits = {"SGR": members["sgr"], "SAF": members["saf"]}
    return logits | {"SGRAF": combine_logits(*logits.values())}


def evaluate(world: World, *more: object) -> tuple[str, dict[str, Any]]:
    """Standard output and the report of an evaluation."""
    arguments = ("--data", world.data, "--split", "dev", "--json", "report.json")
    result = done("eval", world.bundle, *arguments, *more)
    assert result.stderr == ""
    return result.stdout, json.loads(Path("report.json").read_text(encoding="utf-8"))


def rows(stdout: str) -> dict[str, list[str]]:
    """The cells of every row of the tables by `MODEL i` and `MODEL t`, the last table's."""
    found, model = {}, ""
    for line in stdout.splitlines():
        if "image → text" in line or "text → image" in line:
            before, _, cells = line.partition("→")
            model = before.split()[0] if before.split()[0] in (*MODELS, "chance") else model
            found[f"{model} {before.split()[-1][0]}"] = cells.split()[1:]
    return found


def cells(direction: Recall) -> list[str]:
    numbers = [f"{value:.2f}" for value in (direction.r1, direction.r5, direction.r10)]
    return [*numbers, f"{direction.median_rank:.0f}", f"{direction.mean_rank:.2f}"]


def test_recall_is_that_of_the_logits(world: World) -> None:
    expected = {name: recall.evaluate(logits) for name, logits in expected_logits(world).items()}
    stdout, report = evaluate(world)

    assert list(report["reports"]) == list(MODELS)
    assert len({each.rsum for each in expected.values()}) > 1
    shown = rows(stdout)
    for name, each in expected.items():
        assert RecallReport.to_json(each) == report["reports"][name]
        assert shown[f"{name} i"] == [*cells(each.image_to_text), f"{each.rsum:.2f}"]
        assert shown[f"{name} t"] == cells(each.text_to_image)
    assert shown["chance t"][:3] == ["16.67", "83.33", "100.00"]


def test_the_report_says_what_ran(world: World) -> None:
    stdout, report = evaluate(world)

    run_ = report["run"]
    assert run_["bundle_sha256"] == sgraf_deploy.Bundle.open(world.bundle).sha256
    assert (run_["engine"], run_["precision"], run_["executed"]) == (
        auto_engine(),
        "fp32",
        "fp32",
    )
    assert (run_["split"], run_["images"], run_["captions"]) == ("dev", IMAGES, 5 * IMAGES)
    assert run_["versions"]["sgraf-deploy"] == sgraf_deploy.__version__
    words = " ".join(open_precomp(world.data, "dev").captions).split()
    unknown = words.count("word9999")
    assert 0 < unknown < len(words)
    assert report["words"] == {"captions": 30, "tokens": len(words), "unknown": unknown}
    assert f"{unknown} of {len(words)} words unknown ({unknown / len(words):.1%})" in stdout
    assert f"small.sgraf (SGRAF: sgr + saf), engine {auto_engine()}, fp32 on cpu" in stdout
    assert f"split dev of {world.data}: 6 images × 30 captions" in stdout
    assert "scored 180 pairs by SGR and SAF in " in stdout
    assert stdout.splitlines()[-1] == "wrote report.json"
    assert max(len(line) for line in stdout.splitlines() if "split dev" not in line) <= 120


@pytest.mark.parametrize("folds", [1, 2, 3, 6])
def test_folds_are_blocks_of_the_logits(world: World, folds: int) -> None:
    stdout, report = evaluate(world, "--folds", folds)

    assert f"mean of {folds} fold" in stdout
    assert f"of {IMAGES // folds} image" in stdout
    shown = rows(stdout)
    for name, logits in expected_logits(world).items():
        expected = recall.folds(logits, folds)
        assert report["folds"][name] == json.loads(json.dumps(expected.to_json()))
        assert shown[f"{name} i"][:5] == cells(expected.mean.image_to_text)


@pytest.mark.parametrize("ties", ["last", "authors"])
def test_ties_as_asked_for(world: World, ties: Ties) -> None:
    captions = captions_of(1) * IMAGES
    regions = random_regions(SGR, IMAGES)
    regions[2:5] = regions[1]
    data = world.precomp(regions, captions)
    arguments = ("--data", data, "--split", "dev", "--ties", ties, "--json", "r.json")

    result = done("eval", world.bundle, *arguments)

    split = open_precomp(data, "dev")
    with sgraf_deploy.load(world.bundle) as scorer:
        logits = scorer.logits(split.regions, split.captions)["sgr"]
    ranked = logits if ties == "last" else similarities(logits)
    report = json.loads(Path("r.json").read_text(encoding="utf-8"))["reports"]["SGR"]
    assert report == recall.evaluate(ranked, ties=ties).to_json()
    tied = report["tied_image_to_text"] + report["tied_text_to_image"]
    assert tied > 0
    assert f"queries with a tied ground truth, of 36: SGR {tied}, SAF " in result.stdout
    assert ("authors' sort" in result.stdout) == (ties == "authors")


def test_the_first_images_only(world: World) -> None:
    _, report = evaluate(world, "--limit-images", 4)

    expected = recall.evaluate(expected_logits(world, images=4)["SGRAF"])
    assert report["run"]["captions"] == 20
    assert report["reports"]["SGRAF"] == expected.to_json()


def test_authors_dev_cuts_the_split(world: World) -> None:
    world.monkeypatch.setattr("sgraf_deploy.data.precomp.AUTHORS_DEV_CAPTIONS", 15)

    assert evaluate(world, "--authors-dev")[1]["run"]["images"] == 3
    assert evaluate(world)[1]["run"]["images"] == IMAGES


@pytest.mark.parametrize(
    ("engine", "precision", "executed"),
    [
        ("ort", "fp32", "fp32"),
        ("ort", "fp16", "fp32 arithmetic on an fp16 graph"),
        ("torch", "fp32", "fp32"),
        ("torch", "fp16", "fp16-rounded"),
        ("torch-reference", "fp32", "fp32"),
    ],
)
def test_every_engine_says_what_it_executes(
    world: World, engine: str, precision: str, executed: str
) -> None:
    arguments = ("--engine", engine, "--precision", precision, "--device", "cpu", "--threads", 1)

    stdout, report = evaluate(world, *arguments)

    assert f"engine {engine}, {executed} on cpu" in stdout.splitlines()[0]
    assert (report["run"]["engine"], report["run"]["executed"]) == (engine, executed)
    if precision == "fp32":
        expected = recall.evaluate(expected_logits(world)["SGRAF"])
        assert report["reports"]["SGRAF"] == expected.to_json()


def test_one_member_has_one_report(world: World) -> None:
    done("export", world.saf, "--vocab", world.vocabulary, "--precision", "fp32")

    result = done("eval", "small_SAF.sgraf", "--data", world.data, "--split", "dev")

    assert set(rows(result.stdout)) == {"SAF i", "SAF t", "chance i", "chance t"}
    assert "pairs by SAF in" in result.stdout


def test_a_bare_bundle_runs_on_torch_with_its_checkpoint(world: World) -> None:
    more = ("--vocab", world.vocabulary, "--precision", "fp32", "--no-reference")
    done("export", world.sgr, *more)
    arguments = ("--data", world.data, "--split", "dev", "--json", "r.json")

    done("eval", "small_SGR.sgraf", *arguments, "--engine", "torch", "--checkpoint", world.sgr)

    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert report["run"]["engine"] == "torch"
    assert report["reports"]["SGR"] == recall.evaluate(expected_logits(world)["SGR"]).to_json()


def test_foreign_regions_are_warned_of(world: World) -> None:
    gate = ("--gate-data", world.data, "--vocab", world.vocabulary)
    done("export", world.sgr, "--precision", "fp32", *gate)
    data = world.precomp(10 * random_regions(SGR, IMAGES))

    result = done("eval", "small_SGR.sgraf", "--data", data, "--split", "dev")

    assert result.stderr.startswith("Warning: the regions' mean norm is 8")
    assert result.stderr.count("Warning") == 1
    again = done("eval", "small_SGR.sgraf", "--data", world.data, "--split", "dev")
    assert again.stderr == ""


def test_a_full_disk_loses_neither_the_result_nor_the_old_report(world: World) -> None:
    def fill_up(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old = world.write("r.json", b"old")
    arguments = ("--data", world.data, "--split", "dev", "--json", "r.json")
    world.monkeypatch.setattr(os, "fsync", fill_up)

    result = run("eval", world.bundle, *arguments)

    assert result.exit_code == 2
    assert "--json r.json cannot be written: got No space left" in error_line(result)
    assert "free disk space" in error_line(result)
    assert len(rows(result.stdout)) == 2 * len(MODELS) + 2
    assert "wrote" not in result.stdout
    assert old.read_bytes() == b"old"
    assert [path.name for path in world.folder.iterdir()] == ["r.json"]


def test_a_gpu_is_torchs(world: World) -> None:
    world.monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    arguments = ("--data", world.data, "--split", "dev", "--device", "cuda:0")

    says = error_line(run("eval", world.bundle, *arguments))
    assert "no engine is available on cuda:0" in says
    assert "torch: PyTorch sees no device cuda:0" in says


@pytest.mark.parametrize("more", [(), ("--folds", 2), ("--ties", "authors")], ids=str)
def test_similarities_are_saved_as_the_scorer_computes_them(
    world: World, more: tuple[object, ...]
) -> None:
    stdout, report = evaluate(world, "--save-similarities", "s.npy", *more)

    split = open_precomp(world.data, "dev")
    with sgraf_deploy.load(world.bundle) as scorer:
        expected = scorer.score(split.regions, split.captions)
    saved = np.load("s.npy")
    assert saved.dtype == np.float32
    np.testing.assert_array_equal(saved, expected)
    assert stdout.splitlines()[-2:] == ["wrote report.json", "wrote s.npy"]
    alone = evaluate(world, *more)[1]
    assert alone["reports"] == report["reports"]


def test_similarities_of_one_member_are_its_own(world: World) -> None:
    done("export", world.saf, "--vocab", world.vocabulary, "--precision", "fp32")
    arguments = ("--data", world.data, "--split", "dev", "--save-similarities", "s.npy")

    done("eval", "small_SAF.sgraf", *arguments)

    saved = np.load("s.npy")
    np.testing.assert_allclose(saved, similarities(expected_logits(world)["SAF"]), atol=1e-6)


def test_what_cannot_be_saved_is_refused_before_the_work(world: World) -> None:
    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("it was begun")

    world.monkeypatch.setattr("sgraf_deploy.bench.evaluate.evaluate_split", no_work)
    arguments = ("eval", world.bundle, "--data", world.data, "--split", "dev")
    usage = shutil.disk_usage(world.folder)
    (world.folder / "folder").mkdir()
    for file in ("no/s.npy", "folder", os.devnull):
        result = run(*arguments, "--save-similarities", file)
        assert result.exit_code == 2
        assert f"--save-similarities {file} cannot be written" in error_line(result)
    both = run(*arguments, "--save-similarities", "r.npy", "--json", "./r.npy")
    assert "expected two files" in error_line(both)
    world.monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=700))
    full = run(*arguments, "--save-similarities", "s.npy")
    assert full.exit_code == 2
    assert "disk space" in error_line(full)
    assert [path.name for path in world.folder.iterdir()] == ["folder"]


def test_an_interrupted_evaluation_saves_nothing(world: World) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    old = world.write("s.npy", b"old")
    world.monkeypatch.setattr("sgraf_deploy.runtime.ranks.HostRankCounter.add", fail)

    result = run(
        "eval", world.bundle, "--data", world.data, "--split", "dev", "--save-similarities", "s.npy"
    )

    assert result.exit_code == 130
    assert old.read_bytes() == b"old"
    assert [path.name for path in world.folder.iterdir()] == ["s.npy"]


def test_what_a_late_failure_cannot_save_is_shown(world: World) -> None:
    arguments = ("--data", world.data, "--split", "dev", "--save-similarities", "s.npy")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    world.monkeypatch.setattr(os, "replace", fail)
    result = run("eval", world.bundle, *arguments)

    assert result.exit_code == 2
    assert "--save-similarities s.npy cannot be written" in error_line(result)
    assert len(rows(result.stdout)) == 2 * len(MODELS) + 2
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "says"),
    [((), "no matrix"), (("--folds", 2), "matrices of logits 2.2 kB")],
    ids=["tiles", "matrix"],
)
def test_memory_is_told_before_the_work(world: World, more: tuple[object, ...], says: str) -> None:
    stdout, report = evaluate(world, *more)

    line = stdout.splitlines()[2]
    assert line.startswith("in memory: encoded inputs ")
    assert line.endswith(f"B, {says}")
    assert report["memory_bytes"]["result"] == (0 if says == "no matrix" else 3 * 4 * 180)
