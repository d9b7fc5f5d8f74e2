"""The versions of the packages that take part in a run, for manifests and reports."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from sgraf_deploy import __version__

PACKAGES = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "nltk")


def tool_versions() -> dict[str, str]:
    """The versions of this package, Python and the installed libraries, by name."""
    versions = {"sgraf-deploy": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
