"""The one place that imports ONNX Runtime, which then sends nothing home.

Its official builds for Linux and macOS write a device id below ~/.cache and send usage data to
Microsoft, from 1.28 on, unless the environment says otherwise before the import. What the user has
set is left alone, and so is what an application has imported before.
"""

from __future__ import annotations

import os
from typing import Any

from sgraf_deploy.engines.registry import import_package

OPT_OUT = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
"""Environment variables that switch it off, by the version's name for them."""


def import_onnxruntime() -> Any:
    """The module `onnxruntime`; UnavailableError where it, or what it needs, is not there."""
    for name in OPT_OUT:
        os.environ.setdefault(name, "1")
    return import_package("onnxruntime")


def import_state() -> Any:
    """The compiled half of `onnxruntime`, which has its exceptions; UnavailableError likewise."""
    import_onnxruntime()
    return import_package("onnxruntime.capi.onnxruntime_pybind11_state")
