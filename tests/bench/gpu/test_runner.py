"""Real commands: how they end, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from sgraf_deploy.bench.gpu.runner import ERROR_LINES, Ended, environment_of, run_command
from sgraf_deploy.bench.gpu.unpack import SPARE
from sgraf_deploy.errors import UnavailableError

FOREVER = "import signal; signal.pause()"


def python(
    code: str, *, seconds: float = 60.0, environment: Mapping[str, str] = MappingProxyType({})
) -> Ended:
    return run_command([sys.executable, "-c", code], seconds, environment)


def test_a_command_says_how_it_ended() -> None:
    code = "import os, sys; print(os.environ['MARK']); sys.stderr.write('e\\n\\nf\\n'); sys.exit(3)"
    ended = python(code, environment={"MARK": "here"})
    assert (ended.exit, ended.stdout, ended.last_lines) == (3, "here\n", ("e", "f"))
    assert ended.seconds > 0


def test_a_signal_is_negative() -> None:
    ended = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert ended.exit == -signal.SIGKILL


def test_the_end_of_errors_is_short() -> None:
    lines = tuple(f"line {number}" for number in range(50))
    assert Ended(1, 1.0, "", "\n".join(lines)).last_lines == lines[-ERROR_LINES:]


def test_when_the_time_is_up_its_children_end_too() -> None:
    """A child holds standard output open: it is read to its end only once that has ended."""
    child = f"subprocess.Popen([sys.executable, '-c', {FOREVER!r}])"
    ended = python(f"import subprocess, sys; {child}; {FOREVER}", seconds=0.5)
    assert ended.exit is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_when_we_end_the_command_ends(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    def interrupted(process: object, **_: object) -> tuple[str, str]:
        monkeypatch.undo()
        ended.append(process.pid)  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr("subprocess.Popen.communicate", interrupted)
    with pytest.raises(error):
        python(FOREVER)
    with pytest.raises(ProcessLookupError):
        os.killpg(ended[0], 0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a child with its parent")
def test_when_we_are_killed_the_command_ends(tmp_path: Path) -> None:
    """The pipe comes to its end once the command, which holds it open, has ended.

    One that is not ended says so after 20 seconds.
    """
    os.mkfifo(pipe := tmp_path / "pipe")
    command = (
        f"import signal; file = open({str(pipe)!r}, 'w'); file.write('here'); file.flush(); "
        "signal.signal(signal.SIGALRM, lambda *_: file.write('late')); "
        "signal.alarm(20); signal.pause()"
    )
    code = (
        "import sys; from sgraf_deploy.bench.gpu.runner import run_command; "
        f"run_command([sys.executable, '-c', {command!r}], 600, {{}})"
    )
    environment = {**os.environ, **environment_of(tmp_path)}
    with (
        subprocess.Popen([sys.executable, "-c", code], env=environment) as ours,
        pipe.open(encoding="utf-8") as reader,
    ):
        assert reader.read(4) == "here"
        ours.kill()
        assert reader.read() == ""


def test_sigterm_is_an_exit_while_a_command_runs() -> None:
    before = signal.getsignal(signal.SIGTERM)
    code = f"import os, signal; os.kill({os.getpid()}, signal.SIGTERM); {FOREVER}"
    with pytest.raises(SystemExit) as caught:
        python(code)
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_such_program_is_unavailable() -> None:
    with pytest.raises(UnavailableError) as caught:
        run_command(["no-such-program-anywhere"], 1.0, {})
    assert "no-such-program-anywhere" in caught.value.reason


def test_steps_import_what_was_prepared_first(tmp_path: Path) -> None:
    (tmp_path / "brought_along.py").write_text("WHERE = 'packages'", encoding="utf-8")
    ended = python("import brought_along, sgraf_deploy.bench", environment=environment_of(tmp_path))
    assert (ended.exit, ended.stderr) == (0, "")


def test_steps_import_spares_where_there_is_nothing_else(tmp_path: Path) -> None:
    """Of a module that is installed here the installed one is taken."""
    for name in ("lacking_here", "numpy"):
        package = tmp_path / SPARE / name / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("WHERE = 'spare'", encoding="utf-8")
    environment = environment_of(tmp_path / "packages")
    code = "import lacking_here, numpy; assert lacking_here.WHERE == 'spare'; numpy.zeros(1)"
    ended = python(code, environment=environment)
    assert (ended.exit, ended.stderr) == (0, "")
