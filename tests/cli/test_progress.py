"""Long work where there is no terminal: a line when it has begun, and one a minute."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from support.refusals import holds

from sgraf_deploy.cli.terminal import duration, progress_bars


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A standard error that somebody looks at."""

    def isatty(self) -> bool:
        """It is one."""
        return True


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

    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    for line, names in zip(
        stderr.splitlines(),
        [
            ("200", "1%", 5, "minutes"),
            ("6,200", "21%", 4, "minutes"),
            ("12,200", "41%", 3, "minutes"),
            ("18,200", "61%", 2, "minutes"),
            ("24,200", "81%", 58, "seconds"),
        ],
        strict=True,
    ):
        assert all(holds(line, name) for name in ("scoring", *names, "30,000"))


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
    (line,) = capsys.readouterr().err.splitlines()
    assert all(holds(line, name) for name in (1, 10, "10%", 4, "minutes"))


def test_a_process_without_a_standard_error_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    reported(Clock(), [(30.0, 1)], total=10)


def test_a_rate_is_counted_from_when_it_is_first_told(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with progress_bars(clock) as stage:
        progress = stage("extracting", "photographs")
        clock.now += 50.0  # models are opened
        progress(0, 4000)
        clock.now += 100.0
        progress(250, 4000)
    (line,) = capsys.readouterr().err.splitlines()
    assert all(holds(line, name) for name in ("250", "4,000", "2.5", "photographs"))


def test_a_bar_says_how_many_there_are_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress_bars(clock) as stage:
        progress = stage("extracting", "photographs")
        for done in range(5):
            clock.now += 2.0
            progress(done, 4)
    assert holds(terminal.getvalue(), "0.5")
    assert holds(terminal.getvalue(), "photographs")


@pytest.mark.parametrize(
    ("seconds", "number", "unit"),
    [
        (0.0, 1, "second"),
        (41.4, 41, "seconds"),
        (89.0, 89, "seconds"),
        (91.0, 2, "minutes"),
        (3600.0, 60, "minutes"),
        (9000.0, 2.5, "hours"),
    ],
)
def test_times_are_for_people(seconds: float, number: float, unit: str) -> None:
    assert holds(duration(seconds), number)
    assert holds(duration(seconds), unit)
