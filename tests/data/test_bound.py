"""How long a caption may be: refused before NLTK sees it, and exactly at the bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.refusals import naming, refused

from sgraf_deploy.data.bound import CHARACTERS_PER_WORD, MAX_WORDS, CaptionBound
from sgraf_deploy.data.captions import encode_captions
from sgraf_deploy.data.tokenizer import UNTRAINED, Tokenizer
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.errors import DataError, InputError

unbounded = Tokenizer(UNTRAINED, None)
pieces = st.sampled_from(
    [
        *".!?,:;-'\"`()&",
        *("n't", "'s", "a.", "cannot", "gimme", "1,2", "--"),
        " ",
        "\n",
        "\xa0",
        "é",
        "a",
    ]
)


class Untouched:
    """Stands for NLTK where it must not be asked."""

    def tokenize(self, text: str) -> list[str]:
        raise AssertionError("NLTK was asked")


def guarded(max_words: int | None = MAX_WORDS) -> Tokenizer:
    """A tokenizer that may only read plain captions."""
    tokenizer = Tokenizer(UNTRAINED, max_words)
    tokenizer._sentences = tokenizer._words = Untouched()
    return tokenizer


@pytest.mark.parametrize(
    "text",
    [
        ". " * 100_000,
        "!\n" * 511,
        "." * 10_000_000,
        "a" * 10_000_000,
        " " * 10_000_000,
        "a" + " " * 10_000 + "b!",
        "don't " * 511,
        "'" * 9000,
        "\u2003.".join("a" * 600),
    ],
    ids=[
        *("sentences", "lines", "periods", "one-word", "white", "gap", "words", "quotes"),
        "unicode-spaces",
    ],
)
def test_what_is_too_long_never_reaches_nltk(text: str) -> None:
    with refused(DataError, "caption 7", hint="--max-caption-words") as found:
        guarded().tokenize(text, "caption 7")
    assert len(str(found.error)) < 300


def test_a_caption_without_a_name_is_told_by_how_it_begins() -> None:
    with refused(DataError, "200,000", repr(". " * 20)):
        guarded().tokenize(". " * 100_000)


@pytest.mark.parametrize("word", ["dog", "don't", "dog."], ids=str)
def test_the_bound_counts_words_with_start_and_end(word: str) -> None:
    text = " ".join([word] * 40)
    words = len(unbounded.tokenize(text))
    assert Tokenizer(UNTRAINED, words + 2).tokenize(text) == unbounded.tokenize(text)
    with refused(DataError, expected=naming(words + 1, "<start>"), got=words + 2):
        Tokenizer(UNTRAINED, words + 1).tokenize(text)


def test_the_characters_that_a_bound_allows() -> None:
    longest = "a" * CHARACTERS_PER_WORD * 3
    assert guarded(3).tokenize(longest) == [longest]
    with refused(DataError, expected=naming(48, 3), got=49):
        guarded(3).tokenize(longest + "a")


def test_without_a_bound_any_caption_is_read() -> None:
    assert len(guarded(None).tokenize("word " * 5000)) == 5000


@given(st.lists(pieces, max_size=30).map("".join), st.integers(3, 12))
@example(" a  b\n.", 3)
def test_exactly_the_captions_with_too_many_words_are_refused(text: str, most: int) -> None:
    """Text within the bound's characters: what white space parts is never more than the words."""
    words = unbounded.tokenize(text)
    assert len(text.split()) <= len(words)
    tokenizer = Tokenizer(UNTRAINED, most)
    if len(words) + 2 <= most or len(text) > CHARACTERS_PER_WORD * most:
        return
    with refused(DataError, expected=naming(most, "<start>")):
        tokenizer.tokenize(text)


@given(st.lists(pieces, max_size=12).map("".join))
def test_captions_within_the_bound_are_read_as_without_one(text: str) -> None:
    assert Tokenizer(UNTRAINED, 100).tokenize(text) == unbounded.tokenize(text)


@pytest.mark.parametrize("value", [2, 0, -1, True, 10.0, float("nan"), "512", [512]], ids=repr)
def test_what_is_no_bound_is_refused(value: Any) -> None:
    for make in (CaptionBound, lambda words: Tokenizer(UNTRAINED, words)):
        with refused(InputError, "max_words", expected=naming(3), got=repr(value)):
            make(value)


def test_whoever_reads_captions_is_told_which_is_too_long() -> None:
    captions, tokenizer = ["a dog", "a " * 20], Tokenizer(UNTRAINED, 10)
    with refused(DataError, "caption 1", expected=naming(10)):
        encode_captions(captions, tokenizer, Vocabulary(SPECIAL_WORDS))
    with refused(DataError, "caption 1", expected=naming(10)):
        Vocabulary.build(captions, tokenizer)
