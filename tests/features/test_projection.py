"""Projections: what is computed, and what is refused of a file."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.features import projection
from sgraf_deploy.features.projection import read_content, read_projection

RANDOM = np.random.default_rng(8)
MEAN, MATRIX = RANDOM.standard_normal(6), RANDOM.standard_normal((6, 4))
ROWS = RANDOM.standard_normal((9, 6)).astype(np.float32)


def content_of(**arrays: Any) -> bytes:
    file = BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_rows_are_projected() -> None:
    found = read_projection(content_of(mean=MEAN, matrix=MATRIX), "pca.npz")(ROWS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (ROWS - MEAN) @ MATRIX, rtol=1e-6)


def test_rows_get_their_length_and_their_steps() -> None:
    content = content_of(mean=MEAN, matrix=MATRIX, row_norm=np.float32(4), rounding=64)
    found = read_projection(content, "pca.npz")(ROWS)
    wanted = (ROWS.astype(np.float64) - MEAN) @ MATRIX
    wanted *= 4 / np.linalg.norm(wanted, axis=1, keepdims=True)
    assert (found * 64 == np.rint(found * 64)).all()
    assert np.abs(found - wanted).max() <= 1 / 128 + 1e-6


def test_a_row_of_zeros_stays_one() -> None:
    content = content_of(mean=np.zeros(6), matrix=MATRIX, row_norm=4)
    assert not read_projection(content, "pca.npz")(np.zeros((2, 6), np.float32)).any()


def test_another_number_of_channels_is_refused() -> None:
    linear = read_projection(content_of(mean=MEAN, matrix=MATRIX), "pca.npz")
    with refused(DataError, expected=6, got=5):
        linear(ROWS[:, :5])


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"mean": MEAN},
        {"matrix": MATRIX},
        {"mean": MEAN, "matrix": MATRIX, "whitening": 1},
        {"mean": MEAN, "matrix": MATRIX.T},
        {"mean": MEAN[None], "matrix": MATRIX},
        {"mean": MEAN[:0], "matrix": MATRIX[:0]},
        {"mean": MEAN, "matrix": MATRIX[:, :0]},
        {"mean": MEAN, "matrix": MATRIX[0]},
        {"mean": MEAN * np.nan, "matrix": MATRIX},
        {"mean": MEAN, "matrix": MATRIX * np.inf},
        {"mean": MEAN.astype(str), "matrix": MATRIX},
        {"mean": MEAN.astype(complex), "matrix": MATRIX},
        {"mean": np.array([{}] * 6), "matrix": MATRIX},
        {"mean": MEAN, "matrix": MATRIX, "row_norm": 0},
        {"mean": MEAN, "matrix": MATRIX, "row_norm": [1, 2]},
        {"mean": MEAN, "matrix": MATRIX, "row_norm": np.inf},
        {"mean": MEAN, "matrix": MATRIX, "rounding": -64},
        {"mean": MEAN, "matrix": MATRIX, "rounding": "64"},
    ],
    ids=range(19),
)
def test_other_arrays_are_refused(arrays: dict[str, Any]) -> None:
    with refused(DataError, "pca.npz", hint="numpy.savez"):
        read_projection(content_of(**arrays), "pca.npz")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise RuntimeError('loaded')",)


def test_nothing_is_unpickled() -> None:
    with refused(DataError, "pca.npz") as found:
        read_projection(content_of(mean=np.array([Evil()]), matrix=MATRIX), "pca.npz")
    assert not isinstance(found.error.__cause__, RuntimeError)


def packed(name: str, content: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def npy() -> bytes:
    file = BytesIO()
    np.save(file, MEAN)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        npy(),
        packed("mean.npy", b"text"),
        packed("mean.npy", npy()[:-9]),
        packed("mean.npy", npy().replace(b"(6,)", b"(6000000000000,)")),
        content_of(mean=MEAN, matrix=MATRIX)[:-40],
        content_of(mean=MEAN, matrix=MATRIX).replace(npy()[-20:], bytes(20)),
    ],
    ids=["empty", "text", "npy", "text in a zip", "cut", "huge", "cut zip", "checksum"],
)
def test_what_is_no_file_of_arrays_is_refused(content: bytes) -> None:
    with refused(DataError, "pca.npz"):
        read_projection(content, "pca.npz")


def test_too_large_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed("mean.npy", bytes(100_000))
    monkeypatch.setattr(projection, "MOST_BYTES", 50_000)
    assert len(content) < 1000
    with refused(DataError, "pca.npz", expected=naming(50_000), got=100_000):
        read_projection(content, "pca.npz")
    with (tmp_path / "pca.npz").open("wb") as file:
        file.truncate(50_001)
    with refused(DataError, tmp_path / "pca.npz", expected=naming(50_000)):
        read_content(tmp_path / "pca.npz")
    with refused(DataError, tmp_path / "none.npz"):
        read_content(tmp_path / "none.npz")
