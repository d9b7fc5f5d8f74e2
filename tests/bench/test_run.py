"""The whole bench: what is warned of, which bundle is taken, whose random state is left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import SAF

from sgraf_deploy.bench import run
from sgraf_deploy.bench.random_model import random_checkpoint
from sgraf_deploy.bundle import Bundle
from sgraf_deploy.config import Precision
from sgraf_deploy.errors import BundleError, UnavailableError


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
    with pytest.raises(BundleError, match=r"a\.sgraf, b\.sgraf"):
        run.default_bundle(tmp_path)


@pytest.mark.parametrize(
    ("device", "precision", "works", "taken"),
    [
        (None, None, {"native", "ort", "torch"}, ("native", "torch")),
        ("cpu", "fp32", {"ort", "torch"}, ("ort", "torch")),
        (None, "fp16", {"native", "ort", "torch"}, ("ort", "torch")),
        (None, None, {"torch"}, ("torch",)),
        (None, None, {"native"}, ("native", "torch")),
        ("cuda", None, {"native", "ort", "torch"}, ("torch",)),
        ("cuda:1", "fp16", {"ort"}, ("torch",)),
    ],
)
def test_what_auto_takes_and_torch_are_the_default(
    monkeypatch: pytest.MonkeyPatch,
    device: str | None,
    precision: Precision | None,
    works: set[str],
    taken: tuple[str, ...],
) -> None:
    """The bench says that torch lacks where it does: without it there is no literal loop."""
    reasons: Callable[[str], str | None] = lambda name: None if name in works else "no"  # noqa: E731
    monkeypatch.setattr("sgraf_deploy.runtime.engine.unavailable_reason", reasons)
    assert run.default_engines(device, precision) == taken


def test_without_any_engine_there_is_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgraf_deploy.runtime.engine.unavailable_reason", lambda _: "no")
    with pytest.raises(UnavailableError, match="no engine is available"):
        run.default_engines(None)
