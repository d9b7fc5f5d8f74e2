"""The whole bench: what is warned of, which bundle is taken, whose random state is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.refusals import naming, refused
from support.small_models import SAF

from sgraf_deploy.bench import run
from sgraf_deploy.bench.random_model import random_checkpoint
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.policy import Choice
from sgraf_deploy.errors import BundleError


def test_random_weights_leave_the_callers_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    random_checkpoint(SAF)
    assert torch.equal(torch.rand(1), expected)


def test_synthetic_regions_are_not_called_foreign(exported: Bundle) -> None:
    manifest = replace(exported.manifest, region_statistics={"mean_norm": 1e3})
    bundle = Bundle(exported.path, manifest, exported.sha256)
    workload = run.random_workload(bundle, 2, 2)
    assert (workload.findings, workload.seed) == ((), 0)


@pytest.mark.parametrize(
    ("folders", "taken"),
    [((), None), (("a.sgraf",), "a.sgraf"), ((".left.sgraf", "a.sgraf"), "a.sgraf")],
    ids=["none", "one", "hidden"],
)
def test_the_default_bundle(tmp_path: Path, folders: tuple[str, ...], taken: str | None) -> None:
    (tmp_path / "file.sgraf").touch()
    for name in folders:
        (tmp_path / name).mkdir()
    assert run.default_bundle(tmp_path) == (taken and tmp_path / taken)


def test_of_several_bundles_none_is_guessed(tmp_path: Path) -> None:
    for name in ("a.sgraf", "b.sgraf"):
        (tmp_path / name).mkdir()
    with refused(BundleError, got=naming("a.sgraf", "b.sgraf")):
        run.default_bundle(tmp_path)


def test_the_literal_loop_runs_on_the_gpu_where_an_engine_does() -> None:
    cpu, gpu = Choice("ort", "fp32", "cpu"), Choice("trt", "fp16", "cuda:1")
    assert run.BenchOptions((cpu,)).device == "cpu"
    assert run.BenchOptions((cpu, gpu)).device == "cuda:1"
