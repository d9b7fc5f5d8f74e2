"""Work that does not fit is halved, once for all, in order."""

from __future__ import annotations

import logging
import threading

import pytest
from support.refusals import holds, naming, refused

from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.runtime.retry import Batch, OutOfMemoryRetry


class Memory:
    """Executes batches, but only up to a cost; keeps what it was asked for and what it did."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: list[tuple[int, int]] = []
        self.done: list[tuple[int, int]] = []

    def execute(self, batch: Batch) -> None:
        self.asked.append((batch.start, batch.stop))
        if batch.cost > self.limit:
            raise EngineMemoryError("out of memory")
        self.done.append((batch.start, batch.stop))


def test_what_fits_runs_as_it_is() -> None:
    memory, seen = Memory(10), []
    OutOfMemoryRetry("tiles").run(
        [Batch(0, 4), Batch(4, 7)], memory.execute, total=7, progress=lambda *p: seen.append(p)
    )
    assert memory.done == memory.asked == [(0, 4), (4, 7)]
    assert seen == [(4, 7), (7, 7)]


def test_what_does_not_fit_is_halved_until_it_does() -> None:
    memory, seen = Memory(3), []
    OutOfMemoryRetry("tiles").run(
        [Batch(0, 13)], memory.execute, total=13, progress=lambda *p: seen.append(p)
    )
    assert memory.asked == [(0, 13), (0, 6), *memory.done]
    assert memory.done == [(0, 3), (3, 6), (6, 9), (9, 11), (11, 13)]
    assert seen == [(13, 13)]


def test_the_lesson_is_kept_for_the_next_work() -> None:
    memory, retry = Memory(4), OutOfMemoryRetry("tiles")
    retry.run([Batch(0, 8), Batch(8, 16)], memory.execute, total=16)
    retry.run([Batch(16, 24)], memory.execute, total=8)
    assert memory.asked == [(0, 8), (0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 24)]


def test_the_warning_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    OutOfMemoryRetry("tiles").run([Batch(0, 8), Batch(8, 16)], Memory(1).execute, total=16)
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING, logging.INFO, logging.INFO]
    assert holds(caplog.messages[0], "out of memory")  # what the engine said
    assert holds(caplog.messages[0], "tiles")


def test_what_cannot_be_halved_is_an_error() -> None:
    memory = Memory(3)
    with refused(EngineMemoryError, "tiles", "out of memory", hint=naming()):
        OutOfMemoryRetry("tiles").run([Batch(0, 2, row_cost=4)], memory.execute, total=2)
    assert memory.done == []


def test_a_single_row_is_tried_whatever_was_learnt() -> None:
    memory, retry = Memory(4), OutOfMemoryRetry("tiles")
    retry.run([Batch(0, 8)], memory.execute, total=8)
    memory.limit = 100
    retry.run([Batch(8, 9, row_cost=50)], memory.execute, total=1)
    assert memory.done[-1] == (8, 9)


def test_other_errors_pass() -> None:
    def fail(_: Batch) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        OutOfMemoryRetry("tiles").run([Batch(0, 8)], fail, total=8)


def test_progress_is_told_by_the_calling_thread() -> None:
    told = []

    def progress(done: int, total: int) -> None:
        told.append((threading.get_ident(), done, total))

    work = [Batch(0, 2), Batch(2, 4), Batch(4, 5)]
    OutOfMemoryRetry("tiles").run(work, lambda batch: None, total=5, progress=progress, workers=2)
    here = threading.get_ident()
    assert told == [(here, 2, 5), (here, 4, 5), (here, 5, 5)]
