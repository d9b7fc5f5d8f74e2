"""What the steps that are modules of their own share: arguments, a JSON file, errors in a line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sgraf_deploy.errors import SgrafDeployError
from sgraf_deploy.files.writer import write_json

Job = Callable[[argparse.Namespace], dict[str, Any] | None]


def run_job(
    parser: argparse.ArgumentParser, job: Job, arguments: Sequence[str] | None = None
) -> int:
    """Parse, run, and write what was found to `--json`, or to standard output; the exit code.

    That is 1 where what was found names under `failed` what is not as it must be.
    """
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the result goes")
    given = parser.parse_args(arguments)
    try:
        found = job(given)
        if found is not None and given.json is not None:
            write_json(given.json, found, what="--json")
    except SgrafDeployError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if found is not None and given.json is None:
        json.dump(found, sys.stdout, indent=1)
    return 1 if found is not None and found.get("failed") else 0


def engine_parser(description: str) -> argparse.ArgumentParser:
    """A parser of the options that name an engine."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--precision", required=True)
    return parser
