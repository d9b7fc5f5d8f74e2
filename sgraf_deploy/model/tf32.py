"""cuDNN in float32, whatever the threads that share a model do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any

import torch


class ExactCudnn:
    """Keeps TensorFloat-32 off in cuDNN while any thread is inside.

    PyTorch's own switch is the process's, and puts back what it found: of two threads that use it
    at overlapping times, the first to leave would switch the other's to TensorFloat-32, and the
    last would leave the caller's setting changed.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._flags: AbstractContextManager[Any]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The first to enter switches it off; the last to leave puts back what was set."""
        with self._lock:
            if self._inside == 0:
                self._flags = torch.backends.cudnn.flags(allow_tf32=False)
                self._flags.__enter__()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._flags.__exit__(None, None, None)


exact_cudnn = ExactCudnn()
