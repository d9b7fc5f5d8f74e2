"""Who does a job's pieces: a worker in this process, or actors of Ray, each with a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from sgraf_deploy.distributed.parts import Piece, Request
from sgraf_deploy.distributed.worker import Done, Worker


class Runner(Protocol):
    """Does pieces of a job, in any order."""

    @property
    def workers(self) -> int:
        """How many do pieces at the same time."""

    def prepare(self) -> None:
        """Plan the job, or check the plan; raises as `Worker.prepare`."""

    def run(self, pieces: Sequence[Piece]) -> Iterator[Done]:
        """Yield pieces as they are finished; raises as `Worker.run`."""


class LocalRunner:
    """Does pieces one after the other in this process, without Ray."""

    workers = 1

    def __init__(self, request: Request, folder: Path) -> None:
        self._worker = Worker(request, folder)

    def prepare(self) -> None:
        """Plan the job, or check the plan."""
        self._worker.prepare()

    def run(self, pieces: Sequence[Piece]) -> Iterator[Done]:
        """Yield each piece once it is finished."""
        yield from map(self._worker.run, pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._worker.close()
