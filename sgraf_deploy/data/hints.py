"""Helpers for the hints of both the feature reader and the text reader."""

from __future__ import annotations

from pathlib import Path

_OLD_PICKLES = (b"cnumpy", b"ccopy_reg", b"c__builtin__", b"(lp", b"(dp")
_PICKLE, _NEWEST_PROTOCOL = 0x80, 5


def quoted(path: Path) -> str:
    """A path as a Python literal for a message, where repeated spaces would become a single one."""
    return repr(str(path)).replace("  ", r"\x20\x20")


def as_name(hint: str, name: str) -> str:
    """A hint whose command makes a new file, with the name that this file must have."""
    return f"{hint}, named {name}" if "NEW" in hint or "FOLDER" in hint else hint


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a pickle; ordinary text never is."""
    binary = len(head) > 1 and head[0] == _PICKLE and head[1] <= _NEWEST_PROTOCOL
    return binary or head.startswith(_OLD_PICKLES)
