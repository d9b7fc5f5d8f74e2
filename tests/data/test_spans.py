"""Where the words of a caption stand in it."""

from __future__ import annotations

import random

import pytest

from sgraf_deploy.data.spans import find_spans
from sgraf_deploy.data.tokenizer import Tokenizer

QUOTES = ('"', "''", "``")
PIECES = (
    *("a", "Dog", "cannot", "gonna", "wan", "na", "'tis", "d'ye", "more'n", "i.", "e.g.", "3."),
    *("É", "ß", "İ", "Σ", "ΔΣ", "\u0307", "\x00", "🙂"),
    *(" ", " ", " ", "  ", "\t", "\n", "\u00a0", "\u2028", "\x1c"),
    *(".", "...", ",", "?", ":", "'", "'s", "n't", "-", "--", "@", "$", "&"),
    *('"', '""', "''", "``", "`", "“", "”", "«", "(", ")", "[", "<"),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.mark.parametrize(
    ("caption", "shown"),
    [
        ("A dog  runs.", ["A", "dog", "runs", "."]),
        ('He says "Go!" twice', ["He", "says", '"', "Go", "!", '"', "twice"]),
        ("I cannot, don't", ["I", "can", "not", ",", "do", "n't"]),
        ("''a'' ``b``", ["''", "a", "''", "``", "b", "``"]),
        ("İstanbul\tΔΣ", ["İstanbul", "ΔΣ"]),
    ],
)
def test_a_word_is_where_it_was_written(
    tokenizer: Tokenizer, caption: str, shown: list[str]
) -> None:
    spans = find_spans(caption, tokenizer.tokenize(caption))

    assert [caption[span[0] : span[1]] for span in spans if span is not None] == shown


def test_every_span_covers_its_word_or_there_is_none(tokenizer: Tokenizer) -> None:
    rng, seen = random.Random(7), 0
    for _ in range(4000):
        caption = "".join(rng.choices(PIECES, k=rng.randint(1, 9)))
        words = tokenizer.tokenize(caption)
        spans = find_spans(caption, words)
        assert len(spans) == len(words)
        end = 0
        for word, span in zip(words, spans, strict=True):
            if span is None:
                continue
            assert end <= span[0] < span[1] <= len(caption)
            end = span[1]
            covered = caption[span[0] : end].lower()
            same = covered.casefold() == word.casefold()  # A final sigma is another letter.
            assert same or (word in QUOTES and covered in QUOTES), (caption, word, covered)
            seen += 1
        if None not in spans:
            inside = {place for span in spans if span for place in range(*span)}
            rest = "".join(each for place, each in enumerate(caption) if place not in inside)
            assert not rest.strip(), (caption, rest)
    assert seen > 10_000


def test_a_word_that_is_not_there_has_no_span() -> None:
    assert find_spans("a dog", ["a", "cat", "dog"]) == [(0, 1), None, (2, 5)]
    assert find_spans("a", ["a", "b"]) == [(0, 1), None]
    # The lower case of the first letter is two characters, between which no span can begin.
    assert find_spans("İs", ["i", "\u0307s"]) == [None, None]
