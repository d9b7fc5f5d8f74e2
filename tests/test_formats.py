"""Files are told by their first bytes, and pickles by what they say, without being run."""

from __future__ import annotations

import argparse
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.refusals import holds

from sgraf_deploy.formats import HEAD, python3_name, recognise, scan_pickles


@given(st.binary(max_size=700))
def test_any_bytes_are_recognised_or_not_but_never_fail(content: bytes) -> None:
    known = recognise(content)
    assert known is None or known.name
    scan_pickles(io.BytesIO(content))


COMPRESSED = [(b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz")]


@given(st.binary(max_size=60), st.sampled_from(COMPRESSED))
def test_damaged_compressed_files_are_recognised(content: bytes, kind: tuple[bytes, str]) -> None:
    magic, name = kind
    known = recognise(magic + content)
    assert known is not None
    assert holds(known.name, name)
    assert known.hint is not None
    assert holds(known.hint, f"{name} -dc")


def test_a_file_of_nothing_is_not_called_a_file_of_zeros() -> None:
    names = {known.name for content in (b"", bytes(300)) if (known := recognise(content))}
    assert len(names) == 2


@given(st.text(min_size=1, max_size=3 * HEAD))
def test_text_is_never_a_binary_file(text: str) -> None:
    head = text.encode("utf-8", "replace")[:HEAD]
    known = recognise(head)
    if not any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        assert known is not None


class Own:
    pass


SCANNED: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "plain": (lambda: {"a": [1, 2.5, None, "b"], "c": (True,)}, set()),
    "namespace": (lambda: argparse.Namespace(a=1), {"argparse.Namespace"}),
    "ordered-dict": (lambda: OrderedDict(a=1), {"collections.OrderedDict"}),
    "own": (Own, {f"{__name__}.Own"}),
    "function": (lambda: eval, {"builtins.eval"}),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(("make", "names"), SCANNED.values(), ids=SCANNED)
def test_the_names_in_a_pickle_are_found(
    make: Callable[[], Any], names: set[str], protocol: int
) -> None:
    found = scan_pickles(io.BytesIO(pickle.dumps(make(), protocol)))
    assert found.found
    assert names <= set(found.names)
    assert not names or found.names


def test_names_of_python_2_are_translated() -> None:
    assert python3_name("__builtin__.eval") == "builtins.eval"
    assert python3_name("copy_reg._reconstructor") == "copyreg._reconstructor"
    assert python3_name("commands.Popen") == "subprocess.Popen"
    assert python3_name("vocab.Vocabulary") == "vocab.Vocabulary"


def test_names_after_the_first_pickles_are_not_looked_for() -> None:
    many = pickle.dumps(1) * 5 + pickle.dumps(eval)
    assert scan_pickles(io.BytesIO(many)).names == ()
