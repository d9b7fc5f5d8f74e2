"""Progress of long work where there is no terminal: lines, by a clock that the tests move."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sgraf_deploy.cli.terminal import duration, progress_bars


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def reported(clock: Clock, steps: Sequence[tuple[float, int]], total: int) -> None:
    """A stage that has done so much after so many seconds."""
    begin = clock.now
    with progress_bars(clock) as stage:
        report = stage("scoring")
        for seconds, done_ in steps:
            clock.now = begin + seconds
            report(done_, total)


def test_long_work_prints_a_line_when_it_has_begun_and_one_a_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = [(second, 100 * second) for second in range(1, 301)]

    reported(Clock(), steps, total=30_000)

    assert capsys.readouterr() == (
        "",
        "scoring: 200 of 30,000 (1%), about 5 minutes left\n"
        "scoring: 6,200 of 30,000 (21%), about 4 minutes left\n"
        "scoring: 12,200 of 30,000 (41%), about 3 minutes left\n"
        "scoring: 18,200 of 30,000 (61%), about 2 minutes left\n"
        "scoring: 24,200 of 30,000 (81%), about 58 seconds left\n",
    )


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(0.9 * second, second) for second in range(1, 60)], id="within-a-minute"),
        pytest.param([(1.9, 1), (2.0, 40), (40.0, 59)], id="a-slow-start"),
        pytest.param([(500.0, 60)], id="told-when-done"),
        pytest.param([(500.0, 0)], id="nothing-done"),
        pytest.param([], id="nothing-told"),
    ],
)
def test_short_work_prints_nothing(
    steps: list[tuple[float, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    reported(Clock(), steps, total=60)
    assert capsys.readouterr() == ("", "")


def test_every_stage_counts_from_its_own_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    reported(clock, [(30.0, 1)], total=10)
    reported(clock, [(3.0, 1)], total=10)
    assert capsys.readouterr().err == "scoring: 1 of 10 (10%), about 4 minutes left\n"


def test_a_process_without_a_standard_error_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    reported(Clock(), [(30.0, 1)], total=10)


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0.0, "about 1 second"),
        (41.4, "about 41 seconds"),
        (89.0, "about 89 seconds"),
        (91.0, "about 2 minutes"),
        (3600.0, "about 60 minutes"),
        (9000.0, "about 2.5 hours"),
    ],
)
def test_times_are_for_people(seconds: float, says: str) -> None:
    assert duration(seconds) == says
