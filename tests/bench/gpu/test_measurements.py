"""The modules that measure: an evaluation in a budget, the largest kernels, a portable plan."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import sgraf_deploy
from sgraf_deploy.bench.gpu import machine, portable, random_bundle
from sgraf_deploy.bench.gpu.evaluation import LONGEST_FIRST, evaluate_random, usable_budget
from sgraf_deploy.bench.gpu.job import run_job
from sgraf_deploy.bench.gpu.largest_kernels import profile_scorer
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.gpu import Driver, Gpu
from sgraf_deploy.engines.registry import ENGINES
from sgraf_deploy.engines.trt.library import find_tensorrt
from sgraf_deploy.errors import InputError, UnavailableError


@pytest.mark.parametrize("tick", [1.0, LONGEST_FIRST + 1], ids=["twice", "once"])
def test_an_evaluation_is_timed_cold_and_warm(exported: Bundle, tick: float) -> None:
    ticks = count()
    with sgraf_deploy.load(exported, engine="ort", memory_budget=2**20) as scorer:
        found = evaluate_random(exported, scorer, 4, clock=lambda: tick * next(ticks))
    warm = tick if tick == 1.0 else None
    assert found["seconds"] == {"encode": 2 * tick, "score": warm, "first_score": tick}
    assert (found["images"], found["captions"], found["tiles"] > 0) == (4, 20, True)
    assert found["pairs_per_second"] == 80 / tick
    assert set(found["mean_rank"]) == {"sgr", "saf", "sgraf"}
    json.dumps(found, allow_nan=False)


def test_a_budget_leaves_half_of_the_device() -> None:
    gib = 2**30
    assert usable_budget(8, None) == 8 * gib
    assert usable_budget(8, 80 * gib) == 8 * gib
    assert usable_budget(32, 24 * gib) == 12 * gib


def test_the_profiler_names_what_takes_longest(exported: Bundle) -> None:
    with sgraf_deploy.load(exported, engine="torch", device="cpu") as scorer:
        found = profile_scorer(exported, scorer, 3)
    spent = [one["ms"] for one in found["kernels"]]
    assert spent == sorted(spent, reverse=True)
    assert found["two_largest"] == [one["name"] for one in found["kernels"][:2]]
    assert sum(one["share"] for one in found["kernels"]) <= 1.0 + 1e-9
    assert (found["images"], found["captions"], found["device"]) == (3, 15, "cpu")


def test_a_portable_plan_is_asked_of_tensorrt_itself() -> None:
    """Without a GPU it is built, and does not open."""
    try:
        tensorrt = find_tensorrt()
    except UnavailableError:
        pytest.skip("needs TensorRT for RTX")
    if tensorrt.flavour != "tensorrt-rtx":
        pytest.skip("another TensorRT is found first")
    plan = portable.build_product(
        tensorrt, np.ones((portable.SIDE, portable.SIDE), np.float16), tensorrt.logger()
    )
    assert plan[:4] == b"vtrt"
    found = portable.try_plan(tensorrt)
    assert (found["runs"], found["bytes"] > 0) == (None, True)
    assert found["opens"] or found["reason"]


def test_a_random_bundle_is_made_in_both_precisions(tmp_path: Path) -> None:
    job, folder = random_bundle._job, tmp_path / "deep" / "random"
    parser = random_bundle._parser()
    assert run_job(parser, job, ["SAF", str(folder), "--small"]) == 0
    bundle = Bundle.open(folder / "random-SAF.sgraf")
    assert bundle.manifest.precisions == ("fp32", "fp16")
    assert bundle.manifest.module == "SAF"


def test_a_machine_says_of_everything_why_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgraf_deploy.engines.gpu.LIBRARY", "libno-driver.so")
    monkeypatch.setattr("shutil.which", lambda _: None)
    found = machine.describe()
    assert (found["gpus"], found["cuda"]) == ([], None)
    assert {"gpu", "trt", "ort-cuda", "torch@cuda", "compute-sanitizer"} <= set(found["missing"])
    assert {"ort", "torch"}.isdisjoint(found["missing"])
    known = {*ENGINES, *(f"{name}@cuda" for name in ENGINES)}
    known |= {"gpu", "cuda-bindings", "compute-sanitizer", "tensorrt-rtx"}
    assert set(found["missing"]) <= known
    assert machine.snapshot() is None
    assert machine.device_bytes() is None
    json.dumps(found)


def test_a_machine_with_a_gpu_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver("13.0", (Gpu("GPU A", "9.0"),))
    monkeypatch.setattr(machine, "find_driver", lambda: driver)
    found = machine.describe()
    assert (found["gpus"], found["cuda"]) == (["GPU A (9.0)"], "13.0")
    assert "gpu" not in found["missing"]


def test_clocks_are_what_nvidia_smi_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = ["GPU A", "580.1", "81559 MiB", *("x" for _ in machine.SNAPSHOT[3:])]
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for text, expected in ((", ".join(values), values), ("no devices", None)):
        program.write_text(f"#!/bin/sh\necho '{text}'\n", encoding="utf-8")
        program.chmod(0o755)
        found = machine.snapshot()
        assert (found and list(found.values())) == expected
        assert machine.device_bytes() == (expected and 81559 * 2**20)


def test_a_job_writes_what_it_found_and_says_what_failed(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    failed: list[str] = []
    for code in (0, 1):
        words = ["--json", str(path)]
        assert run_job(ArgumentParser(), lambda _: {"failed": failed}, words) == code
        assert json.loads(path.read_text(encoding="utf-8")) == {"failed": failed}
        failed.append("logits")


def test_a_deliberate_error_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def job(_: object) -> None:
        raise InputError("data", hint="look")

    assert run_job(ArgumentParser(), job, []) == 2
    assert capsys.readouterr().err == "data; look\n"
    assert run_job(ArgumentParser(), lambda _: {"a": 1}, []) == 0
    assert json.loads(capsys.readouterr().out) == {"a": 1}
