"""Copies between host and device, on a device that is the host's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sgraf_deploy.engines.torch import transfer

CPU = torch.device("cpu")


def test_on_a_cpu_memory_is_shared() -> None:
    array = np.arange(6, dtype=np.int32)
    tensor = transfer.upload(array, CPU)
    array[0] = 7
    assert tensor.tolist() == [7, 1, 2, 3, 4, 5]
    assert np.shares_memory(transfer.download(tensor), array)


class _Copied:
    """A tensor of the host that records how it is copied to a device."""

    def __init__(self, size: int, steps: list[tuple[str, Any]]) -> None:
        self.nbytes, self.steps = size, steps

    def pin_memory(self) -> _Copied:
        self.steps.append(("pin", None))
        return self

    def to(self, device: torch.device, *, non_blocking: bool = False) -> _Copied:
        self.steps.append((device.type, non_blocking))
        return self


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (transfer.PINNED_BYTES, [("pin", None), ("cuda", True)]),
        (transfer.PINNED_BYTES + 1, [("cuda", False)]),
    ],
    ids=["small", "large"],
)
def test_small_arrays_pass_through_pinned_memory(
    monkeypatch: pytest.MonkeyPatch, size: int, expected: list[tuple[str, Any]]
) -> None:
    steps: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch, "from_numpy", lambda _: _Copied(size, steps))
    transfer.upload(np.zeros(1), torch.device("cuda:0"))
    assert steps == expected
