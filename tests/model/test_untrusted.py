"""Files that must not be read: damaged, foreign or hostile."""

from __future__ import annotations

import argparse
import enum
import errno
import importlib
import io
import optparse
import os
import pickle
import random
import re
import subprocess
import tomllib
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.authors_checkpoint import SAF, SGR, authors_payload
from support.python2_pickle import python2_checkpoint
from support.refusals import check_error, naming, refused
from support.refusing import is_damaged, is_noted, refusal

from sgraf_deploy.errors import CheckpointError, UnavailableError
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.model.untrusted import CLEAN, OLDEST_TORCH

ZIPPED = {"zip": True, "legacy": False}


class Hostile:
    """Unpickling it runs a command that leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def torch_bytes(payload: object, *, zipped: bool = True, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer, _use_new_zipfile_serialization=zipped, **options)
    return buffer.getvalue()


def written(folder: Path, content: bytes | bytearray) -> Path:
    path = folder / "checkpoint.pth.tar"
    path.write_bytes(content)
    return path


def assert_refused(folder: Path, content: bytes, name: str) -> None:
    """A file of this content names what could run code, and that is what is said of it."""
    error = refusal(written(folder, content))
    check_error(error, got=naming(name), hint="argparse.Namespace")
    assert "weights_only" not in str(error), "what could run code must not be recommended"


def assert_unsafe(folder: Path, content: bytes, name: str) -> CheckpointError:
    """The error for a file of this content, which is whole, but cannot be read without trust."""
    path = written(folder, content)
    error = refusal(path)
    check_error(error, expected=naming("torch.save"), got=naming(name), hint=naming())
    assert not is_damaged(error, path)
    return error


WRITERS: dict[str, Callable[[Any], bytes]] = {
    "zip": torch_bytes,
    "legacy": lambda payload: torch_bytes(payload, zipped=False),
    "zip-protocol-4": lambda payload: torch_bytes(payload, pickle_protocol=4),
    "legacy-protocol-4": lambda payload: torch_bytes(payload, zipped=False, pickle_protocol=4),
    "pickle-protocol-0": lambda payload: pickle.dumps(payload, protocol=0),
    "pickle-protocol-2": lambda payload: pickle.dumps(payload, protocol=2),
    "pickle-protocol-5": lambda payload: pickle.dumps(payload, protocol=5),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_hostile_pickle_is_refused_by_name_and_not_run(
    tmp_path: Path, write: Callable[[Any], bytes]
) -> None:
    mark = tmp_path / "ran"
    content = write({"epoch": 1, "model": [], "opt": Hostile(mark)})
    assert_refused(tmp_path, content, f"{os.system.__module__}.system")
    assert not mark.exists()


class Mode(enum.Enum):
    FAST = "fast"

    def __reduce_ex__(self, protocol: object) -> tuple[type[Mode], tuple[str]]:
        """As every Python since 3.11.4 pickles it; those before ask for `getattr`."""
        return Mode, (self.value,)


class Settings:
    """A class of the training's code, which nobody else has."""

    def __init__(self) -> None:
        self.rate = 0.1


LEFT_OUT: dict[str, tuple[object, str | None]] = {
    "path": (PurePosixPath("runs/x"), "pathlib.PurePosixPath"),
    "datetime": (datetime(2024, 1, 1, tzinfo=UTC), "datetime.datetime"),
    "duration": (timedelta(3), "datetime.timedelta"),
    "decimal": (Decimal("0.1"), "decimal.Decimal"),
    "fraction": (Fraction(1, 2), "fractions.Fraction"),
    "enum": (Mode.FAST, f"{__name__}.Mode"),
    "own-class": (Settings(), f"{__name__}.Settings"),
    "class-itself": (Settings, f"{__name__}.Settings"),
    "function-itself": (torch.nn.functional.gelu, "torch._C._nn.gelu"),
    "partial": (partial(int, base=2), "functools.partial"),
    "old-options": (optparse.Values({"a": 1}), "optparse.Values"),
    "pattern": (re.compile("a+"), "re._compile"),
    "queue": (deque([1, 2]), None),
    "counting-dict": (defaultdict(list, a=[1]), None),
    "namespace": (SimpleNamespace(a=1), "Namespace"),
    "device": (torch.device("cuda:0"), "device"),
    "dtype": (torch.float16, "dtype"),
    "numpy-array": (np.zeros(2), "numpy.ndarray"),
    "numpy-texts": (np.array(["a", "bc"]), "numpy.ndarray"),
    "numpy-objects": (np.array([None, 1], dtype=object), "numpy.ndarray"),
    "numpy-text": (np.str_("a"), "U1"),
    "numpy-date": (np.datetime64("2024-01-01"), "M8"),
    "numpy-type": (np.float32, "numpy.float32"),
    "bytes": (b"abc", "bytes"),
    "set": ({1, 2}, "set"),
}
"""Values of options that are not needed, and what a message calls them; None: plain data."""


