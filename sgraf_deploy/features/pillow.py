"""The one place that imports Pillow, which reads and resizes photographs."""

from __future__ import annotations

from typing import Any

from sgraf_deploy.engines.registry import import_package
from sgraf_deploy.errors import UnavailableError

INSTALL = "pip install 'sgraf-deploy[images]'"


def import_pillow() -> Any:
    """The module `PIL.Image`; UnavailableError, with the command that installs it, without it."""
    try:
        return import_package("PIL.Image")
    except UnavailableError as error:
        raise UnavailableError(f"photographs need Pillow: {error.what}", hint=INSTALL) from error
