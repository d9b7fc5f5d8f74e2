"""Splits a caption into words as NLTK's word_tokenize does, but without NLTK's data.

The published vocabularies were made by `nltk.word_tokenize(caption.lower())`, which splits
sentences with a trained Punkt model that must be downloaded separately. Two variants replace only
that model by an untrained Punkt, which needs no data and so gives the same words everywhere. For
lower-case text the trained model adds little more than abbreviations, and those that occurred when
a vocabulary was made are words of it: `mr.`, `st.`, `u.s.`. The variant `nltk-vocabulary-punkt`
takes them from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from sgraf_deploy.data.bound import MAX_WORDS, CaptionBound
from sgraf_deploy.errors import DataError, InputError, UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.data.vocabulary import Vocabulary

VOCABULARY = "nltk-vocabulary-punkt"
"""An untrained Punkt whose abbreviations are the vocabulary's words that end with a period."""
UNTRAINED = "nltk-untrained-punkt"
"""An untrained Punkt without abbreviations, for building a vocabulary and for older bundles."""
TRAINED = "nltk-punkt"
"""NLTK's trained Punkt, whose data must be downloaded separately."""
TOKENIZERS = (VOCABULARY, UNTRAINED, TRAINED)

# Such a caption is a single sentence of words, and NLTK changes nothing in it apart from the
# contractions below and the last period, which is split off: its thirty patterns can be skipped.
_PLAIN = re.compile(r"([a-z0-9]+(?:(?: +|-)[a-z0-9]+)*) *(\.?)")
_CONTRACTIONS = re.compile("cannot|gimme|gonna|gotta|lemme|wanna")


class _Splitter(Protocol):
    def tokenize(self, text: str) -> list[str]:
        """Split a text into sentences, or a sentence into words."""


class _NoContext(dict[str, int]):
    """The orthographic context of an untrained Punkt: 0 for every word.

    Punkt's default dict would store every word that is looked up, and grow without end.
    """

    def __missing__(self, word: str) -> int:
        return 0


class Tokenizer:
    """Splits captions into lower-case words; `variant` is the name that a manifest records."""

    variant: str

    def __init__(
        self,
        variant: str = UNTRAINED,
        max_words: int | None = MAX_WORDS,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """Load the variant's parts of NLTK, for captions of at most `max_words` words.

        `max_words` counts `<start>` and `<end>`; None means no limit. `vocabulary` is that in which
        the words will be looked up; the variant `nltk-vocabulary-punkt` needs it. Raises InputError
        for an unknown variant, a missing vocabulary or an invalid limit, and UnavailableError if
        the variant's data are missing.
        """
        check_variant(variant)
        self.variant = variant
        self._bound = CaptionBound(max_words)
        if variant == TRAINED:
            self._sentences = _trained()
        elif variant == UNTRAINED:
            self._sentences = _untrained()
        elif vocabulary is None:
            raise InputError(f"tokenizer {variant}", expected="a vocabulary", got="none")
        else:
            self._sentences = _untrained(abbreviations(vocabulary.words))
        self._words = _words()

    def tokenize(self, caption: str, name: str | None = None) -> list[str]:
        """The words of a caption, in order; an empty list for an empty or blank caption.

        Raises DataError, which begins with `name`, for a caption that is longer than the limit, or
        for which NLTK's patterns exceed their time limit.
        """
        name = name or f"a caption of {len(caption):,} characters that starts with {caption[:40]!r}"
        self._bound.check_text(caption, name)
        words = self._split(caption.lower(), name)
        self._bound.check_words(len(words) + 2, name)
        return words

    def _split(self, text: str, name: str) -> list[str]:
        plain = _PLAIN.fullmatch(text)
        if plain and not _CONTRACTIONS.search(text):
            words = plain[1].split(" ")
            return [word for word in (*words, plain[2]) if word]
        try:
            return [
                word
                for sentence in self._sentences.tokenize(text)
                for word in self._words.tokenize(sentence)
            ]
        except TimeoutError as error:
            raise DataError(
                name,
                expected="a caption that NLTK can split within its time limit",
                got=f"{len(text):,} characters",
                hint="shorten it",
            ) from error


def check_variant(variant: str) -> None:
    """Raise InputError, which names the known variants, for an unknown tokenizer."""
    if variant not in TOKENIZERS:
        raise InputError("unknown tokenizer", expected=" or ".join(TOKENIZERS), got=variant)


def abbreviations(words: Iterable[str]) -> frozenset[str]:
    """A vocabulary's abbreviations for Punkt: its words that end with a period, without the period.

    Words such as `...` and `road..` are left out, because Punkt never takes them for abbreviations,
    and so are numbers, which Punkt recognises without help.
    """
    return frozenset(
        word[:-1]
        for word in words
        if word.endswith(".") and not word.endswith("..") and any(map(str.isalpha, word))
    )


def _words() -> _Splitter:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    splitter: _Splitter = NLTKWordTokenizer()
    return splitter


def _untrained(abbreviations: Iterable[str] = ()) -> _Splitter:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types.update(abbreviations)
    parameters.ortho_context = _NoContext()
    splitter: _Splitter = PunktSentenceTokenizer(parameters)
    return splitter


def _trained() -> _Splitter:
    from nltk.tokenize.punkt import PunktTokenizer

    try:
        splitter: _Splitter = PunktTokenizer("english")
    except LookupError as error:
        raise UnavailableError(
            f"tokenizer {TRAINED}",
            expected="NLTK's trained Punkt data",
            got="none on this machine",
            hint=f"run: python -m nltk.downloader punkt_tab, or use the tokenizer {VOCABULARY}",
        ) from error
    return splitter
