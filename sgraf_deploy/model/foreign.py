"""What a pickle names, and stand-ins for the classes of others, so that none of them is needed.

A stand-in takes the place of a class or function that only the training's code has: the unpickler
makes instances of it that hold nothing and do nothing, and the real one is never looked up.
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
"""What the unpickler itself takes or refuses by its own rules."""

_VALUES = re.compile(
    r"(pathlib|datetime|decimal|fractions|uuid|enum|zoneinfo|ipaddress|typing|collections"
    r"|functools|itertools|random|dataclasses|logging|optparse|configparser|string|numbers|array"
    r"|abc|time|calendar|re|copyreg|pathlib\._local)\.\w+"
    r"|builtins\.(object|frozenset|range|slice|tuple|list|dict|int|float|str|bool|bytes|type)"
)
"""What plain values of the standard library are made of; the rest of it could run code."""

_LONGEST = 200
_MAKERS = {"_reconstruct", "_reconstructor", "__newobj__", "__newobj_ex__"}
"""Functions that make an instance of the class that is their first argument."""


def foreign_names(names: Sequence[str]) -> list[str]:
    """Those of a pickle's names that a stand-in may take the place of."""
    return [name for name in _unknown(names) if is_inert(name)]


def refused_names(names: Sequence[str]) -> list[str]:
    """Those that nothing may take the place of: they could run code."""
    return [python3_name(name) for name in _unknown(names) if not is_inert(name)]


def is_inert(name: str) -> bool:
    """Whether a class or function belongs to somebody's code or is a harmless value's.

    The others, those of the standard library that could run code, have no place in a checkpoint,
    and nothing may stand in for what makes one of PyTorch's tensors of a kind of its own.
    """
    name = python3_name(name)
    top, last = name.split(".", 1)[0], name.rpartition(".")[2]
    if top == "torch" and last.startswith("_rebuild"):
        return False
    return top not in sys.stdlib_module_names or _VALUES.fullmatch(name) is not None


class Foreign:
    """Stands in for instances of somebody else's class: takes everything and keeps nothing."""

    of = ""

    def __new__(cls, *arguments: Any, **_: Any) -> Foreign:
        """An instance, of the class in the first argument where that is what was called."""
        made: type[Foreign] = cls
        if cls.of.rpartition(".")[2] in _MAKERS and arguments:
            first = arguments[0]
            if isinstance(first, type) and issubclass(first, Foreign):
                made = first
        return object.__new__(made)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""

    def __setstate__(self, state: object) -> None:
        """Nothing is kept."""

    def __setitem__(self, key: object, value: object) -> None:
        """Nothing is kept."""


def stand_in(name: str) -> type[Foreign]:
    """A stand-in for the class or function of this name."""
    return type(printable(name), (Foreign,), {"of": name, "__module__": Foreign.__module__})


def kind_of(value: object) -> str:
    """What a message calls the type of a value, the name in the file for a stand-in's."""
    if isinstance(value, Foreign):
        return printable(value.of)
    if isinstance(value, type) and issubclass(value, Foreign):
        return f"{printable(value.of)} itself"
    return type(value).__name__


def kind_in(text: str) -> str | None:
    """The name of the class whose stand-in a message of the unpickler speaks of."""
    found = re.search(rf"<class '{re.escape(Foreign.__module__)}\.(.+?)'>", text)
    return found and found[1]


def printable(text: str) -> str:
    """Text of the file's own choice, fit for a terminal and for one line."""
    return text[:_LONGEST].encode("unicode_escape").decode("ascii")


def _unknown(names: Sequence[str]) -> list[str]:
    return [name for name in names if not _KNOWN.fullmatch(python3_name(name))]
