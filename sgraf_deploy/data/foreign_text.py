"""Files in place of text with one entry per line: their formats, and hints for converting them."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Any

from sgraf_deploy.data.hints import as_name, is_pickle, quoted
from sgraf_deploy.errors import DataError
from sgraf_deploy.formats import HEAD, Format, recognise, shown

_ICONV = "convert it: iconv -f {} -t UTF-8 FILE > NEW"
_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""In this order, because the mark of UTF-32 begins with that of UTF-16."""

_WIDE = (("UTF-32LE", 4), ("UTF-32BE", 4), ("UTF-16LE", 2), ("UTF-16BE", 2))
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LONE_CR = re.compile(rb"\r(?!\n)")
_FEW_RETURNS, _RETURN_SHARE = 1, 0.01
"""Up to this many CRs within lines, or this share of the lines, may be part of captions."""

_PAGE = (b"<!doctype", b"<html", b"<head", b"<body")
_MOST_LINES = 100
"""The number of lines of a table that are read to find the column of its captions."""


def check_text(content: bytes, path: Path, what: str) -> None:
    """Raise DataError, which names the format, for content that is not lines of UTF-8 text.

    The single lines are not checked.
    """
    name = path.name
    actual = describe_bytes(content, path, path)
    if actual is not None:
        raise DataError(
            f"{what} {path}",
            expected="UTF-8 text, one entry per line",
            got=actual.name,
            hint=actual.hint or f"write {what} to {name}, one per line in UTF-8",
        )


def check_line_ends(content: bytes, path: Path, what: str) -> None:
    """Raise DataError for lines that end with CR only, which would be read as a single line."""
    alone, ends = lone_returns(content), content.count(b"\n")
    if alone > max(_FEW_RETURNS, _RETURN_SHARE * ends):
        got = f"{alone} lines that end with CR only, among {ends} that end with LF"
        if alone > ends:
            got = f"{alone + 1} lines that end with CR only, as old Macs wrote them"
        raise DataError(
            f"{what} {path}",
            expected="lines that end with LF or CRLF",
            got=got,
            hint=f"replace CR with LF: tr '\\r' '\\n' < FILE > NEW, named {path.name}",
        )


def describe_bytes(content: bytes, source: Path, target: Path) -> Format | None:
    """The format of a file's content, and a hint for making `target` from it; None for text."""
    name = target.name
    encoding = _encoding(content)
    if encoding is not None:
        return Format(f"text in {encoding}", as_name(_ICONV.format(encoding), name))
    head = content[:HEAD]
    if is_pickle(head):
        return Format("a pickle, which is not read")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if b"[Content_Types].xml" in head:
            return Format("an Office document (.xlsx, .docx)", f"save it as text, named {name}")
        return Format("a zip archive", as_name("unpack it (unzip -p FILE > NEW)", name))
    known = recognise(head) if content.strip() else None
    return known and _known(known, content, source, target)


def _known(known: Format, content: bytes, source: Path, target: Path) -> Format | None:
    """The format that the first bytes show, with a hint; None if they may be any text."""
    head = content[:HEAD]
    if known.name == "an HTML page" and not any(mark in head.lower() for mark in _PAGE):
        return None
    if known.name.startswith("JSON"):
        return _json(content, source, target)
    if known.name.startswith("text"):
        return None
    return Format(known.name, known.hint and as_name(known.hint, target.name))


def describe_other(source: Path, target: Path) -> Format:
    """The format of a file of captions with another name; an OSError is not translated."""
    content = source.read_bytes()
    described = describe_bytes(content, source, target)
    if described is not None:
        return described
    table = _table(content, source, target)
    if table is not None:
        return table
    if content.lstrip()[:1] in (b"{", b"["):
        return Format("JSON with one document per line")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return Format(f"bytes that begin with {shown(content[:HEAD])}")
    return Format("text", f"rename it to {target.name}")


def lone_returns(content: bytes) -> int:
    """The number of CRs within lines that end with LF; an editor may show them as line ends."""
    return sum(len(_LONE_CR.findall(row.rstrip())) for row in content.split(b"\n"))


def _encoding(content: bytes) -> str | None:
    """UTF-16 or UTF-32, recognised by the byte-order mark or by the positions of zeros."""
    for mark, name in _BOMS:
        if content.startswith(mark):
            return name
    head = content[:HEAD]
    if b"\0" not in head or _is_text_with_zeros(head):
        return None
    for name, width in _WIDE:
        try:
            text = head[: len(head) // width * width].decode(name)
        except UnicodeDecodeError:
            continue
        letters = sum(character.isascii() for character in text)
        if text and not _CONTROLS.search(text) and ("\n" in text or 2 * letters > len(text)):
            return name
    return None


def _is_text_with_zeros(head: bytes) -> bool:
    """Whether this is UTF-8 text apart from a few zero bytes; UTF-16 has far more of them, or is
    not UTF-8 without them."""
    text = head.replace(b"\0", b"").decode("utf-8", "replace")[:-1]  # the last one may be cut
    return 4 * head.count(0) < len(head) and "\ufffd" not in text and not _CONTROLS.search(text)


def _json(content: bytes, source: Path, target: Path) -> Format | None:
    """Describe a JSON document; None if the content is lines, each of which may be one."""
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        read = f"json.loads(pathlib.Path({quoted(source)}).read_text('utf-8-sig'))"
        line = f"with Python: import json, pathlib; {_written(target, 'x', read)}"
        return Format(f"a JSON list of {len(value)} texts", line)
    if isinstance(value, dict):
        keys = ", ".join(repr(key) for key in list(value)[:5])
        return Format(f"a JSON object of {keys or 'nothing'}")
    return Format("a JSON document")


def _table(content: bytes, source: Path, target: Path) -> Format | None:
    """Describe a table in TSV or CSV, recognised by its name or its tabs."""
    lines = content[: 64 * HEAD].decode("utf-8-sig", "replace").split("\n")[:_MOST_LINES]
    tabs = source.suffix.lower() == ".tsv" or "\t" in lines[0]
    if not tabs and source.suffix.lower() != ".csv":
        return None
    separator = "\t" if tabs else ","
    rows = [line.split(separator) for line in lines if line.strip()]
    words = [
        sum(len(row[column].split()) for row in rows)
        for column in range(min((len(row) for row in rows), default=0))
    ]
    column = words.index(max(words)) if words else 0
    path = quoted(source)
    if tabs:
        texts = f"pathlib.Path({path}).read_text('utf-8-sig').rstrip('\\n').split('\\n')"
        line = f"import pathlib; {_written(target, f'x.split(chr(9))[{column}]', texts)}"
        return Format("a table (TSV)", f"with Python: {line}")
    opened = f"csv.reader(io.StringIO(pathlib.Path({path}).read_text('utf-8-sig')))"
    line = f"import csv, io, pathlib; {_written(target, f'x[{column}]', opened)}"
    return Format("a table (CSV)", f"with Python: {line}")


def _written(target: Path, text: str, items: str) -> str:
    """Python that writes `text` for each `x` in `items`, one per line."""
    joined = f"''.join(' '.join({text}.split()) + '\\n' for x in {items})"
    return f"pathlib.Path({quoted(target)}).write_text({joined}, 'utf-8')"
