"""R@K of what is to be published: the bounds decide, and FP8's failure names FP16."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.export_splits import write_split
from support.refusals import naming, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.precomp import PrecompSplit, open_precomp
from sgraf_deploy.engines.torch.literal import LiteralLoop
from sgraf_deploy.errors import GateError
from sgraf_deploy.evaluation import parity
from sgraf_deploy.evaluation.parity import RECALLS
from sgraf_deploy.evaluation.recall_gate import check_fp8, check_recall
from sgraf_deploy.evaluation.workload import split_workload
from sgraf_deploy.model.exact import Observed
from sgraf_deploy.runtime.scorer import load

IMAGES = 12


@pytest.fixture
def split(tmp_path: Path) -> PrecompSplit:
    write_split(tmp_path, "dev", images=IMAGES)
    return open_precomp(tmp_path, "dev")


def set_bounds(monkeypatch: pytest.MonkeyPatch, points: float) -> None:
    for name in ("RECALL_POINTS", "RSUM_POINTS"):
        monkeypatch.setattr(parity, name, points)
    monkeypatch.setattr(parity, "SHARES", {"fp8": 10.0})


def test_recall_within_its_bounds_is_reported(
    exported_fp8: Bundle, split: PrecompSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_bounds(monkeypatch, 600.0)

    found = check_fp8(exported_fp8, split, LiteralLoop(exported_fp8), (), lambda name: None)

    assert found["on"] == f"split dev: {IMAGES} images × {5 * IMAGES} captions"
    assert found["executed"] == "fp8-rounded"
    assert list(found["points"]) == ["SGR", "SAF", "SGRAF"]
    for points in found["points"].values():
        assert len(points) == 2 * len(RECALLS) + 1


def test_a_reference_at_chance_is_told(
    exported_fp8: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "SHARES", {"fp32": 10.0, "fp8": 10.0})
    write_split(tmp_path, "test", images=20)
    workload = split_workload(exported_fp8, open_precomp(tmp_path, "test"))
    told: list[Finding] = []

    with load(exported_fp8, engine="ort") as scorer:
        check_recall(LiteralLoop(exported_fp8), scorer, workload, tell=told.append)

    assert [finding.code for finding in told] == ["at-chance"]


def test_every_member_of_an_ensemble_is_judged(three: Bundle, split: PrecompSplit) -> None:
    with load(three, engine="ort") as scorer:
        found = check_recall(LiteralLoop(three), scorer, split_workload(three, split))

    assert list(found) == ["SGR", "SGR-2", "SAF", "ENSEMBLE"]
    assert all(abs(points["rsum"]) <= parity.RSUM_POINTS for points in found.values())


def test_nothing_passes_beside_a_yardstick_that_was_not_exact(
    exported: Bundle, split: PrecompSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = Observed(("cuda rnn tf32",), cudnn=True)
    monkeypatch.setattr("sgraf_deploy.model.exact.observe", lambda: below)
    with (
        load(exported, engine="ort") as scorer,
        refused(GateError, "ort", got=naming("cuda rnn tf32")),
    ):
        check_recall(LiteralLoop(exported), scorer, split_workload(exported, split))


def test_a_missed_bound_names_fp16(
    exported_fp8: Bundle, split: PrecompSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "SHARES", {"fp8": 1e-9})

    with refused(GateError, "fp8-rounded", "split dev", hint="--precision fp16"):
        check_fp8(exported_fp8, split, LiteralLoop(exported_fp8), (), lambda name: None)
