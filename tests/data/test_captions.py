from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.located import line_of
from support.refusals import naming, refused

from sgraf_deploy.data.captions import CaptionStats, encode_captions, read_captions
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.errors import DataError


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary((*SPECIAL_WORDS, "a", "dog", "."))


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        pytest.param(b"one\ntwo\n", ["one", "two"], id="newline-at-the-end"),
        pytest.param(b"one\ntwo", ["one", "two"], id="no-newline-at-the-end"),
        pytest.param(b"one\r\ntwo\r\n", ["one", "two"], id="crlf"),
        pytest.param(b"one\r\ntwo", ["one", "two"], id="crlf-without-the-last"),
        pytest.param(b"one\rtwo\n", ["one\rtwo"], id="cr-alone-ends-no-line"),
        pytest.param(b"one\r\ntwo\n", ["one", "two"], id="mixed-line-ends"),
        pytest.param(b"\xef\xbb\xbfone\ntwo\n", ["one", "two"], id="byte-order-mark"),
        pytest.param(b"  one \t\n two\n", ["one", "two"], id="white-space-around"),
        pytest.param("één\ncafé ☕\n".encode(), ["één", "café ☕"], id="beyond-ascii"),
        pytest.param("o\u2028ne\x0ct\u0085wo\n".encode(), ["o\u2028ne\x0ct\u0085wo"], id="only-lf"),
    ],
)
def test_read_captions(tmp_path: Path, content: bytes, captions: list[str]) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(content)
    assert read_captions(path) == captions


@pytest.mark.parametrize(
    ("content", "line", "fields"),
    [
        pytest.param(
            b"one\ncaf\xe9\nx\n", 2, {"expected": "UTF-8", "got": naming("0xe9", 3)}, id="latin"
        ),
        pytest.param("one\n".encode("utf-16"), None, {"got": naming("UTF-16")}, id="utf-16"),
        pytest.param(b"one\n\xed\xa0\x80\n", 2, {"expected": "UTF-8"}, id="surrogate"),
        pytest.param(b"\n", None, {"got": None}, id="only-a-newline"),
        pytest.param(b"\r\n \n", None, {"got": None}, id="only-blank-lines"),
        pytest.param(b"", None, {"got": None}, id="empty-file"),
        pytest.param(b"\xef\xbb\xbf", None, {"got": None}, id="only-a-byte-order-mark"),
    ],
)
def test_bad_caption_files(
    tmp_path: Path, content: bytes, line: int | None, fields: dict[str, object]
) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(content)
    with refused(DataError, path, **fields) as found:
        read_captions(path)
    assert line_of(found.error, path) == line


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"one\n\ntwo\n", 2), (b"one\r\n \t\r\ntwo\r\n", 2), (b"\none\n", 1)],
    ids=["blank-line", "white-space-only", "blank-line-first"],
)
def test_a_blank_line_is_named(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(content)
    with refused(DataError, path) as found:
        read_captions(path)
    assert line_of(found.error, path) == line
    assert found.error.expected != "UTF-8"


@pytest.mark.parametrize(
    ("name", "code"), [("absent.txt", errno.ENOENT), (".", errno.EISDIR)], ids=["missing", "folder"]
)
def test_unreadable_caption_files(tmp_path: Path, name: str, code: int) -> None:
    with refused(DataError, tmp_path / name, got=os.strerror(code)):
        read_captions(tmp_path / name)


def test_encode_captions(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    encoded, stats = encode_captions(["A dog.", "zebras graze", "a  zebra"], tokenizer, vocabulary)
    assert [ids.tolist() for ids in encoded] == [[1, 4, 5, 6, 2], [1, 3, 3, 2], [1, 4, 3, 2]]
    assert {ids.dtype for ids in encoded} == {np.dtype(np.int32)}
    assert stats == CaptionStats(captions=3, tokens=7, unknown=3)
    assert stats.unknown_rate == pytest.approx(3 / 7)


def test_no_captions_are_no_error(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    encoded, stats = encode_captions([], tokenizer, vocabulary)
    assert encoded == []
    assert stats.unknown_rate == 0


def test_a_literal_unk_is_text_like_any_other(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    (ids,), stats = encode_captions(["<unk>"], tokenizer, vocabulary)
    assert ids.tolist() == [1, 3, 3, 3, 2]  # '<', 'unk', '>'
    assert stats.unknown == 3


@pytest.mark.parametrize(
    ("captions", "name", "got"),
    [
        pytest.param(["a dog", ""], "caption 1", "''", id="empty"),
        pytest.param([" \t\n"], "caption 0", repr(" \t\n"), id="blank"),
        pytest.param(["a", "a", None], "caption 2", "NoneType", id="none"),
        pytest.param([b"a dog"], "caption 0", "bytes", id="bytes"),
    ],
)
def test_bad_captions(
    tokenizer: Tokenizer, vocabulary: Vocabulary, captions: Any, name: str, got: str
) -> None:
    with refused(DataError, name, got=got):
        encode_captions(captions, tokenizer, vocabulary)


def test_one_string_is_not_a_sequence_of_captions(
    tokenizer: Tokenizer, vocabulary: Vocabulary
) -> None:
    with refused(DataError, "captions"):
        encode_captions("a dog", tokenizer, vocabulary)


def test_real_captions(tokenizer: Tokenizer, shared: Path) -> None:
    captions = read_captions(shared / "data/f8k_precomp/dev_caps.txt")
    vocabulary = Vocabulary.load(shared / "data/f8k_precomp_vocab.json")
    encoded, stats = encode_captions(captions, tokenizer, vocabulary)
    assert len(encoded) == stats.captions == 5000
    assert stats.tokens == sum(len(ids) - 2 for ids in encoded) == 59447
    # Words seen at least four times are known, so few are not: 1.85 %.
    assert stats.unknown == 1102
    assert all(ids[0] == 1 and ids[-1] == 2 for ids in encoded)
    words = [vocabulary.words[index] for index in encoded[1].tolist()]
    assert words[1:-1] == captions[1].lower().split()
