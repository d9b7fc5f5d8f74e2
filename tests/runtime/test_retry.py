"""Work that does not fit is halved, and what was learnt of the memory is kept."""

from __future__ import annotations

import logging

import pytest
from support.refusals import holds, naming, refused

from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.retry import Batch, OutOfMemoryRetry
from sgraf_deploy.runtime.workers import SharedWork


class Memory:
    """Takes batches, but only up to a cost; keeps what it was asked for and what it did."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: list[tuple[int, int]] = []
        self.done: list[tuple[int, int]] = []

    def take(self, batch: Batch) -> None:
        self.asked.append((batch.start, batch.stop))
        if batch.cost > self.limit:
            raise EngineMemoryError("out of memory")
        self.done.append((batch.start, batch.stop))


def run(
    retry: OutOfMemoryRetry, batches: list[Batch], memory: Memory, progress: Progress | None = None
) -> None:
    """Put all batches into a memory, as every operation of a scorer does it."""
    total = sum(batch.units for batch in batches)
    turns = SharedWork(batches, retry, total=total, progress=progress).turns()
    for batch in turns:
        try:
            memory.take(batch)
        except EngineMemoryError as error:
            turns.halve(batch, error)


def test_what_fits_runs_as_it_is() -> None:
    memory, seen = Memory(10), []
    batches = [Batch(0, 4), Batch(4, 7)]
    run(OutOfMemoryRetry("tiles"), batches, memory, lambda *told: seen.append(told))
    assert memory.done == memory.asked == [(0, 4), (4, 7)]
    assert seen == [(4, 7), (7, 7)]


def test_what_does_not_fit_is_halved_until_it_does() -> None:
    memory, seen = Memory(3), []
    run(OutOfMemoryRetry("tiles"), [Batch(0, 13)], memory, lambda *told: seen.append(told))
    assert memory.asked == [(0, 13), (0, 6), *memory.done]
    assert memory.done == [(0, 3), (3, 6), (6, 9), (9, 11), (11, 13)]
    assert seen == [(13, 13)]


def test_the_lesson_is_kept_for_the_next_work() -> None:
    memory, retry = Memory(4), OutOfMemoryRetry("tiles")
    run(retry, [Batch(0, 8), Batch(8, 16)], memory)
    run(retry, [Batch(16, 24)], memory)
    assert memory.asked == [(0, 8), (0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 24)]


def test_the_warning_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(OutOfMemoryRetry("tiles"), [Batch(0, 8), Batch(8, 16)], Memory(1))
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING, logging.INFO, logging.INFO]
    assert holds(caplog.messages[0], "out of memory")  # what the engine said
    assert holds(caplog.messages[0], "tiles")


def test_what_cannot_be_halved_is_an_error() -> None:
    memory = Memory(3)
    with refused(EngineMemoryError, "tiles", "out of memory", hint=naming()):
        run(OutOfMemoryRetry("tiles"), [Batch(0, 2, row_cost=4)], memory)
    assert memory.done == []


def test_a_single_row_is_tried_whatever_was_learnt() -> None:
    memory, retry = Memory(4), OutOfMemoryRetry("tiles")
    run(retry, [Batch(0, 8)], memory)
    memory.limit = 100
    run(retry, [Batch(8, 9, row_cost=50)], memory)
    assert memory.done[-1] == (8, 9)
