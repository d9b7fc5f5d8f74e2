"""Helpers of the steps that are modules: arguments, the JSON file, errors in one line."""

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
    """Parse, run, write the result to `--json` or to standard output, and return the exit code.

    The exit code is 1 if `failed` in the result is not empty.
    """
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to write the result to")
    given = parser.parse_args(arguments)
    try:
        result = job(given)
        if result is not None and given.json is not None:
            write_json(given.json, result, what="--json")
    except SgrafDeployError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if result is not None and given.json is None:
        json.dump(result, sys.stdout, indent=1)
    return 1 if result is not None and result.get("failed") else 0


def engine_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that name an engine and its precision."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--precision", required=True)
    return parser
