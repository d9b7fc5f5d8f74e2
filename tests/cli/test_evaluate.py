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
from support.auto_engine import auto_engine
from support.cli_world import (
    IMAGES,
    World,
    captions_of,
    done,
    line_naming,
    recall_rows,
    refused_line,
    run,
)
from support.refusals import holds, naming
from support.small_models import SGR, random_regions

import sgraf_deploy
from sgraf_deploy.cli.common import megabytes
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.engines.ensemble import combine_logits, similarities
from sgraf_deploy.errors import InputError, UnavailableError
from sgraf_deploy.evaluation import recall
from sgraf_deploy.evaluation.recall import Recall, RecallReport, Ties

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


def cells(direction: Recall) -> list[str]:
    numbers = [f"{value:.2f}" for value in (direction.r1, direction.r5, direction.r10)]
    return [*numbers, f"{direction.median_rank:.0f}", f"{direction.mean_rank:.2f}"]


def test_recall_is_that_of_the_logits(world: World) -> None:
    expected = {name: recall.evaluate(logits) for name, logits in expected_logits(world).items()}
    stdout, report = evaluate(world)

    assert list(report["reports"]) == list(MODELS)
    assert len({each.rsum for each in expected.values()}) > 1
    shown = recall_rows(stdout)
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
    line_naming(stdout, unknown, len(words), f"{unknown / len(words):.1%}")
    line_naming(stdout, "small.sgraf", "SGRAF", "sgr", "saf", auto_engine(), "fp32", "cpu")
    line_naming(stdout, "dev", world.data, 6, 30)
    line_naming(stdout, 180, "SGR", "SAF")
    assert holds(stdout.splitlines()[-1], "report.json")
    widths = [len(line) for line in stdout.splitlines() if str(world.data) not in line]
    assert max(widths) <= 120


