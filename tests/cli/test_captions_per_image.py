"""`--captions-per-image`: what each command makes of data with another number than five."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.test_train import SMALL
from support.cli_world import (
    IMAGES,
    World,
    captions_of,
    done,
    line_naming,
    recall_rows,
    refused_line,
    run,
    suggested,
)
from support.refusals import naming

import sgraf_deploy
from sgraf_deploy.bench import measure
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.engines.ensemble import ensemble_logits
from sgraf_deploy.engines.trt import library as tensorrt
from sgraf_deploy.errors import DataError, GateError
from sgraf_deploy.evaluation import recall
from sgraf_deploy.evaluation.recall_gate import check_recall

PER_IMAGE = [1, 2, 3]


def data_of(world: World, per_image: int) -> tuple[object, ...]:
    """A split `dev` of so many captions per image, and the options that name it."""
    captions = captions_of(IMAGES)[: per_image * IMAGES]
    folder = world.precomp(captions=captions)
    return ("--data", folder, "--split", "dev", "--captions-per-image", per_image)


def logits_of(world: World, per_image: int) -> np.ndarray[Any, Any]:
    """The ensemble's, straight from the scorer."""
    split = open_precomp(world.folder / "precomp", "dev", captions_per_image=per_image)
    with sgraf_deploy.load(world.bundle, engine="ort") as scorer:
        logits = scorer.logits(split.regions, split.captions)
    return ensemble_logits(logits)


@pytest.mark.parametrize("per_image", PER_IMAGE)
def test_eval_counts_any_of_an_images_captions(world: World, per_image: int) -> None:
    data = data_of(world, per_image)
    more = ("--json", "r.json", "--folds", 2, "--engine", "ort")

    stdout = done("eval", world.bundle, *data, *more).stdout

    report, logits = json.loads(Path("r.json").read_text()), logits_of(world, per_image)
    assert report["run"]["captions_per_image"] == per_image
    assert report["reports"]["SGRAF"] == recall.evaluate(logits, per_image).to_json()
    folds = recall.folds(logits, 2, per_image)
    assert report["folds"]["SGRAF"] == json.loads(json.dumps(folds.to_json()))
    expected = recall.chance_level(IMAGES, per_image).image_to_text
    shown = recall_rows(stdout)["chance i"][0]
    assert float(shown) == pytest.approx(expected.r1, abs=0.005)


def test_eval_cuts_dev_to_whole_images(world: World) -> None:
    data = data_of(world, 2)
    world.monkeypatch.setattr("sgraf_deploy.data.precomp.AUTHORS_DEV_CAPTIONS", 5)
    done("eval", world.bundle, *data, "--authors-dev", "--json", "r.json")
    report = json.loads(Path("r.json").read_text())["run"]
    assert (report["images"], report["captions"]) == (2, 4)


@pytest.mark.parametrize("per_image", PER_IMAGE)
def test_bench_compares_recall(world: World, per_image: int) -> None:
    world.monkeypatch.setattr(measure, "PRODUCTS", ((8, 8, 8),))
    world.monkeypatch.setattr("sgraf_deploy.bench.latency.CANDIDATES", (2,))
    world.monkeypatch.setattr("sgraf_deploy.bench.speed.SETTLE_SECONDS", 0)
    once = ("--repeats", 1, "--warmup", 0, "--threads", 1, "--engine", "ort", "--json", "r.json")

    done("bench", world.bundle, *data_of(world, per_image), *once)

    report = json.loads(Path("r.json").read_text())
    (parities,) = report["parity"].values()
    expected = recall.evaluate(logits_of(world, per_image), per_image)
    assert parities[-1]["recall"]["image_to_text"] == expected.to_json()["image_to_text"]


@pytest.mark.parametrize("per_image", PER_IMAGE)
def test_train_and_export_take_it(world: World, per_image: int) -> None:
    data = data_of(world, per_image)
    folder, number = data[1], ("--captions-per-image", per_image)
    small = [value if value != 10 else 5 for value in SMALL]
    trained = done("train", folder, "--module", "SAF", "-o", "own.pth.tar", *small, *number)
    line_naming(trained.output, folder, IMAGES, IMAGES * per_image)

    gate = ("--gate-data", folder, "--precision", "fp32", *number)
    exported = done("export", "own.pth.tar", "--vocab", "own_vocab.json", *gate, "-o", "own.sgraf")

    line_naming(exported.stdout, IMAGES, IMAGES * per_image, "dev")
    following = suggested(exported.stdout)
    assert following[-2:] == ["--captions-per-image", str(per_image)]
    done(*following)


