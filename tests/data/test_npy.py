from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.refusals import naming, refused

from sgraf_deploy.data.npy import MAGIC, Header, kind_of, read_header
from sgraf_deploy.errors import DataError

ARRAY = np.zeros((4, 3, 5), dtype=np.float32)


def npy(array: np.ndarray[Any, Any], version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def with_header(text: str, version: int = 1) -> bytes:
    content = text.encode("utf-8")
    size = len(content).to_bytes(2 if version == 1 else 4, "little")
    return MAGIC + bytes((version, 0)) + size + content


def header_of(content: bytes) -> Header:
    return read_header(io.BytesIO(content), "features")


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "|O", "<c8", "|b1", "|S3"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_writes_is_read(version: int, dtype: str, order: Any) -> None:
    content = npy(np.asarray(ARRAY.astype(dtype), order=order), (version, 0))

    found = header_of(content)

    assert found.shape == ARRAY.shape
    assert found.dtype == dtype
    assert found.fortran_order == (order == "F")
    if dtype != "|O":
        assert len(content) - found.offset == ARRAY.size * np.dtype(dtype).itemsize


def test_records_are_told_as_such() -> None:
    records = np.zeros(3, dtype=[("features", "<f4", (2,)), ("né", "<i4")])
    found = header_of(npy(records, (3, 0)))
    assert found.kind not in {kind_of(f"<{letter}4") for letter in "biufcSUmMOV"}
    assert found.kind != kind_of("?")
    assert "'né'" in found.dtype


def test_a_header_of_python_2_is_read() -> None:
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (4L, 36L, 2048L), }\n"
    assert header_of(with_header(text)).shape == (4, 36, 2048)


@pytest.mark.parametrize(
    "fields",
    [
        "'shape': (True, 2, 2)",
        "'shape': (-1, 2, 2)",
        "'shape': (2.0, 2, 2)",
        "'shape': [2, 2, 2]",
        "'shape': 2",
        "'shape': (2, 2, 2), 'more': 1",
        "'form': (2, 2, 2)",
        "'shape': (2, 2, 2), 'fortran_order': 0",
        "'shape': (2, 2, __import__('os').getpid())",
    ],
)
def test_what_is_no_header_is_refused(fields: str) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, {fields}}}"
    with refused(DataError, "features", got=repr(text.encode()[:60]), hint="numpy.save"):
        header_of(with_header(text))


@pytest.mark.parametrize("cut", [6, 7, 8, 9, 10, 40, 79])
def test_a_file_that_ends_in_its_header_is_truncated(cut: int) -> None:
    with refused(DataError, "features", hint=[]) as found:
        header_of(npy(ARRAY)[:cut])
    assert "numpy.save" not in str(found.error.hint)  # as for what is no header


@pytest.mark.parametrize("version", [(0, 0), (1, 1), (4, 0), (255, 7)])
def test_an_unknown_version_is_named(version: tuple[int, int]) -> None:
    content = MAGIC + bytes(version) + npy(ARRAY)[8:]
    got = f"{version[0]}.{version[1]}"
    with refused(DataError, "features", expected=naming("1.0", "2.0", "3.0"), got=got):
        header_of(content)


def test_a_header_too_long_for_the_parser_is_refused() -> None:
    with refused(DataError, "features", got=repr(b"(" * 60), hint="numpy.save"):
        header_of(with_header("(" * 200_000, version=2))


@pytest.mark.filterwarnings("ignore:invalid:SyntaxWarning", "ignore:invalid:DeprecationWarning")
@given(st.binary(max_size=200), st.sampled_from([1, 2, 3]))
def test_any_header_is_read_or_a_data_error(content: bytes, version: int) -> None:
    size = len(content).to_bytes(2 if version == 1 else 4, "little")
    with suppress(DataError):
        header_of(MAGIC + bytes((version, 0)) + size + content)
