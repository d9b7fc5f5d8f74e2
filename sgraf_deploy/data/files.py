"""Reading whole text files, with errors that name the file and the line."""

from __future__ import annotations

import codecs
from pathlib import Path

from sgraf_deploy.data.foreign_text import check_text
from sgraf_deploy.errors import DataError
from sgraf_deploy.files.disk import PathLike


def read_bytes(path: PathLike, what: str, *, at_most: int | None = None) -> bytes:
    """The content of a file; `what` is its role in the message.

    If the file has more than `at_most` bytes, only one byte more than that is read. Raises
    DataError if the file is missing or unreadable.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read() if at_most is None else file.read(at_most + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{what} {path} cannot be read", got=reason) from error


def read_lines(path: PathLike, what: str) -> list[str]:
    """The stripped lines of a UTF-8 file, LF or CRLF, with or without a byte-order mark.

    Blank lines at the end are ignored. Raises DataError that names the file and, counted from 1,
    the line that is not UTF-8, is blank or contains a NUL; also for a file without any line, and
    for a file of another format, which the error names.
    """
    return split_lines(read_bytes(path, what), path, what)


def split_lines(content: bytes, path: PathLike, what: str) -> list[str]:
    """The same for the content of a file that was already read."""
    check_text(content, Path(path), what)
    # Only LF ends a line: str.splitlines would also split at characters inside a caption.
    rows = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    lines = [_decode(row, number, path, what) for number, row in enumerate(rows, start=1)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{what} {path} is empty", expected="one entry per line")
    if "" in lines:
        raise DataError(
            f"{what} {path}, line {lines.index('') + 1}",
            expected="one entry per line",
            got="a blank line",
            hint="fill it in, because entries are identified by their line number",
        )
    return lines


def _decode(row: bytes, number: int, path: PathLike, what: str) -> str:
    where = f"{what} {path}, line {number}"
    try:
        line = row.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            where,
            expected="UTF-8",
            got=f"byte 0x{row[error.start]:02x} at byte {error.start} of the line",
            hint="convert the file to UTF-8; if it is in Latin-1: "
            "iconv -f ISO-8859-1 -t UTF-8 FILE > NEW",
        ) from error
    if "\0" in line:
        got, hint = "a NUL byte", "remove the NUL bytes: tr -d '\\000' < FILE > NEW"
        raise DataError(where, expected="text", got=got, hint=hint)
    return line
