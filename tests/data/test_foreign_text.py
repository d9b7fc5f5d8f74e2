"""Files in place of captions are named, and what the hint says to type puts them right."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import pickle
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hinted import type_python
from support.located import line_of
from support.refusals import naming, refused

from sgraf_deploy.data.captions import read_captions
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.errors import DataError, SgrafDeployError
from sgraf_deploy.formats import recognise

CAPTIONS = ["a dog; it runs", 'the "red" café, by night', "two cats", "1 bird", "x"]
TEXT = "\n".join(CAPTIONS) + "\n"


def error_of(path: Path, **fields: object) -> SgrafDeployError:
    with refused(DataError, path, **{"hint": [], **fields}) as found:
        read_captions(path)
    assert str(found.error).isprintable()
    return found.error


WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize(
    "text",
    [TEXT, "一只狗在沙滩上\n" * 9, "собака на пляже\n" * 9, "a"],
    ids=["latin", "chinese", "cyrillic", "letter"],
)
@pytest.mark.parametrize("encoding", WIDE)
def test_wide_text_is_named(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(text.encode(encoding))
    name = "".join(encoding.upper().rsplit("-", encoding.count("-") - 1))  # UTF-16, UTF-16LE
    error_of(path, got=naming(name), hint=["iconv", "dev_caps.txt"])


@pytest.mark.parametrize("encoding", WIDE)
def test_the_command_of_the_hint_converts_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(TEXT.encode(encoding))
    hint = error_of(path).hint or ""
    command = hint[hint.index("iconv ") :].partition(" FILE")[0].split()
    try:
        found = subprocess.run([*command, path], capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("needs iconv")
    path.write_bytes(found)
    assert read_captions(path) == CAPTIONS


def test_latin_1_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(TEXT.encode("latin-1"))
    error = error_of(path, expected="UTF-8", got=naming("0xe9"), hint="iconv -f ISO-8859-1")
    assert line_of(error, path) == 2


@pytest.mark.parametrize("end", [b"", b"\r", b"\r\r", b"\n", b"\r\n"])
def test_returns_alone_end_no_lines(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(TEXT.strip().encode().replace(b"\n", b"\r") + end)
    error_of(path, got=naming("CR", 5), hint="tr '\\r' '\\n'")


def test_a_return_alone_is_told_where_counts_differ(tmp_path: Path) -> None:
    np.save(tmp_path / "dev_ims.npy", np.ones((2, 3, 5), np.float32))
    (tmp_path / "dev_caps.txt").write_bytes(b"one\rtwo\n" + b"three\n" * 8)
    with refused(DataError, got=naming(2, 9), hint=["CR", 1, "dev_caps.txt"]):
        open_precomp(tmp_path, "dev")


@pytest.mark.parametrize(("returns", "wrong"), [(0, False), (1, False), (2, True), (40, True)])
def test_lines_that_end_in_different_ways_are_refused(
    tmp_path: Path, returns: int, wrong: bool
) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes((b"one\n" * 100).replace(b"\n", b"\r", returns))
    if wrong:
        error_of(path, got=naming(returns, "CR"), hint="tr '\\r' '\\n'")
    else:
        assert len(read_captions(path)) == 100 - returns


@pytest.mark.parametrize("end", [b"\r\n", b"\r\r\n", b" \r\n"])
def test_returns_before_the_end_of_a_line_are_part_of_it(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes((b"one" + end) * 100 + b"two\n")
    assert read_captions(path) == ["one"] * 100 + ["two"]


@pytest.mark.parametrize(
    "content",
    [b"a dog\0\nb\n", b"\0a dog\nb cat\n", b"a\n\0\nc\n" * 5],
    ids=["end", "beginning", "lines"],
)
def test_a_nul_is_named_with_its_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(content)
    line = 1 + content[: content.index(b"\0")].count(b"\n")
    error = error_of(path, got=naming("NUL"), hint="tr -d '\\000'")
    assert line_of(error, path) == line


@pytest.mark.parametrize(
    "end",
    [b"", b"\n", b"\n\n", b"\n\n\n\n", b"\r\n \t\r\n", b"\n  ", b"\n\r\n\n", b"\n\xc2\xa0\n"],
)
def test_blank_lines_at_the_end_are_no_captions(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(b"one\ntwo" + end)
    assert read_captions(path) == ["one", "two"]


def test_a_blank_line_before_the_end_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(b"one\n\ntwo\n\n")
    assert line_of(error_of(path), path) == 2


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("dev_caps.txt", TEXT)
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(CAPTIONS))
    return buffer.getvalue()


NAMED: dict[str, tuple[bytes, str, list[str]]] = {
    "gzip": (gzip.compress(TEXT.encode()), "gzip", ["gzip -dc", "dev_caps.txt"]),
    "bzip2": (bz2.compress(TEXT.encode()), "bzip2", ["bzip2 -dc", "dev_caps.txt"]),
    "zip": (zipped(), "zip", ["unzip -p", "dev_caps.txt"]),
    "npy": (npy(), "NumPy", ["dev_caps.txt", "UTF-8"]),
    "pickle": (pickle.dumps(CAPTIONS), "pickle", ["dev_caps.txt", "UTF-8"]),
    "pickle-of-python-2": (pickle.dumps(CAPTIONS, 0), "pickle", ["dev_caps.txt", "UTF-8"]),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", ["git lfs pull"]),
    "html": (b"<html><body>404</body></html>\n", "HTML", []),
    "json-object": (json.dumps({"images": [], "type": "captions"}).encode(), "'images'", []),
    "workbook": (b"PK\x03\x04\x14\x00\x06\x00\x08[Content_Types].xml", ".xlsx", ["dev_caps.txt"]),
    "json-numbers": (b"[1, 2, 3]", "JSON", []),
}


@pytest.mark.parametrize(("content", "got", "hint"), NAMED.values(), ids=NAMED)
def test_what_is_no_text_is_named(
    tmp_path: Path, content: bytes, got: str, hint: list[str]
) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(content)
    error_of(path, got=naming(got), hint=hint)


def test_a_file_of_zeros_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(bytes(100))
    known = recognise(bytes(100))
    assert known is not None
    error_of(path, got=known.name)


def table(separator: str, *, column: int) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator)
    for row, caption in enumerate(CAPTIONS):
        cells = [str(row), f"{row}.jpg"]
        cells.insert(column, caption)
        writer.writerow(cells)
    return buffer.getvalue()


def tsv(column: int) -> str:
    rows = ([str(row), f"{row}.jpg"] for row in range(len(CAPTIONS)))
    cells = ([*row[:column], text, *row[column:]] for row, text in zip(rows, CAPTIONS, strict=True))
    return "".join("\t".join(row) + "\n" for row in cells)


TABLES = {
    "tsv": ("dev_caps.tsv", tsv(1), "TSV"),
    "tsv-first": ("dev_caps.tsv", tsv(0), "TSV"),
    "tsv-last": ("dev_captions.tsv", tsv(2), "TSV"),
    "tsv-by-tabs": ("dev_caps.dat", tsv(1), "TSV"),
    "csv": ("dev_caps.csv", table(",", column=1), "CSV"),
    "csv-last": ("dev.csv", table(",", column=2), "CSV"),
    "json": ("dev_caps.json", json.dumps(CAPTIONS, ensure_ascii=False), "JSON"),
    "json-ascii": ("dev.json", json.dumps(CAPTIONS, indent=1), "JSON"),
}


@pytest.mark.parametrize(("name", "content", "kind"), TABLES.values(), ids=TABLES)
def test_captions_in_another_form_are_named_and_converted(
    tmp_path: Path, name: str, content: str, kind: str
) -> None:
    np.save(tmp_path / "dev_ims.npy", np.ones((1, 3, 5), np.float32))
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")

    with refused(DataError, expected="dev_caps.txt", got=naming(name, kind)) as found:
        open_precomp(tmp_path, "dev")

    type_python(found.error)
    assert open_precomp(tmp_path, "dev").captions == CAPTIONS


def test_a_json_list_under_the_name_of_the_captions_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_text(json.dumps(CAPTIONS, indent=2))
    type_python(error_of(path))
    assert read_captions(path) == CAPTIONS


@pytest.mark.parametrize("name", ["dev_caps.TXT", "dev_captions.txt", "dev.txt"])
def test_captions_of_another_name_are_to_be_renamed(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "dev_ims.npy", np.ones((1, 3, 5), np.float32))
    (tmp_path / name).write_bytes(TEXT.encode())
    with refused(
        DataError, expected="dev_caps.txt", got=naming(name), hint="dev_caps.txt"
    ) as found:
        open_precomp(tmp_path, "dev")
    assert "UTF-8" not in str(found.error.hint)  # which text need not be converted to


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("dev_caps.txt.gz", gzip.compress(TEXT.encode()), "gzip"),
        ("dev_caps.jsonl", b'{"caption": "a"}\n{"caption": "b"}\n', "JSON"),
        ("dev_caps.pkl", pickle.dumps(CAPTIONS), "pickle"),
        ("dev_caps.bin", b"\xff\xfa\x80" * 9, repr(b"\xff\xfa\x80" * 9)),
        ("dev_caps.txt.part", TEXT.encode("utf-16"), "UTF-16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_name_is_named(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    np.save(tmp_path / "dev_ims.npy", np.ones((1, 3, 5), np.float32))
    (tmp_path / name).write_bytes(content)
    with refused(DataError, expected="dev_caps.txt", got=naming(name, kind)):
        open_precomp(tmp_path, "dev")


@given(st.binary(max_size=300))
def test_any_bytes_are_lines_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "dev_caps.txt"
    path.write_bytes(content)
    with suppress(DataError):
        lines = read_captions(path)
        assert all(line and "\0" not in line and line == line.strip() for line in lines)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0")), min_size=1))
def test_lines_of_any_text_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "dev_caps.txt"
    path.write_text("".join(f"a {line} b\n" for line in lines), encoding="utf-8", newline="")
    assert read_captions(path) == [f"a {line} b" for line in lines]
