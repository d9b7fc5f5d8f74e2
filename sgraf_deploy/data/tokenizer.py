"""From a caption to its words, as NLTK's word_tokenize splits them, without NLTK's data.

The published vocabularies were made by `nltk.word_tokenize(caption.lower())`, which splits
sentences by a trained Punkt model that is downloaded apart. The default variant replaces that
one part by an untrained Punkt, which needs no data and so gives the same words everywhere.
"""

from __future__ import annotations

import re
from typing import Protocol

from sgraf_deploy.data.bound import MAX_WORDS, CaptionBound
from sgraf_deploy.errors import DataError, InputError, UnavailableError

UNTRAINED = "nltk-untrained-punkt"
TRAINED = "nltk-punkt"
TOKENIZERS = (UNTRAINED, TRAINED)

# Such a caption is one sentence of words and nothing in it is rewritten, apart from the
# contractions below and the last period, which is split off: NLTK's thirty patterns are spared.
_PLAIN = re.compile(r"([a-z0-9]+(?:(?: +|-)[a-z0-9]+)*) *(\.?)")
_CONTRACTIONS = re.compile("cannot|gimme|gonna|gotta|lemme|wanna")


class _Splitter(Protocol):
    def tokenize(self, text: str) -> list[str]:
        """Split a text into sentences, or a sentence into words."""


class _NoContext(dict[str, int]):
    """What an untrained Punkt knows of any word, which is nothing.

    Punkt's own default dict would keep every word that it is asked about, without end.
    """

    def __missing__(self, word: str) -> int:
        return 0


class Tokenizer:
    """Splits captions into lower-case words; `variant` is what a manifest records."""

    variant: str

    def __init__(self, variant: str = UNTRAINED, max_words: int | None = MAX_WORDS) -> None:
        """Load the variant's parts of NLTK, for captions of at most so many words.

        `max_words` counts `<start>` and `<end>`; None lifts it. Raises InputError for an unknown
        variant or no bound, UnavailableError where the variant's data is missing.
        """
        if variant not in TOKENIZERS:
            raise InputError("unknown tokenizer", expected=" or ".join(TOKENIZERS), got=variant)
        self.variant = variant
        self._bound = CaptionBound(max_words)
        self._sentences = _trained() if variant == TRAINED else _untrained()
        self._words = _words()

    def tokenize(self, caption: str, name: str | None = None) -> list[str]:
        """The words of a caption, in order; none for an empty or blank one.

        Raises DataError, which begins with `name`, for a caption that is longer than the bound, or
        that takes NLTK's patterns longer than their time limit.
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
                expected="a caption that NLTK can split in its time limit",
                got=f"{len(text):,} characters",
                mend="shorten it",
            ) from error


def _words() -> _Splitter:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    splitter: _Splitter = NLTKWordTokenizer()
    return splitter


def _untrained() -> _Splitter:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
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
            mend=f"run: python -m nltk.downloader punkt_tab, or use the tokenizer {UNTRAINED}",
        ) from error
    return splitter
