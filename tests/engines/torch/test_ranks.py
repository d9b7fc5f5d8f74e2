"""Ranks that several threads count with PyTorch."""

from __future__ import annotations

from threading import Thread

import numpy as np
import pytest
import torch

from sgraf_deploy.engines.ranks import Thresholds
from sgraf_deploy.engines.torch.ranks import TorchRankCounter


def test_threads_count_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every count is read and written at once: two threads never are between the two."""
    thresholds = Thresholds(
        {"sgr": np.zeros(4, np.float32)}, {"sgr": np.zeros(4, np.float32)}, captions_per_image=1
    )
    counter = TorchRankCounter(thresholds, torch.device("cpu"))
    add, most = TorchRankCounter._add, 0
    inside: list[None] = []

    def watched(self: TorchRankCounter, *arguments: object) -> None:
        nonlocal most
        inside.append(None)
        most = max(most, len(inside))
        for _ in range(50):
            add(self, *arguments)  # type: ignore[arg-type]
        inside.pop()

    monkeypatch.setattr(TorchRankCounter, "_add", watched)
    columns, tile = np.arange(4, dtype=np.int32), {"sgr": torch.ones(4, 4)}
    threads = [Thread(target=counter.add, args=(0, columns, tile)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert counter.result()["sgr"].image_to_text.tolist() == [4 * 50 * 3] * 4
