"""`sgraf-deploy doctor`: shows which engines work on this machine."""

from __future__ import annotations

from collections.abc import Callable

import click

from sgraf_deploy.cli.terminal import echo, table


@click.command(short_help="Show which engines work here, and how to make the others work.")
def doctor() -> None:
    """Show which engines work on this machine, and how to make the others work.

    For an engine that does not work, the reason is shown and the command that puts it right.
    """
    from sgraf_deploy.engines.registry import ENGINES, unavailable
    from sgraf_deploy.versions import tool_versions

    echo(", ".join(f"{name} {number}" for name, number in tool_versions().items()))
    errors = {name: unavailable(name) for name in ENGINES}
    rows = [
        [name, "yes", ENGINES[name].purpose] if error is None else [name, "no", error.reason]
        for name, error in errors.items()
    ]
    for line in table(rows, ["engine", "works here", "what it is, or why it does not work"]):
        echo(line)
    missing: dict[str | None, list[str]] = {}
    for name, error in errors.items():
        if error is not None:
            missing.setdefault(error.hint, []).append(name)
    for hint, names in missing.items():
        echo(f"to use {', '.join(names)}: {hint}")
    auto = ("--engine auto takes {}", "--engine auto finds no engine: {}")
    compiles = ("compile works, with {}", "compile does not work: {}")
    echo(_answer(_auto, *auto))
    echo(_answer(_instruction_sets, "engine native: {}", "engine native: none, {}"))
    echo(_answer(_compiler, *compiles))
    torch = errors["torch"]
    if torch is None:
        echo(_answer(_checkpoints, "export works{}", "export does not work: {}"))
    else:
        echo(f"export does not work: {torch}")
    echo(_answer(_gpus, "GPU: {}", "GPU: none, {}"))
    echo(f"ONNX Runtime's providers: {_providers()}")


def _answer(ask: Callable[[], object], available: str, unavailable: str) -> str:
    """The answer put into the text `available`, or why there is none into `unavailable`."""
    from sgraf_deploy.errors import UnavailableError

    try:
        return available.format(ask())
    except UnavailableError as error:
        return unavailable.format(error)


def _auto() -> str:
    """What `auto` takes for a bundle that has every precision and no compiled plans."""
    from sgraf_deploy.engines.machine import Machine
    from sgraf_deploy.engines.policy import Request, choose

    choice = choose(Request(), Machine())
    return f"{choice.engine}, {choice.precision} on {choice.device}"


def _compiler() -> str:
    """The TensorRT that `compile` builds with, and whether the GPU here can run its plans."""
    from sgraf_deploy.engines.trt.library import find_tensorrt
    from sgraf_deploy.engines.trt.rtx import left_out

    tensorrt = find_tensorrt()
    reason = left_out(tensorrt)
    return str(tensorrt) if reason is None else f"{tensorrt}, but not for the GPU here: {reason}"


def _checkpoints() -> str:
    """An empty text if there is a PyTorch that may read checkpoints, or else UnavailableError."""
    from sgraf_deploy.model.untrusted import torch_that_reads

    torch_that_reads()
    return ""


def _instruction_sets() -> str:
    from sgraf_deploy.engines.native.instructions import VARIABLE
    from sgraf_deploy.engines.native.library import instruction_sets

    sets = instruction_sets()
    return f"{sets.used} ({sets}; {VARIABLE} chooses)"


def _gpus() -> str:
    from sgraf_deploy.engines.gpu import find_driver

    driver = find_driver()
    names = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in driver.gpus)
    return f"{names}; the driver runs CUDA {driver.cuda}"


def _providers() -> str:
    """The providers of the installed ONNX Runtime, which engines ort, ort-cuda and ort-trt use."""
    from sgraf_deploy.engines.onnx_runtime import import_onnxruntime
    from sgraf_deploy.errors import UnavailableError

    try:
        onnxruntime = import_onnxruntime()
    except UnavailableError:
        return "none, because it is not installed"
    return ", ".join(onnxruntime.get_available_providers())
