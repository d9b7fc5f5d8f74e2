"""Reading text files whole, with errors that name the file and the line."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from sgraf_deploy.errors import DataError

PathLike = str | os.PathLike[str]


def read_bytes(path: PathLike, what: str, *, at_most: int | None = None) -> bytes:
    """The content of a file; `what` is its role in the message.

    Of a file of more than `at_most` bytes one byte more than that. Raises DataError where the file
    is missing or unreadable.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read() if at_most is None else file.read(at_most + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{what} {path} cannot be read", got=reason) from error


def read_lines(path: PathLike, what: str) -> list[str]:
    """The stripped lines of a UTF-8 file, LF or CRLF, with or without a byte-order mark.

    Raises DataError that names the file and, counted from 1, the line that is not UTF-8 or is
    blank; also for a file without any line.
    """
    content = read_bytes(path, what).removeprefix(codecs.BOM_UTF8)
    if not content:
        raise DataError(f"{what} {path} is empty", expected="one entry per line")
    # Only LF ends a line: str.splitlines would also split at characters inside a caption.
    rows = content.removesuffix(b"\n").split(b"\n")
    return [_decode(row, number, path, what) for number, row in enumerate(rows, start=1)]


def _decode(row: bytes, number: int, path: PathLike, what: str) -> str:
    try:
        line = row.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} {path}, line {number}",
            expected="UTF-8",
            got=f"byte 0x{row[error.start]:02x} at byte {error.start} of the line",
            mend="convert the file to UTF-8",
        ) from error
    if not line:
        raise DataError(
            f"{what} {path}, line {number}", expected="one entry per line", got="a blank line"
        )
    return line