def test_compile_compares_recall(world: World) -> None:
    seen = []

    def publish(*_: object, check: Any, **__: object) -> None:
        check(sgraf_deploy.load(world.bundle, engine="ort"))
        raise GateError("nothing is published here")

    def check(*arguments: Any, **more: Any) -> dict[str, Any]:
        seen.append(arguments[2].captions_per_image)
        return check_recall(*arguments, **more)

    world.monkeypatch.setattr(tensorrt, "find_tensorrt", lambda: "TensorRT")
    world.monkeypatch.setattr("sgraf_deploy.compile.build.target", lambda _: "8.9")
    world.monkeypatch.setattr("sgraf_deploy.compile.build.plan_builds", lambda *_: [])
    world.monkeypatch.setattr("sgraf_deploy.compile.publish.publish_engines", publish)
    world.monkeypatch.setattr("sgraf_deploy.evaluation.recall_gate.check_recall", check)

    result = run("compile", world.bundle, *data_of(world, 3))

    refused_line(result, GateError, "nothing is published here")
    assert seen == [3]


@pytest.mark.parametrize("command", ["eval", "bench", "rerank", "train", "export", "compile"])
def test_the_error_names_the_number_that_fits(world: World, command: str) -> None:
    folder = data_of(world, 2)[1]
    world.monkeypatch.setattr(tensorrt, "find_tensorrt", lambda: "TensorRT")
    world.monkeypatch.setattr("sgraf_deploy.compile.build.target", lambda _: "8.9")
    data = ("--data", folder, "--split", "dev")
    arguments: dict[str, tuple[object, ...]] = {
        "rerank": (world.bundle, *data, "--image", 1),
        "train": (folder, "--module", "SAF", "-o", "own.pth.tar", "--split", "dev"),
        "export": (world.sgr, "--vocab", world.vocabulary, "--gate-data", folder),
    }

    result = run(command, *arguments.get(command, (world.bundle, *data)))

    names = ("dev_ims.npy", "dev_caps.txt")
    refused_line(result, DataError, *names, got=naming(6, 12), hint="--captions-per-image 2")


@pytest.mark.parametrize("captions", [True, False], ids=["there", "missing"])
@pytest.mark.parametrize("repeat", [1, 2])
def test_rerank_finds_images_without_their_captions(
    world: World, repeat: int, captions: bool
) -> None:
    folder = data_of(world, 2)[1]
    assert isinstance(folder, Path)
    stored = np.load(folder / "dev_ims.npy")
    np.save(folder / "dev_ims.npy", np.repeat(stored, repeat, axis=0))
    if not captions:
        (folder / "dev_caps.txt").unlink()
    query = ("--caption", "word5", "--split", "dev", "--captions-per-image", 2)

    found = done("rerank", world.bundle, "--data", folder, *query).stdout

    assert {line.split()[-1] for line in found.splitlines()[-6:]} == {
        f"photo{row}.jpg" for row in range(6)
    }


def test_rerank_tells_what_its_files_show(world: World) -> None:
    folder = world.precomp(np.load(world.data / "dev_ims.npy").astype(">f8"))
    (folder / "dev_ids.txt").write_text("a\nb\n")
    data = ("--data", folder, "--split", "dev")
    for query in (("--caption", "word5"), ("--image", 2)):
        result = done("rerank", world.bundle, *data, *query)
        assert (result.noted, result.warned) == (["converted-regions"], ["names-left-out"])
        line_naming(result.stdout, "dev", "float64", "big-endian")


def test_converted_regions_give_the_same_figures_in_every_command(world: World) -> None:
    folder = world.precomp(np.load(world.data / "dev_ims.npy").astype(np.float64))
    figures = []
    for data in (world.data, folder):
        split = ("--data", data, "--split", "dev", "--json", "r.json")
        done("eval", world.bundle, *split)
        figures.append(json.loads(Path("r.json").read_text())["reports"])
    assert figures[0] == figures[1]
    done("train", folder, "--module", "SAF", "-o", "own.pth.tar", *SMALL)
    gate = ("--gate-data", folder, "--precision", "fp32")
    exported = done("export", world.sgr, "--vocab", world.vocabulary, *gate, "-o", "own.sgraf")
    assert exported.noted.count("converted-regions") == 1
