"""The kernels' values against float64, in Triton's interpreter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_models import SAF, SGR
from torch import Tensor

from sgraf_deploy.bench.fused_values import PRECISIONS, fused_values, main
from sgraf_deploy.config import DEFAULT_PRECISIONS, ModelConfig, Precision
from sgraf_deploy.engines.fused import engine
from sgraf_deploy.engines.fused.scorer import FusedScorer
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.model.folded import Encoded

SMALL_SGR = replace(SGR, sgr_steps=2)


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
@pytest.mark.parametrize("config", [SMALL_SGR, SAF], ids=["sgr", "saf"])
def test_kernels_are_within_the_bound(config: ModelConfig, precision: Precision) -> None:
    report = fused_values(config.module, precision, 2, 3, "cpu", config=config)
    assert report["met"] is True
    assert 0 < report["share_of_bound"] < 1
    assert report["finite"] is True
    assert report["device"] == "Triton's interpreter"
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("wrong", [1e-3, float("nan")], ids=["off", "nan"])
def test_one_wrong_value_misses_the_bound(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    right = FusedScorer.__call__

    def score(scorer: FusedScorer, encoded: Encoded[Tensor]) -> Tensor:
        logits = right(scorer, encoded)
        if len(encoded.lengths) == 3:
            logits[1, 2] += wrong
        return logits

    monkeypatch.setattr(FusedScorer, "__call__", score)
    report = fused_values("SAF", "fp32", 2, 3, "cpu", config=SAF)
    assert report["met"] is False
    assert report["finite"] is (wrong == 1e-3)
    json.dumps(report, allow_nan=False)


def test_without_a_gpu_it_is_said_and_the_exit_status_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnavailableError):
        fused_values("SAF", "fp32", 2, 3, "cuda", config=SAF)
    assert main(["--small"]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)


@pytest.mark.parametrize(("met", "status"), [(True, 0), (False, 1)])
def test_all_kernels_are_run_and_the_exit_status_says_whether_they_are_right(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    met: bool,
    status: int,
) -> None:
    def report(
        module: str, precision: str, images: int, captions: int, device: str
    ) -> dict[str, Any]:
        return {"run": [module, precision, images, captions, device], "met": met or module == "SGR"}

    monkeypatch.setattr("sgraf_deploy.bench.fused_values.fused_values", report)
    path = tmp_path / "values.json"
    assert main(["--small", "--json", str(path)]) == status
    assert capsys.readouterr().out == ""
    written = json.loads(path.read_text())
    assert main(["--small"]) == status
    assert json.loads(capsys.readouterr().out) == written
    assert bool(written["failed"]) == (not met)
    lines = written["fused_values"]
    assert [line["run"] for line in lines] == [
        [module, precision, 8, 8, "cuda"] for module in ("SGR", "SAF") for precision in PRECISIONS
    ]
