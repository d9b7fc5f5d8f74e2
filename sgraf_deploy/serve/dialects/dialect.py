"""What the dialects have in common: which fields they name how, and what they answer with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from sgraf_deploy.serve.calls import Answer
from sgraf_deploy.serve.documents import Sent


class Reply(msgspec.Struct, frozen=True, eq=False):
    """What an answer is written from.

    `sent` are the documents as they were sent; `echo` says whether the client wants them back;
    `version` is that of the route, `1` or `2`.
    """

    answer: Answer
    sent: Sequence[Sent]
    echo: bool
    model: str
    id: str
    created: int
    version: str

    def text(self, index: int) -> str:
        """A document as a string: as it was sent, or the JSON of an object without regions."""
        sent = self.sent[index]
        return sent if isinstance(sent, str) else msgspec.json.encode(self.echoed(index)).decode()

    def echoed(self, index: int) -> dict[str, Any]:
        """A document as an object: as it was sent, without the numbers of regions."""
        sent = self.sent[index]
        if isinstance(sent, str):
            return {"text": sent}
        found: dict[str, Any] = msgspec.to_builtins(sent)
        found.pop("regions", None)
        return found


@dataclass(frozen=True)
class Dialect:
    """The names of a dialect's fields, and how it writes an answer.

    `documents` is the field of the documents; `top` that of how many to answer with, and `echo`
    that of whether they come back, None where there is none; `others` are fields of its own that
    mean nothing here, of which nobody is warned.
    """

    name: str
    documents: str
    top: str | None
    echo: str | None
    render: Callable[[Reply], Any]
    others: frozenset[str] = frozenset()

    @cached_property
    def fields(self) -> frozenset[str]:
        """Every field that is not ignored."""
        known = {"model", "query", self.documents, self.top, self.echo}
        return frozenset(one for one in known if one is not None) | self.others
