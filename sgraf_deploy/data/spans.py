"""Finds where the words of a caption stand in it, as characters."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int]
"""The first character, and the one after the last; of the caption as it was given."""

_QUOTES = ('"', "''", "``")
"""What the tokenizer may have written as `` or ''."""


def find_spans(caption: str, words: Sequence[str]) -> list[Span | None]:
    """The span of each of a caption's words, in order, as `Tokenizer.tokenize` gives them.

    Lower case and quotes aside, a word is what stands there. None where that is not so, or where
    the word begins or ends within a character, whose lower case may be two.
    """
    text = caption.lower()
    starts = _starts(caption)
    spans: list[Span | None] = []
    place = 0
    for word in words:
        while place < len(text) and text[place].isspace():
            place += 1
        shape = next((one for one in _shapes(word) if text.startswith(one, place)), None)
        if shape is None:
            spans.append(None)
            continue
        end = place + len(shape)
        first, last = starts.get(place), starts.get(end)
        spans.append(None if first is None or last is None else (first, last))
        place = end
    return spans


def _shapes(word: str) -> tuple[str, ...]:
    return (word, *_QUOTES) if word in ("``", "''") else (word,)


def _starts(caption: str) -> dict[int, int]:
    """Places in the lower-case text at which a character of the caption begins, and its end."""
    starts, place = {}, 0
    for index, character in enumerate(caption):
        starts[place] = index
        place += len(character.lower())
    starts[place] = len(caption)
    return starts
