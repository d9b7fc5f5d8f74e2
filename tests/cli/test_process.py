"""The command line as a process of its own: pipes, terminals, signals, encodings, start-up."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli.test_bad_inputs import BAD
from cli.test_doctor_and_help import COMMANDS
from support.bad_input import Bad
from support.cli_world import World, line_naming, recall_rows, refused_line, run, tree
from support.refusals import holds

import sgraf_deploy
from sgraf_deploy.cli.terminal import progress_bars

REPOSITORY = Path(sgraf_deploy.__file__).parents[1]
HEAVY = ("torch", "onnx", "onnxruntime", "nltk", "numpy", "tabulate")
FULL = Path("/dev/full")


def environment(**more: str) -> dict[str, str]:
    """The variables of a child that finds the package and speaks UTF-8 unless told otherwise."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8", **more}


def start(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python -m sgraf_deploy` with its output captured."""
    command = [sys.executable, "-m", "sgraf_deploy", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    variables = environment(**streams.pop("variables", {}))
    return subprocess.run(
        command, text=True, encoding="utf-8", check=False, env=variables, **streams
    )


def chosen(*names: str) -> list[Bad]:
    """Some of the bad inputs, by name."""
    found = [bad for bad in BAD if bad.name in names]
    assert len(found) == len(names)
    return found


@pytest.mark.parametrize(
    "bad", chosen("hostile-pickle", "graph-tampered-with", "unknown-split"), ids=str
)
def test_bad_input_of_a_process(world: World, bad: Bad) -> None:
    arguments = bad.arguments(world)
    before = tree(world.folder)
    in_this_process = refused_line(run(*arguments), bad.kind, *bad.names, **bad.fields)

    finished = start(*arguments)

    assert finished.returncode == 2
    assert finished.stderr == f"{in_this_process}\n"
    assert tree(world.folder) == before


@pytest.mark.parametrize(
    "arguments", [["--help"], ["eval", "--help"], ["inspect", "BUNDLE"]], ids=" ".join
)
def test_a_closed_pipe_ends_it_silently(world: World, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        words = [world.bundle if word == "BUNDLE" else word for word in arguments]
        finished = start(*words, stdout=writing)
    finally:
        os.close(writing)

    assert finished.stderr == ""
    assert finished.returncode == 141


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "BUNDLE"]], ids=" ".join)
def test_output_to_a_full_disk_is_one_line(world: World, arguments: list[str]) -> None:
    with FULL.open("w") as full:
        words = [world.bundle if word == "BUNDLE" else word for word in arguments]
        finished = start(*words, stdout=full)

    (line,) = finished.stderr.splitlines()
    assert line.startswith("Error: ")
    assert holds(line, os.strerror(errno.ENOSPC))
    assert finished.returncode == 2


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("command", "code"), [("inspect none.sgraf", 2), ("inspect --nothing", 2), ("gallery none", 2)]
)
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(
    world: World, command: str, code: int
) -> None:
    with FULL.open("w") as full:
        finished = start(*command.split(), stderr=full)

    assert finished.returncode == code


@pytest.mark.parametrize("command", ["bench scaling --help", "verify BUNDLE"])
def test_a_terminal_without_a_character_shows_its_number(world: World, command: str) -> None:
    words = [world.bundle if word == "BUNDLE" else word for word in command.split()]

    finished = start(*words, variables={"PYTHONIOENCODING": "latin-1"})

    assert finished.returncode == 0, finished.stderr
    assert "\\u" in finished.stdout
    assert "Traceback" not in finished.stderr


def test_ctrl_c_leaves_nothing_behind(world: World) -> None:
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a background job
        "from sgraf_deploy.export import exporter\n"
        "exporter.gate_members = lambda *_: signal.raise_signal(signal.SIGINT)\n"
        "from sgraf_deploy.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, "export", str(world.sgr), "-o", "a.sgraf"]

    finished = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=False, env=environment()
    )

    assert finished.returncode == 130
    assert not {"Error", "Traceback"} & set(re.findall(r"\w+", finished.stderr))
    assert list(world.folder.iterdir()) == []


def test_starting_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from sgraf_deploy.cli import main\n"
        f"for words in {[['--help'], ['--version'], *([name, '--help'] for name in COMMANDS)]}:\n"
        "    main(words, standalone_mode=False)\n"
        f"print('loaded:', *({set(HEAVY)} & set(sys.modules)))\n"
    )

    finished = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=environment(),
    )

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("Usage: ") == 1 + len(COMMANDS)
    assert finished.stdout.splitlines()[-1] == "loaded:"


def test_verbose_shows_where_an_error_comes_from(world: World) -> None:
    quiet, verbose = start("inspect", "no.sgraf"), start("-v", "inspect", "no.sgraf")

    assert quiet.returncode == verbose.returncode == 2
    assert "Traceback" not in quiet.stderr
    assert "bundle.py" in verbose.stderr
    assert verbose.stderr.splitlines()[-1] == quiet.stderr.strip()


def read_all(terminal: int) -> str:
    """What was written to a terminal whose other end is closed."""
    read = b""
    while True:
        try:
            more = os.read(terminal, 65536)
        except OSError:  # Linux reports the closed end as an error.
            more = b""
        if not more:
            return read.decode()
        read += more


def test_bars_are_drawn_on_a_terminal(world: World) -> None:
    terminal, ours = os.openpty()
    words = ("eval", world.bundle, "--data", world.data, "--split", "dev")
    finished = start(*words, stderr=ours, variables={"TERM": "xterm"})
    os.close(ours)
    drawn = read_all(terminal)
    os.close(terminal)

    assert finished.returncode == 0
    assert "SGRAF i" in recall_rows(finished.stdout)
    assert len(set(re.findall(r"(\w+) +\[[#-]", drawn))) == 3  # the stages' labels
    assert drawn.count("100%") == 3


def test_a_bar_estimates_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("click._termui_impl.time", SimpleNamespace(time=lambda: now))
    terminal, ours = os.openpty()
    with os.fdopen(ours, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with progress_bars() as stage:
            report = stage("scoring")
            for done in range(5):
                report(done, 60)
                now += 60.0
    drawn = read_all(terminal)
    os.close(terminal)

    last = drawn.rstrip("\r\n").split("\r")[-1]
    assert "scoring" in last
    assert "6%" in last
    assert "00:5" in last


def test_there_are_no_bars_without_a_terminal(world: World) -> None:
    result = run("eval", world.bundle, "--data", world.data, "--split", "dev")

    assert result.exit_code == 0
    assert result.stderr == ""


def test_a_report_does_not_replace_the_file_that_the_output_goes_to(world: World) -> None:
    data = ("--data", world.data, "--split", "dev")
    with (world.folder / "r.txt").open("w") as output:
        finished = start("eval", world.bundle, *data, "--json", "r.txt", stdout=output)
    assert finished.returncode == 2
    line_naming(finished.stderr, "Error:", "--json", "r.txt")
    assert [path.name for path in world.folder.iterdir()] == ["r.txt"]
