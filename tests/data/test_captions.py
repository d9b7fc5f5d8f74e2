from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
    ("content", "message"),
    [
        pytest.param(
            b"one\ncaf\xe9\nx\n", "line 2: expected UTF-8, got byte 0xe9 at byte 3", id="latin"
        ),
        pytest.param("one\n".encode("utf-16"), "got text in UTF-16", id="utf-16"),
        pytest.param(b"one\n\xed\xa0\x80\n", "line 2: expected UTF-8", id="surrogate"),
        pytest.param(b"one\n\ntwo\n", "line 2.*a blank line", id="blank-line"),
        pytest.param(b"one\r\n \t\r\ntwo\r\n", "line 2.*a blank line", id="white-space-only"),
        pytest.param(b"\none\n", "line 1.*a blank line", id="blank-line-first"),
        pytest.param(b"\n", "is empty", id="only-a-newline"),
        pytest.param(b"\r\n \n", "is empty", id="only-blank-lines"),
        pytest.param(b"", "is empty", id="empty-file"),
        pytest.param(b"\xef\xbb\xbf", "is empty", id="only-a-byte-order-mark"),
    ],
)
def test_bad_caption_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "dev_caps.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"dev_caps\.txt.*{message}"):
        read_captions(path)


@pytest.mark.parametrize("name", ["absent.txt", "."], ids=["missing", "folder"])
def test_unreadable_caption_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"captions .* cannot be read"):
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
    ("captions", "message"),
    [
        pytest.param(["a dog", ""], "caption 1: expected at least one word, got ''", id="empty"),
        pytest.param([" \t\n"], r"caption 0: .*got ' \\t\\n'", id="blank"),
        pytest.param(["a", "a", None], "caption 2: expected a string, got NoneType", id="none"),
        pytest.param([b"a dog"], "caption 0: expected a string, got bytes", id="bytes"),
        pytest.param("a dog", "captions: expected a sequence of strings", id="one-string"),
    ],
)
def test_bad_captions(
    tokenizer: Tokenizer, vocabulary: Vocabulary, captions: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        encode_captions(captions, tokenizer, vocabulary)
    assert "\n" not in str(caught.value)


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
