"""How long a caption may be that is read: the one place that refuses a longer one.

Splitting text into words costs tens of microseconds a word, so that a long enough caption would
stop a service. What refusing one costs does not grow with the caption.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgraf_deploy.errors import DataError, InputError

MAX_WORDS = 512
"""Of a caption where nothing else is asked for: captions of images have a tenth of it."""

LEAST_WORDS = 3
"""`<start>`, a word and `<end>`."""

CHARACTERS_PER_WORD = 16
"""A caption longer than this times the bound is refused unread; English has five to six."""

_HINT = "shorten it, or allow longer ones: --max-caption-words N, load(…, max_words=N)"


@dataclass(frozen=True)
class CaptionBound:
    """At most so many words, `<start>` and `<end>` counted as in the model; None: any number."""

    max_words: int | None = MAX_WORDS

    def __post_init__(self) -> None:
        """Raise InputError for what is no bound."""
        words: object = self.max_words
        if words is None:
            return
        if isinstance(words, bool) or not isinstance(words, int) or words < LEAST_WORDS:
            expected = f"an integer of at least {LEAST_WORDS}, or None"
            raise InputError("max_words", expected=expected, got=repr(words))

    def check_text(self, caption: str, name: str) -> None:
        """Raise DataError for a caption that is too long whatever its words are.

        White space parts words and never joins them, so there are as many as it leaves at least.
        """
        if self.max_words is None:
            return
        most = CHARACTERS_PER_WORD * self.max_words
        if len(caption) > most:
            expected = f"at most {most:,} characters, for {self.max_words} words"
            raise DataError(name, expected=expected, got=f"{len(caption):,}", hint=_HINT)
        self.check_words(len(caption.split()) + 2, name)

    def check_words(self, words: int, name: str) -> None:
        """Raise DataError for so many words, `<start>` and `<end>` among them."""
        if self.max_words is not None and words > self.max_words:
            expected = f"at most {self.max_words} words, <start> and <end> included"
            raise DataError(name, expected=expected, got=words, hint=_HINT)
