"""Change the code that decides bit by bit, and count what no test notices: `make mutation`.

`[tool.mutmut]` in pyproject.toml lists that code and its tests. Everything happens in `mutants/`,
which git ignores; `mutants/survivors.diff` holds what survived. Arguments are mutants' names or
patterns: only those run again, on the sources and tests as they are now. Needs mutmut.
"""

from __future__ import annotations

import resource
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libcst
from mutmut.__main__ import cli
from mutmut.mutation import mutators
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.runners.harness import BadTestExecutionCommandsException, PytestRunner
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

PROCESSES = 2
FOLDER = Path("mutants")
SUSPICIOUS = 35
COLUMNS = ("killed", "survived", "no tests", "timeout")


def main(names: list[str]) -> None:
    """Run all mutants, or those of these names again, and say how many tests noticed."""
    # Wording is not what tests assert, and keys that are strings fail at once.
    mutators.mutation_operators.remove((libcst.BaseString, mutators.operator_string))
    PytestRunner.execute_pytest = _not_killed_by_usage(PytestRunner.execute_pytest)
    if names:
        (FOLDER / "mutmut-stats.json").unlink(missing_ok=True)  # Which test meets which function.
    else:
        shutil.rmtree(FOLDER, ignore_errors=True)
    cli(["run", f"--max-children={PROCESSES}", *names], standalone_mode=False)
    _summarise()


def _not_killed_by_usage(execute: Callable[..., int]) -> Callable[..., int]:
    """Have a mutant whose tests pytest could not even find counted as suspicious.

    mutmut raises in the mutant's process, whose exit code is then that of a test that failed.
    """

    def executed(runner: PytestRunner, parameters: list[str], **options: Any) -> int:
        try:
            return execute(runner, parameters, **options)
        except BadTestExecutionCommandsException:
            return SUSPICIOUS

    return executed


def _summarise() -> None:
    total: Counter[str] = Counter()
    rows = [_row("", ("mutants", *COLUMNS, "other"))]
    diffs: list[str] = []
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        states = {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items()}
        total.update(states.values())
        rows.append(_row(str(path), _counts(Counter(states.values()))))
        diffs += [
            f"# {name}: {state}\n{get_diff_for_mutant(name, path=path)}\n"
            for name, state in states.items()
            if state != "killed"
        ]
    (FOLDER / "survivors.diff").write_text("\n".join(diffs), encoding="utf-8")
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    minutes = sum(one.ru_utime + one.ru_stime for one in usage) / 60
    rows += [_row("all", _counts(total)), "", f"{minutes:.1f} minutes of processor time"]
    sys.stdout.write("\n".join(["", *rows, ""]))


def _counts(states: Counter[str]) -> tuple[int, ...]:
    known = [states[column] for column in COLUMNS]
    return states.total(), *known, states.total() - sum(known)


def _row(name: str, cells: tuple[object, ...]) -> str:
    return f"{name:34}" + "".join(f"{cell!s:>10}" for cell in cells)


if __name__ == "__main__":
    main(sys.argv[1:])