@pytest.mark.parametrize("zipped", ZIPPED.values(), ids=ZIPPED)
@pytest.mark.parametrize(("value", "name"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_an_option_of_a_foreign_class_is_left_out_and_said(
    tmp_path: Path, value: object, name: str | None, zipped: bool
) -> None:
    payload = authors_payload(SGR)
    payload["opt"].extra = value
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(torch_bytes(payload, zipped=zipped))
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == SGR
    if name is None:
        assert "extra" in checkpoint.options
    else:
        assert "extra" not in checkpoint.options
        assert is_noted(checkpoint.inferred, "opt", "extra", name)


def test_a_module_in_the_newer_format_is_left_out(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["opt"].extra = torch.nn.Linear(1, 1)
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(torch_bytes(payload))
    notes = read_checkpoint(path).inferred
    assert is_noted(notes, "opt", "extra", "torch.nn.modules.linear.Linear")


def test_a_module_in_the_older_format_is_named(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["opt"].extra = torch.nn.Linear(1, 1)
    content = torch_bytes(payload, zipped=False)
    assert_unsafe(tmp_path, content, "torch.nn.modules.linear.Linear")


def test_a_foreign_class_beside_the_model_is_not_needed(tmp_path: Path) -> None:
    payload = {**authors_payload(SGR), "scheduler": Settings(), "when": datetime.now(UTC)}
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(torch_bytes(payload))
    assert read_checkpoint(path).config == SGR


@pytest.mark.parametrize("zipped", ZIPPED.values(), ids=ZIPPED)
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (argparse.ArgumentParser, "argparse.ArgumentParser"),
        (subprocess.Popen, "subprocess.Popen"),
        (importlib.import_module, "importlib.import_module"),
        (os.getcwd, f"{os.getcwd.__module__}.getcwd"),
        (pickle.loads, "pickle.loads"),
    ],
    ids=["eval", "getattr", "near-namespace", "process", "import", "system", "pickle"],
)
def test_what_could_run_code_is_refused_by_name(
    tmp_path: Path, value: object, name: str, zipped: bool
) -> None:
    payload = authors_payload(SGR)
    payload["opt"].extra = value
    assert_refused(tmp_path, torch_bytes(payload, zipped=zipped), name)


@pytest.mark.parametrize("option", ["no_imgnorm", "no_txtnorm"])
def test_an_option_that_no_tensor_tells_must_be_plain(tmp_path: Path, option: str) -> None:
    payload = authors_payload(SGR)
    setattr(payload["opt"], option, Mode.FAST)
    error = refusal(written(tmp_path, torch_bytes(payload)))
    expected, got = naming("True", "False"), f"{__name__}.Mode"
    check_error(error, f"opt.{option}", expected=expected, got=got)


def test_a_foreign_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    content = torch_bytes(authors_payload(SGR), zipped=False)
    hostile = content.replace(b"argparse\nNamespace\n", b"argp\x1b[2J\nNamespace\n")
    assert hostile != content
    error = refusal(written(tmp_path, hostile))
    check_error(error, got=naming("argp\\x1b[2J.Namespace"))


@pytest.mark.parametrize("version", ["1.13.1", "2.9.1+cu130", "2.10.0a0+12345"])
def test_a_pytorch_that_reads_unsafely_is_refused_before_the_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(torch_bytes(authors_payload(SGR)))

    def refuse(*_: object) -> None:
        raise AssertionError("the file was opened")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(torch, "__version__", version)
    with refused(
        UnavailableError,
        expected=naming(OLDEST_TORCH),
        got=version,
        hint=f"pip install 'torch>={OLDEST_TORCH}'",
    ):
        read_checkpoint(path)


def test_every_extra_asks_for_a_pytorch_that_reads_safely() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    asked = {name for extra in extras for name in extra if re.match(r"torch\b", name)}
    assert asked == {f"torch>={OLDEST_TORCH}"}


@pytest.mark.parametrize("known", [False, True], ids=["unknown-before", "known-before"])
def test_the_process_allows_afterwards_what_it_allowed_before(tmp_path: Path, known: bool) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    before = set(torch.serialization.get_safe_globals())
    own: list[Any] = [argparse.Namespace] if known else []
    with torch.serialization.safe_globals(own):
        path.write_bytes(torch_bytes(authors_payload(SGR)))
        read_checkpoint(path)
        refusal(written(tmp_path, torch_bytes({"model": Fraction(1, 2)})))
        refusal(written(tmp_path, torch_bytes({"model": eval})))
        assert set(torch.serialization.get_safe_globals()) == before | set(own)
    assert set(torch.serialization.get_safe_globals()) == before


def test_threads_may_read_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(torch_bytes(authors_payload(SGR)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read_checkpoint, [path] * 40))
    assert {checkpoint.config for checkpoint in found} == {SGR}


@pytest.mark.parametrize("kept", [4, 14, 15, 60, 2000, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "python-2"])
def test_a_truncated_file_is_said_to_be(tmp_path: Path, kind: str, kept: int | float) -> None:
    payload = authors_payload(SGR)
    content = python2_checkpoint(payload) if kind == "python-2" else WRITERS[kind](payload)
    size = int(kept * len(content)) if isinstance(kept, float) else kept
    path = written(tmp_path, content[:size])
    assert is_damaged(refusal(path), path)


@pytest.mark.parametrize("name", ["argparse\nNamespace\n", "torch._utils\n_rebuild_tensor_v2\n"])
def test_a_file_cut_within_a_name_is_not_blamed_for_the_name(tmp_path: Path, name: str) -> None:
    content = python2_checkpoint(authors_payload(SGR))
    start = content.index(f"c{name}".encode())
    for size in range(2, len(name) + 1):
        path = written(tmp_path, content[: start + size])
        assert is_damaged(refusal(path), path)


def test_one_wrong_bit_in_a_zip_is_found(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    needle = payload["model"][1]["embed.weight"].numpy().tobytes()
    content = bytearray(torch_bytes(payload))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (member,) = (name for name in archive.namelist() if needle in archive.read(name))
    content[content.index(needle) + 10] ^= 1
    path = written(tmp_path, content)
    error = refusal(path)
    assert is_damaged(error, path)
    check_error(error, got=naming(member))


@pytest.mark.parametrize("zipped", ZIPPED.values(), ids=ZIPPED)
def test_wrong_bits_anywhere_are_refused_or_change_a_number(tmp_path: Path, zipped: bool) -> None:
    content = torch_bytes(authors_payload(SAF), zipped=zipped)
    path = tmp_path / "checkpoint.pth.tar"
    chance = random.Random(5)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[chance.randrange(6000)] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except CheckpointError:
            refused += 1
    assert refused > 20


def test_a_missing_file_and_a_folder_are_said_to_be(tmp_path: Path) -> None:
    check_error(refusal(tmp_path / "absent.pth"), expected=None, got=None)
    check_error(refusal(tmp_path), expected=naming("torch.save"), hint=naming())


def test_what_the_system_refuses_is_said(tmp_path: Path) -> None:
    check_error(refusal(tmp_path / ("x" * 300)), got=os.strerror(errno.ENAMETOOLONG))


def test_a_long_string_of_python_2_is_said_to_be_unreadable(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["opt"].data_path = "x" * 300
    error = assert_unsafe(tmp_path, python2_checkpoint(payload), "BINSTRING")
    check_error(error, hint=["torch.load", CLEAN])


def number_of(kind: bytes, data: bytes) -> bytes:
    """A legacy file whose `epoch` is a numpy number of raw bytes."""
    content = python2_checkpoint({"epoch": np.float64(1.5)})
    old = np.float64(1.5).tobytes()
    written = content.replace(b"U\x02f8", b"U" + bytes([len(kind)]) + kind)
    return written.replace(b"U\x08" + old, b"U" + bytes([len(data)]) + data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [(b"O8", b"12345678"), (b"V8", b"12345678"), (b"f8", b"1234"), (b"f99", b"12345678")],
    ids=["object", "record", "too-few-bytes", "no-such-type"],
)
def test_a_numpy_number_that_is_none_is_refused(tmp_path: Path, kind: bytes, data: bytes) -> None:
    assert_unsafe(tmp_path, number_of(kind, data), "numpy")
