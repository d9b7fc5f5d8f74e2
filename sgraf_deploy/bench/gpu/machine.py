"""The machine of the steps: GPUs, driver, versions, and the reasons for everything missing.

`python -m sgraf_deploy.bench.gpu.machine` prints it as JSON. It runs in a process of its own,
because its imports may crash, and so that the process that runs the steps takes no GPU memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sgraf_deploy.bench.gpu.job import run_job
from sgraf_deploy.bench.run import processor
from sgraf_deploy.engines.gpu import find_driver
from sgraf_deploy.engines.registry import CUDA_INSTALL, ENGINES, unavailable
from sgraf_deploy.engines.trt.library import find_tensorrt
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.versions import tool_versions

PACKAGES = ("triton", "cuda-bindings", "tensorrt", "tensorrt-rtx-cu13-bindings", "safetensors")
"""Packages whose versions are reported in addition to those of every report."""

SNAPSHOT = (
    *("name", "driver_version", "memory.total", "memory.used", "temperature.gpu", "power.draw"),
    *("power.limit", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks_event_reasons.active"),
)
"""The fields that are queried from nvidia-smi."""

_SECONDS = 20


def describe() -> dict[str, Any]:
    """GPUs, CUDA, processor, versions, and the reasons why something does not work here.

    The keys of `missing` are engines, `ENGINE@cuda` for engines that can also run elsewhere, `gpu`,
    `cuda-bindings`, `compute-sanitizer` and `tensorrt-rtx`. It has no key for what works.
    """
    versions = tool_versions()
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    gpus: dict[str, Any] = {"gpus": [], "cuda": None}
    missing: dict[str, str] = {}
    try:
        driver = find_driver()
    except UnavailableError as error:
        missing["gpu"] = error.reason
    else:
        gpus["cuda"] = driver.cuda
        gpus["gpus"] = [f"{gpu.name} ({gpu.compute_capability})" for gpu in driver.gpus]
    return gpus | {
        "processor": processor(),
        "versions": versions,
        "missing": missing | _engines() | _programs(),
    }


def _engines() -> dict[str, str]:
    reasons: dict[str, str] = {}
    for name, entry in ENGINES.items():
        for label, device in ((name, None), (f"{name}@cuda", "cuda")):
            if device is not None and device not in entry.devices:
                continue
            error = unavailable(name, device)
            if error is not None:
                reasons[label] = error.reason
    return reasons


def _programs() -> dict[str, str]:
    reasons = {}
    if shutil.which("compute-sanitizer") is None:
        reasons["compute-sanitizer"] = "compute-sanitizer is not installed"
    if (
        importlib.util.find_spec("cuda") is None
        or importlib.util.find_spec("cuda.bindings") is None
    ):
        reasons["cuda-bindings"] = f"cuda-bindings is not installed: {CUDA_INSTALL}"
    try:
        tensorrt = find_tensorrt()
    except UnavailableError as error:
        reasons["tensorrt-rtx"] = error.reason
    else:
        if tensorrt.flavour != "tensorrt-rtx":
            reasons["tensorrt-rtx"] = f"the TensorRT of this machine is {tensorrt}"
    return reasons


def snapshot() -> dict[str, Any] | None:
    """Clocks, temperature and power of the first GPU from nvidia-smi; None without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={','.join(SNAPSHOT)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = [value.strip() for value in done.stdout.strip().split(",")]
    if done.returncode or len(values) != len(SNAPSHOT):
        return None
    return dict(zip(SNAPSHOT, values, strict=True))


def device_bytes() -> int | None:
    """The memory of the first GPU in bytes, from nvidia-smi; None without it."""
    values = snapshot() or {}
    number, _, unit = values.get("memory.total", "").partition(" ")
    return int(number) * 2**20 if number.isdecimal() and unit == "MiB" else None


if __name__ == "__main__":
    sys.exit(run_job(argparse.ArgumentParser(description=__doc__), lambda _: describe()))