@pytest.mark.parametrize("folds", [1, 2, 3, 6])
def test_folds_are_blocks_of_the_logits(world: World, folds: int) -> None:
    stdout, report = evaluate(world, "--folds", folds)

    line_naming(stdout, folds, IMAGES // folds)
    assert report["run"]["ranks_from"] == "matrix"
    shown = recall_rows(stdout)
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
    whole = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert whole["run"]["ranks_from"] == {"last": "tiles", "authors": "matrix"}[ties]
    report = whole["reports"]["SGR"]
    assert report == recall.evaluate(ranked, ties=ties).to_json()
    tied = report["tied_image_to_text"] + report["tied_text_to_image"]
    assert tied > 0
    line_naming(result.stdout, 36, f"SGR {tied}", "SAF")
    assert holds(result.stdout, "authors") == (ties == "authors")


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

    line_naming(stdout.splitlines()[0], engine, executed, "cpu")
    assert (report["run"]["engine"], report["run"]["executed"]) == (engine, executed)
    if precision == "fp32":
        expected = recall.evaluate(expected_logits(world)["SGRAF"])
        assert report["reports"]["SGRAF"] == expected.to_json()


def test_one_member_has_one_report(world: World) -> None:
    done("export", world.saf, "--vocab", world.vocabulary, "--precision", "fp32")

    result = done("eval", "small_SAF.sgraf", "--data", world.data, "--split", "dev")

    assert set(recall_rows(result.stdout)) == {"SAF i", "SAF t", "chance i", "chance t"}
    line_naming(result.stdout, IMAGES * 5 * IMAGES, "SAF")


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

    assert result.warned == ["foreign-regions"]
    assert result.stderr.count("\n") == 1
    again = done("eval", "small_SGR.sgraf", "--data", world.data, "--split", "dev")
    assert again.stderr == ""


def test_a_full_disk_loses_neither_the_result_nor_the_old_report(world: World) -> None:
    def fill_up(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old = world.write("r.json", b"old")
    arguments = ("--data", world.data, "--split", "dev", "--json", "r.json")
    world.monkeypatch.setattr(os, "fsync", fill_up)

    result = run("eval", world.bundle, *arguments)

    full = os.strerror(errno.ENOSPC)
    refused_line(result, InputError, "--json", "r.json", got=full, hint=naming())
    assert len(recall_rows(result.stdout)) == 2 * len(MODELS) + 2
    assert not holds(result.stdout, "r.json")
    assert old.read_bytes() == b"old"
    assert [path.name for path in world.folder.iterdir()] == ["r.json"]


def test_a_gpu_is_torchs(world: World) -> None:
    world.monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    arguments = ("--data", world.data, "--split", "dev", "--device", "cuda:0")

    result = run("eval", world.bundle, *arguments)
    refused_line(result, UnavailableError, "torch", hint=f"--engine {auto_engine()}")


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
    for line, file in zip(stdout.splitlines()[-2:], ["report.json", "s.npy"], strict=True):
        assert holds(line, file)
    alone = evaluate(world, *more)[1]
    assert alone["reports"] == report["reports"]


def test_similarities_of_one_member_are_its_own(world: World) -> None:
    done("export", world.saf, "--vocab", world.vocabulary, "--precision", "fp32")
    arguments = ("--data", world.data, "--split", "dev", "--save-similarities", "s.npy")

    done("eval", "small_SAF.sgraf", *arguments)

    saved = np.load("s.npy")
    np.testing.assert_allclose(saved, similarities(expected_logits(world)["SAF"]), atol=1e-6)


def test_the_report_is_a_page_with_the_ranks_of_the_run(world: World) -> None:
    _, report = evaluate(world, "--html", "p.html")
    page = Path("p.html").read_text(encoding="utf-8")
    for model, figures in report["reports"].items():
        engine = f"{report['run']['engine']} {report['run']['executed']}"
        r1 = figures["image_to_text"]["r1"]
        start = f'>{model}</td><td class="short">{engine}</td><td class="number">{r1:.2f}<small>'
        assert start in page
    data = ("--data", world.data, "--split", "dev")
    alone = run("eval", world.bundle, *data, "--dataset", "coco")
    refused_line(alone, InputError, "--dataset", expected=naming("--html"))


def test_what_cannot_be_saved_is_refused_before_the_work(world: World) -> None:
    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("it was begun")

    world.monkeypatch.setattr("sgraf_deploy.evaluation.evaluate.evaluate_split", no_work)
    arguments = ("eval", world.bundle, "--data", world.data, "--split", "dev")
    usage = shutil.disk_usage(world.folder)
    (world.folder / "folder").mkdir()
    for file in ("no/s.npy", "folder", os.devnull):
        result = run(*arguments, "--save-similarities", file)
        refused_line(result, InputError, "--save-similarities", file, hint=naming())
    both = run(*arguments, "--save-similarities", "r.npy", "--json", "./r.npy")
    refused_line(both, InputError, "--json", "--save-similarities", got="r.npy")
    world.monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=700))
    full = run(*arguments, "--save-similarities", "s.npy")
    names = ("--save-similarities", "s.npy")
    refused_line(full, InputError, *names, expected=naming("MB"), got=naming("MB"), hint=naming())
    assert [path.name for path in world.folder.iterdir()] == ["folder"]


def test_an_interrupted_evaluation_saves_nothing(world: World) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    old = world.write("s.npy", b"old")
    world.monkeypatch.setattr("sgraf_deploy.engines.ranks.HostRankCounter.add", fail)

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

    names = ("--save-similarities", "s.npy")
    refused_line(result, InputError, *names, got=os.strerror(errno.EIO))
    assert len(recall_rows(result.stdout)) == 2 * len(MODELS) + 2
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "matrices"), [((), 0), (("--folds", 2), 3 * 4 * 180)], ids=["tiles", "matrix"]
)
def test_memory_is_told_before_the_work(
    world: World, more: tuple[object, ...], matrices: int
) -> None:
    stdout, report = evaluate(world, *more)

    line = stdout.splitlines()[2]
    assert holds(line, megabytes(report["memory_bytes"]["encoded"]))
    assert holds(line, "2.2 kB") == (matrices > 0)
    assert report["memory_bytes"]["result"] == matrices
