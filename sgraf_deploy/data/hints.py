"""What the readers of features and of text share in naming files and in saying what to do."""

from __future__ import annotations

from pathlib import Path

_OLD_PICKLES = (b"cnumpy", b"ccopy_reg", b"c__builtin__", b"(lp", b"(dp")
_PICKLE, _NEWEST_PROTOCOL = 0x80, 5


def quoted(path: Path) -> str:
    """A path as Python writes it, in a message, in which several spaces would be one."""
    return repr(str(path)).replace("  ", r"\x20\x20")


def as_name(hint: str, name: str) -> str:
    """A hint that makes another file, with the name that this must have."""
    return f"{hint}, named {name}" if "NEW" in hint or "FOLDER" in hint else hint


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so is a pickle; text that anybody writes never is."""
    binary = len(head) > 1 and head[0] == _PICKLE and head[1] <= _NEWEST_PROTOCOL
    return binary or head.startswith(_OLD_PICKLES)
