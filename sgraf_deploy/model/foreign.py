"""The names in a pickle, and stand-ins for classes of other code, which need not be installed.

A stand-in replaces a class or function that only the training code has: the unpickler makes
instances of it that store nothing and do nothing, and the real one is never looked up.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from sgraf_deploy.formats import python3_name

_KNOWN = re.compile(
    r"(torch|torch\._utils|torch\.storage)\.\w+|torch\.nn\.parameter\.Parameter"
    r"|torch\._tensor\._rebuild_from_type_v2|torch\.serialization\._get_layout"
    r"|collections\.(OrderedDict|Counter|defaultdict|deque)|argparse\.Namespace|types\.SimpleNamespace"
    r"|numpy\.dtype|numpy\._?core\.multiarray\.scalar|_codecs\.encode"
    r"|builtins\.(set|bytearray|complex)"
)
"""Names that the unpickler itself accepts or refuses."""

_VALUES = re.compile(
    r"(pathlib|datetime|decimal|fractions|uuid|enum|zoneinfo|ipaddress|typing|collections"
    r"|functools|itertools|random|dataclasses|logging|optparse|configparser|string|numbers|array"
    r"|abc|time|calendar|re|copyreg|pathlib\._local)\.\w+"
    r"|builtins\.(object|frozenset|range|slice|tuple|list|dict|int|float|str|bool|bytes|type)"
)
"""Names of plain values of the standard library; its other names could run code."""

_LONGEST = 200
_MAKERS = {"_reconstruct", "_reconstructor", "__newobj__", "__newobj_ex__"}
"""Functions that make an instance of the class that is their first argument."""


def foreign_names(names: Sequence[str]) -> list[str]:
    """The names of a pickle that a stand-in may replace."""
    return [name for name in _unknown(names) if is_inert(name)]


def refused_names(names: Sequence[str]) -> list[str]:
    """The names of a pickle that no stand-in may replace, because they could run code."""
    return [python3_name(name) for name in _unknown(names) if not is_inert(name)]


def is_inert(name: str) -> bool:
    """Whether a class or function is of third-party code or of a harmless standard value.

    The others, those of the standard library that could run code, do not belong in a checkpoint.
    Functions that rebuild special kinds of PyTorch's tensors must not be replaced either.
    """
    name = python3_name(name)
    top, last = name.split(".", 1)[0], name.rpartition(".")[2]
    if top == "torch" and last.startswith("_rebuild"):
        return False
    return top not in sys.stdlib_module_names or _VALUES.fullmatch(name) is not None


class Foreign:
    """Stands in for instances of a third-party class: accepts everything and stores nothing."""

    of = ""

    def __new__(cls, *arguments: Any, **_: Any) -> Foreign:
        """An instance; for a function that makes one, of the class in its first argument."""
        made: type[Foreign] = cls
        if cls.of.rpartition(".")[2] in _MAKERS and arguments:
            first = arguments[0]
            if isinstance(first, type) and issubclass(first, Foreign):
                made = first
        return object.__new__(made)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Store nothing."""

    def __setstate__(self, state: object) -> None:
        """Store nothing."""

    def __setitem__(self, key: object, value: object) -> None:
        """Store nothing."""


def stand_in(name: str) -> type[Foreign]:
    """A stand-in for the class or function of this name."""
    return type(printable(name), (Foreign,), {"of": name, "__module__": Foreign.__module__})


def kind_of(value: object) -> str:
    """The name of a value's type for a message; for a stand-in, the name in the file."""
    if isinstance(value, Foreign):
        return printable(value.of)
    if isinstance(value, type) and issubclass(value, Foreign):
        return f"{printable(value.of)} itself"
    return type(value).__name__


def kind_in(text: str) -> str | None:
    """The name of the class whose stand-in a message of the unpickler mentions."""
    match = re.search(rf"<class '{re.escape(Foreign.__module__)}\.(.+?)'>", text)
    return match and match[1]


def printable(text: str) -> str:
    """Untrusted text from the file, shortened and escaped for one line of a terminal."""
    return text[:_LONGEST].encode("unicode_escape").decode("ascii")


def _unknown(names: Sequence[str]) -> list[str]:
    return [name for name in names if not _KNOWN.fullmatch(python3_name(name))]
