"""The one place that imports ONNX Runtime, with its telemetry switched off.

From 1.28 on, its official builds for Linux and macOS write a device id below ~/.cache and send
usage data to Microsoft, unless the environment forbids it before the import. Variables that the
user has set are left alone; an earlier import by an application keeps its own settings.
"""

from __future__ import annotations

import os
from typing import Any

from sgraf_deploy.engines.registry import import_package

OPT_OUT = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
"""Environment variables that switch telemetry off, in different versions."""


def import_onnxruntime() -> Any:
    """The module `onnxruntime`; UnavailableError where it, or what it needs, is missing."""
    for name in OPT_OUT:
        os.environ.setdefault(name, "1")
    return import_package("onnxruntime")


def import_state() -> Any:
    """The compiled module of `onnxruntime` with its exceptions; UnavailableError likewise."""
    import_onnxruntime()
    return import_package("onnxruntime.capi.onnxruntime_pybind11_state")
