"""Where in a file an error is."""

from __future__ import annotations

import re
from pathlib import Path

from sgraf_deploy.errors import SgrafDeployError


def line_of(error: SgrafDeployError, path: Path) -> int | None:
    """The line that an error names beside the file's path, which may hold numbers of its own."""
    found = re.search(r"\b\d+\b", error.what.replace(str(path), ""))
    return int(found[0]) if found else None
