"""Files that must not be read: damaged, foreign or hostile."""

from __future__ import annotations

import argparse
import enum
import importlib
import io
import optparse
import os
import pickle
import random
import re
import subprocess
import tomllib
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
from authors_checkpoint import SAF, SGR, authors_payload
from python2_pickle import python2_checkpoint

from sgraf_deploy.errors import CheckpointError, UnavailableError
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.model.untrusted import OLDEST_TORCH

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


def refusal(folder: Path, content: bytes) -> str:
    """The one line, less the path, that refuses a file of this content."""
    path = folder / "checkpoint.pth.tar"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


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
    message = refusal(tmp_path, write({"epoch": 1, "model": [], "opt": Hostile(mark)}))
    assert message.startswith("refused: ")
    assert f"{os.system.__module__}.system in its pickle" in message
    assert "untrusted" in message
    assert "weights_only" not in message, "what could run code must not be recommended"
    assert not mark.exists()


class Mode(enum.Enum):
    FAST = "fast"


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
    "class-itself": (Settings, f"{__name__}.Settings itself"),
    "function-itself": (torch.nn.functional.gelu, "torch._C._nn.gelu itself"),
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
    "numpy-text": (np.str_("a"), "numpy scalar of type U1"),
    "numpy-date": (np.datetime64("2024-01-01"), "numpy scalar of type M8"),
    "numpy-type": (np.float32, "numpy.float32 itself"),
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
        said = f"left out of opt, being no plain values: extra ({name})"
        assert said in checkpoint.inferred


def test_a_module_in_the_newer_format_is_left_out(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["opt"].extra = torch.nn.Linear(1, 1)
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(torch_bytes(payload))
    said = "left out of opt, being no plain values: extra (torch.nn.modules.linear.Linear)"
    assert said in read_checkpoint(path).inferred


def test_a_module_in_the_older_format_is_named(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["opt"].extra = torch.nn.Linear(1, 1)
    message = refusal(tmp_path, torch_bytes(payload, zipped=False))
    assert "got a whole module, of torch.nn.modules.linear.Linear; " in message


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
    message = refusal(tmp_path, torch_bytes(payload, zipped=zipped))
    assert message.startswith("refused: ")
    assert name in message
    assert "weights_only" not in message


@pytest.mark.parametrize("option", ["no_imgnorm", "no_txtnorm"])
def test_an_option_that_no_tensor_tells_must_be_plain(tmp_path: Path, option: str) -> None:
    payload = authors_payload(SGR)
    setattr(payload["opt"], option, Mode.FAST)
    message = refusal(tmp_path, torch_bytes(payload))
    assert message == f"opt.{option}: expected True or False, got {__name__}.Mode"


def test_a_foreign_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    content = torch_bytes(authors_payload(SGR), zipped=False)
    hostile = content.replace(b"argparse\nNamespace\n", b"argp\x1b[2J\nNamespace\n")
    assert hostile != content
    assert "argp\\x1b[2J.Namespace" in refusal(tmp_path, hostile)


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
    with pytest.raises(UnavailableError, match=f"got {re.escape(version)}") as caught:
        read_checkpoint(path)
    assert caught.value.mend == f"pip install 'torch>={OLDEST_TORCH}'"


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
        refusal(tmp_path, torch_bytes({"model": Fraction(1, 2)}))
        refusal(tmp_path, torch_bytes({"model": eval}))
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
    assert refusal(tmp_path, content[:size]).startswith("truncated or damaged: ")


@pytest.mark.parametrize("name", ["argparse\nNamespace\n", "torch._utils\n_rebuild_tensor_v2\n"])
def test_a_file_cut_within_a_name_is_not_blamed_for_the_name(tmp_path: Path, name: str) -> None:
    content = python2_checkpoint(authors_payload(SGR))
    start = content.index(f"c{name}".encode())
    for size in range(2, len(name) + 1):
        message = refusal(tmp_path, content[: start + size])
        assert message.startswith("truncated or damaged: ")


def test_one_wrong_bit_in_a_zip_is_found(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    needle = payload["model"][1]["embed.weight"].numpy().tobytes()
    content = bytearray(torch_bytes(payload))
    content[content.index(needle) + 10] ^= 1
    message = refusal(tmp_path, bytes(content))
    assert message.startswith("truncated or damaged: ")
    assert "does not match its checksum" in message


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
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match=r"not a file: expected .* inside the folder"):
        read_checkpoint(tmp_path)


def test_what_the_system_refuses_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read: got File name too long"):
        read_checkpoint(tmp_path / ("x" * 300))


def test_a_long_string_of_python_2_is_said_to_be_unreadable(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["opt"].data_path = "x" * 300
    message = refusal(tmp_path, python2_checkpoint(payload))
    assert message.startswith("its pickle cannot be read safely: ")
    assert "got opcode BINSTRING; " in message
    assert "save a clean copy" in message


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
    message = refusal(tmp_path, number_of(kind, data))
    assert message.startswith("its pickle cannot be read safely: ")
    assert "numpy" in message
