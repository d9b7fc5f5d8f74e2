"""Copies between the host and a device that wait for nothing but themselves.

PyTorch copies ordinary memory of the host in the order of its stream, and waits until everything
that was put into the stream before is done: no tile could then be prepared while another runs.
Small arrays therefore pass through pinned memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PINNED_BYTES = 4 * 2**20
"""The largest array that passes through pinned memory: indices, lengths and logits do."""


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor on `device`; on the CPU it shares the array's memory."""
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    if tensor.nbytes > PINNED_BYTES:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def download(tensor: Tensor) -> NDArray[Any]:
    """A tensor as a host array, once what is in its device's stream now is done."""
    if tensor.device.type == "cpu" or tensor.nbytes > PINNED_BYTES:
        return np.asarray(tensor.cpu().numpy())
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).record_event().synchronize()
    return np.asarray(host.numpy())
