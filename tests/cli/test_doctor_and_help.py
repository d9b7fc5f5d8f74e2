"""`sgraf-deploy doctor`, `--version` and the help of every command."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import click
import pytest
from support.auto_engine import auto_engine
from support.cli_world import done, line_naming, run
from support.refusals import holds

import sgraf_deploy
from sgraf_deploy.cli import main
from sgraf_deploy.engines.gpu import Driver, Gpu
from sgraf_deploy.engines.native import library
from sgraf_deploy.engines.registry import ENGINES

COMMANDS = [
    *("bench", "card", "compare", "compile", "demo", "doctor", "eval", "explain", "export"),
    "features",
    *("gallery", "index", "inspect", "package", "rerank", "score", "serve", "synth", "train"),
    "verify",
]
OPEN = library.open_library


def engines(stdout: str) -> dict[str, list[str]]:
    """The words of each engine's row."""
    rows = (line.split() for line in stdout.splitlines() if line)
    return {name: words for name, *words in rows if name in ENGINES}


def working(stdout: str) -> set[str]:
    return {name for name, words in engines(stdout).items() if words[0] == "yes"}


def test_doctor_where_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu_engine in (name for name, entry in ENGINES.items() if entry.devices[0] == "cuda"):
        module, attribute = ENGINES[gpu_engine].target.split(":")
        monkeypatch.setattr(f"{module}.{attribute}.check_available", lambda device: None)

    stdout = done("doctor").stdout

    first = stdout.splitlines()[0]
    assert holds(first, sgraf_deploy.__version__)
    assert holds(first, platform.python_version())
    assert working(stdout) == set(ENGINES)
    line_naming(stdout, "--engine auto", auto_engine())
    line_naming(stdout, "export")
    assert "pip install" not in stdout  # which stands beside whatever does not work


def test_doctor_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch.engine", "torch.reference", "fused.engine"):
        monkeypatch.setitem(sys.modules, f"sgraf_deploy.engines.{module}", None)

    stdout = done("doctor").stdout

    assert working(stdout).isdisjoint({"torch", "torch-reference"})
    assert "ort" in working(stdout)
    hint = "pip install 'sgraf-deploy[torch]'"
    line_naming(stdout, "torch", "torch-reference", hint)
    line_naming(stdout, "--engine auto", auto_engine())
    line_naming(stdout, "export", "sgraf_deploy.engines.torch.engine", hint)


def test_doctor_with_a_pytorch_that_may_not_read_checkpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.__version__", "2.9.1")

    stdout = done("doctor").stdout

    assert "torch" in working(stdout)
    line_naming(stdout, "export", "2.9.1", "pip install 'torch>=2.10'")


def test_doctor_without_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    stdout = done("doctor").stdout

    for name in ("native", "ort"):
        assert name not in working(stdout)
        line_naming(stdout, name, "onnxruntime")
    line_naming(stdout, "native", "ort", "pip install 'sgraf-deploy[cpu]'")
    line_naming(stdout, "--engine auto", "torch", "cpu")


def test_doctor_without_any_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sgraf_deploy.engines.torch.engine", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    stdout = done("doctor").stdout

    line = line_naming(stdout, "--engine auto", "pip install 'sgraf-deploy[cpu]'")
    assert holds(line, "ort")
    assert holds(line, "onnxruntime")
    assert not holds(line, "fp32")  # what it would take


def test_doctor_says_once_why_an_engine_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "open_library", lambda: OPEN(Path("no.so")))

    stdout = done("doctor").stdout

    (row,) = [line for line in stdout.splitlines() if line.startswith("native ")]
    assert "native" not in working(stdout)
    assert row.count("native") == 1
    assert holds(row, "C")


def test_doctor_names_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver("13.1", (Gpu("GPU A", "8.9"), Gpu("GPU B", "12.0")))
    monkeypatch.setattr("sgraf_deploy.engines.gpu.find_driver", lambda: driver)
    stdout = done("doctor").stdout
    line_naming(stdout, "GPU A", "8.9", "GPU B", "12.0", "13.1")
    assert holds(stdout.splitlines()[-1], "CPUExecutionProvider")


def test_doctor_says_what_compile_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgraf_deploy.engines.trt.library.MODULES", ())
    line_naming(done("doctor").stdout, "compile", "TensorRT", "pip install")


def test_version() -> None:
    assert done("--version").stdout == f"sgraf-deploy, version {sgraf_deploy.__version__}\n"


def test_the_help_lists_every_command() -> None:
    stdout = done("--help").stdout

    assert sorted(main.commands) == COMMANDS
    for name in COMMANDS:
        assert f"\n  {name} " in stdout
    below = stdout.partition("Commands:")[2]
    assert "..." not in below
    assert all(holds(below, code) for code in (0, 1, 2, 3))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_explains_every_option(name: str, flag: str) -> None:
    stdout = done(name, flag).stdout

    command = main.commands[name]
    options = [option for option in command.params if isinstance(option, click.Option)]
    for option in options:
        assert f" {option.opts[-1]}" in stdout
        assert option.help
    assert stdout.startswith(f"Usage: main {name} [OPTIONS]")
    assert "INTEGER" not in stdout
    assert max(map(len, stdout.splitlines())) <= 80


def test_no_command_is_an_error_that_shows_the_help() -> None:
    result = run()

    assert result.exit_code == 2
    assert "Commands:" in result.output
