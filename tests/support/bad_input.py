"""A bad input of the command line: what is run, and what its error must hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from support.cli_world import World
from support.refusals import ANY

from sgraf_deploy.errors import SgrafDeployError

Arguments = Callable[[World], Sequence[object]]


@dataclass(frozen=True)
class Bad:
    """A command that must fail, and what `check_error` must find in its error."""

    name: str
    arguments: Arguments
    kind: type[SgrafDeployError]
    names: tuple[object, ...] = ()
    expected: object = ANY
    got: object = ANY
    hint: object = ANY

    @property
    def fields(self) -> dict[str, object]:
        """The fields of its error, as `check_error` takes them."""
        return {"expected": self.expected, "got": self.got, "hint": self.hint}

    def __str__(self) -> str:
        return self.name
