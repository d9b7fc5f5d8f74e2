"""cuDNN's switch for TensorFloat-32 is the process's, and threads share it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest
import torch
from small_models import SGR

from sgraf_deploy.config import signature
from sgraf_deploy.model.engines import TorchGraph


@pytest.mark.parametrize("setting", [True, False], ids=["on", "off"])
def test_threads_keep_each_other_in_float32(setting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first to leave must not throw the switch for the other, nor the other keep it thrown."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", setting)
    entered, left, seen = Barrier(2), Event(), []

    def first(*_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        entered.wait(timeout=60)
        return ()

    def second(*_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        entered.wait(timeout=60)
        assert left.wait(timeout=60)
        seen.append(torch.backends.cudnn.allow_tf32)
        return ()

    def run(function: Any) -> None:
        TorchGraph(signature("image_encoder", SGR, "fp32"), function).run(inputs)

    inputs = {"regions": torch.zeros(1, SGR.regions, SGR.img_dim)}
    with ThreadPoolExecutor(2) as pool:
        early, late = pool.submit(run, first), pool.submit(run, second)
        early.result(timeout=60)
        left.set()
        late.result(timeout=60)

    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 is setting


def test_an_error_leaves_the_switch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)

    def fail(*_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise KeyError("mine")

    inputs = {"regions": torch.zeros(1, SGR.regions, SGR.img_dim)}
    with pytest.raises(KeyError, match="mine"):
        TorchGraph(signature("image_encoder", SGR, "fp32"), fail).run(inputs)

    assert torch.backends.cudnn.allow_tf32 is True
