"""The script that `inspect --commands` writes, as a module."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def imported(script: Path) -> ModuleType:
    """Import the script from where it is, as no other module."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
