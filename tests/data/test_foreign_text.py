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
from data.hinted import type_python
from hypothesis import given
from hypothesis import strategies as st

from sgraf_deploy.data.captions import read_captions
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.errors import DataError

CAPTIONS = ["a dog; it runs", 'the "red" café, by night', "two cats", "1 bird", "x"]
TEXT = "\n".join(CAPTIONS) + "\n"


def refused(path: Path) -> DataError:
    with pytest.raises(DataError, match=r"dev_caps\.txt") as caught:
        read_captions(path)
    assert str(caught.value).isprintable()
    assert caught.value.mend
    return caught.value


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
    error = refused(path)
    assert f"got text in {encoding[:6].upper()}" in error.reason
    assert "named dev_caps.txt" in (error.mend or "")


@pytest.mark.parametrize("encoding", WIDE)
def test_the_command_of_the_hint_converts_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(TEXT.encode(encoding))
    mend = refused(path).mend or ""
    command = mend.partition("convert it: ")[2].partition(" FILE")[0].split()
    try:
        found = subprocess.run([*command, path], capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("needs iconv")
    path.write_bytes(found)
    assert read_captions(path) == CAPTIONS


def test_latin_1_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(TEXT.encode("latin-1"))
    error = refused(path)
    assert "line 2: expected UTF-8, got byte 0xe9" in error.reason
    assert "iconv -f ISO-8859-1" in (error.mend or "")


@pytest.mark.parametrize("end", [b"", b"\r", b"\r\r", b"\n", b"\r\n"])
def test_returns_alone_end_no_lines(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(TEXT.strip().encode().replace(b"\n", b"\r") + end)
    error = refused(path)
    assert "CR alone at the end of 5 lines" in error.reason
    assert "tr '\\r' '\\n'" in (error.mend or "")


def test_a_return_alone_is_told_where_counts_differ(tmp_path: Path) -> None:
    np.save(tmp_path / "dev_ims.npy", np.ones((2, 3, 5), np.float32))
    (tmp_path / "dev_caps.txt").write_bytes(b"one\rtwo\n" + b"three\n" * 8)
    with pytest.raises(DataError, match="got 2 rows and 9 captions; CRs stand within 1 of"):
        open_precomp(tmp_path, "dev")


@pytest.mark.parametrize(("returns", "refused_"), [(0, False), (1, False), (2, True), (40, True)])
def test_lines_that_end_in_different_ways_are_refused(
    tmp_path: Path, returns: int, refused_: bool
) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes((b"one\n" * 100).replace(b"\n", b"\r", returns))
    if refused_:
        assert f"{returns} lines that end in CR alone among" in refused(path).reason
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
    assert f"line {line}: expected text, got a NUL byte" in refused(path).reason


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
    assert "line 2: expected one entry per line, got a blank line" in refused(path).reason


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("dev_caps.txt", TEXT)
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(CAPTIONS))
    return buffer.getvalue()


NAMED = {
    "gzip": (gzip.compress(TEXT.encode()), "a file compressed with gzip", "named dev_caps.txt"),
    "bzip2": (bz2.compress(TEXT.encode()), "a file compressed with bzip2", "named dev_caps.txt"),
    "zip": (zipped(), "a zip archive", "unzip -p"),
    "npy": (npy(), "a NumPy array", "one a line"),
    "pickle": (pickle.dumps(CAPTIONS), "a pickle", "one a line"),
    "pickle-of-python-2": (pickle.dumps(CAPTIONS, 0), "a pickle", "one a line"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
    "html": (b"<html><body>404</body></html>\n", "an HTML page", "download it again"),
    "json-object": (json.dumps({"images": [], "type": "captions"}).encode(), "a JSON object", ""),
    "workbook": (
        b"PK\x03\x04\x14\x00\x06\x00\x08[Content_Types].xml",
        "an Office document",
        "as text",
    ),
    "json-numbers": (b"[1, 2, 3]", "a JSON document", ""),
    "zeros": (bytes(100), "a file of zero bytes", "again"),
}


@pytest.mark.parametrize(("content", "name", "mend"), NAMED.values(), ids=NAMED)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, name: str, mend: str) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(content)
    error = refused(path)
    assert f"got {name}" in error.reason
    assert mend in (error.mend or "")


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
    "tsv": ("dev_caps.tsv", tsv(1), "a table (TSV)"),
    "tsv-first": ("dev_caps.tsv", tsv(0), "a table (TSV)"),
    "tsv-last": ("dev_captions.tsv", tsv(2), "a table (TSV)"),
    "tsv-by-tabs": ("dev_caps.dat", tsv(1), "a table (TSV)"),
    "csv": ("dev_caps.csv", table(",", column=1), "a table (CSV)"),
    "csv-last": ("dev.csv", table(",", column=2), "a table (CSV)"),
    "json": ("dev_caps.json", json.dumps(CAPTIONS, ensure_ascii=False), "a JSON list of 5 texts"),
    "json-ascii": ("dev.json", json.dumps(CAPTIONS, indent=1), "a JSON list of 5 texts"),
}


@pytest.mark.parametrize(("name", "content", "kind"), TABLES.values(), ids=TABLES)
def test_captions_in_another_form_are_named_and_converted(
    tmp_path: Path, name: str, content: str, kind: str
) -> None:
    np.save(tmp_path / "dev_ims.npy", np.ones((1, 3, 5), np.float32))
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")

    with pytest.raises(DataError, match=r"expected dev_caps\.txt, got") as caught:
        open_precomp(tmp_path, "dev")

    assert f"{name}, {kind}" in caught.value.reason
    type_python(caught.value)
    assert open_precomp(tmp_path, "dev").captions == CAPTIONS


def test_a_json_list_under_the_name_of_the_captions_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_text(json.dumps(CAPTIONS, indent=2))
    type_python(refused(path))
    assert read_captions(path) == CAPTIONS


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("dev_caps.TXT", TEXT.encode(), "text"),
        ("dev_captions.txt", TEXT.encode(), "text"),
        ("dev.txt", TEXT.encode(), "text"),
        ("dev_caps.txt.gz", gzip.compress(TEXT.encode()), "compressed with gzip"),
        ("dev_caps.jsonl", b'{"caption": "a"}\n{"caption": "b"}\n', "JSON, a document a line"),
        ("dev_caps.pkl", pickle.dumps(CAPTIONS), "a pickle"),
        ("dev_caps.bin", b"\xff\xfa\x80" * 9, "bytes that begin"),
        ("dev_caps.txt.part", TEXT.encode("utf-16"), "text in UTF-16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_name_is_named(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    np.save(tmp_path / "dev_ims.npy", np.ones((1, 3, 5), np.float32))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"expected dev_caps\.txt, got") as caught:
        open_precomp(tmp_path, "dev")
    assert name in caught.value.reason
    assert says in caught.value.reason
    if says == "text":
        assert caught.value.mend == "rename it to dev_caps.txt"


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
