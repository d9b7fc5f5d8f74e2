"""PyTorch's ways of saying that memory does not suffice, as this package's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sgraf_deploy.errors import EngineMemoryError


@contextmanager
def memory_errors(hint: str | None = None) -> Iterator[None]:
    """Turn what PyTorch raises for too little memory, on any device, into EngineMemoryError."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        raise EngineMemoryError("PyTorch ran out of memory", got=error, hint=hint) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise EngineMemoryError("PyTorch ran out of memory", got=error, hint=hint) from error
