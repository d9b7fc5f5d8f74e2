"""The tokens of a caption that is explained, with where they stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.captions import encode_captions
from sgraf_deploy.data.spans import Span, find_spans
from sgraf_deploy.data.vocabulary import END, START, UNKNOWN, Vocabulary
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.encoded import EncodedCaptions
from sgraf_deploy.runtime.tokens import TokenIds, bundle_tokenizer, check_token_ids

Caption = str | Sequence[int] | NDArray[Any]
"""A string, or token ids (words,) with `<start>` and `<end>`."""


@dataclass(frozen=True)
class Token:
    """One of the words that the model reads, its markers `<start>` and `<end>` among them.

    `span` are the characters of the caption that it stands for, the first and the one after the
    last; None for a marker, for token ids, and where the word cannot be found in the text. A word
    that is not `known` is read as `<unk>`, like every other such word.
    """

    text: str
    id: int
    known: bool
    marker: bool
    span: Span | None


def read_caption(
    bundle: Bundle, caption: Caption, max_words: int | None
) -> tuple[tuple[Token, ...], TokenIds]:
    """A caption's tokens, and their ids (words,).

    Raises InputError for encoded captions, whose words nobody knows; DataError for a caption
    without words, with too many, or with ids that are none; BundleError for a string where the
    bundle has no vocabulary.
    """
    given: object = caption
    if isinstance(given, EncodedCaptions):
        raise InputError(
            "the caption to explain",
            expected="a string or token ids",
            got="an encoded caption",
            hint="give its text: an encoded caption has no words to tell apart",
        )
    if isinstance(given, str):
        return _read_text(bundle, given, max_words)
    (ids,) = check_token_ids([caption], bundle.manifest.vocab_size)
    if bundle.manifest.vocabulary is None:
        last = len(ids) - 1
        return tuple(
            Token(f"#{id}", int(id), known=True, marker=place in (0, last), span=None)
            for place, id in enumerate(ids)
        ), ids
    words = Vocabulary.load(bundle.vocabulary_path()).words
    return tuple(_token(words[id], int(id), known=words[id] != UNKNOWN) for id in ids), ids


def _read_text(
    bundle: Bundle, caption: str, max_words: int | None
) -> tuple[tuple[Token, ...], TokenIds]:
    vocabulary = Vocabulary.load(bundle.vocabulary_path())
    tokenizer = bundle_tokenizer(bundle, vocabulary, max_words)
    (ids,), _ = encode_captions([caption], tokenizer, vocabulary)
    words = tokenizer.tokenize(caption)
    found = zip(words, ids[1:-1], find_spans(caption, words), strict=True)
    inner = (_token(word, int(id), known=word in vocabulary, span=span) for word, id, span in found)
    start, end = (_token(name, int(id)) for name, id in ((START, ids[0]), (END, ids[-1])))
    return (start, *inner, end), np.asarray(ids)


def _token(text: str, id: int, *, known: bool = True, span: Span | None = None) -> Token:
    return Token(text, id, known, marker=span is None and text in (START, END), span=span)
