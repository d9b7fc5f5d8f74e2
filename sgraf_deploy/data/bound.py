"""The limit on the length of captions, and the only place that enforces it.

Splitting text into words costs tens of microseconds per word, so a long enough caption would stop a
service. The cost of refusing a caption does not grow with its length.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgraf_deploy.errors import DataError, InputError

MAX_WORDS = 512
"""The default limit of words per caption; captions of images have about a tenth of it."""

LEAST_WORDS = 3
"""`<start>`, a word and `<end>`."""

CHARACTERS_PER_WORD = 16
"""A caption with more characters than this times the limit is refused without being split; English
has five to six per word."""

_HINT = "shorten it, or allow longer captions with --max-caption-words N or load(…, max_words=N)"


@dataclass(frozen=True)
class CaptionBound:
    """At most `max_words` words, counting `<start>` and `<end>`; None means no limit."""

    max_words: int | None = MAX_WORDS

    def __post_init__(self) -> None:
        """Raise InputError for a value that is not a valid limit."""
        words: object = self.max_words
        if words is None:
            return
        if isinstance(words, bool) or not isinstance(words, int) or words < LEAST_WORDS:
            expected = f"an integer of at least {LEAST_WORDS}, or None"
            raise InputError("max_words", expected=expected, got=repr(words))

    def check_text(self, caption: str, name: str) -> None:
        """Raise DataError for a caption that is too long however it is split into words.

        White space always separates words, so the parts between it are a lower bound of the words.
        """
        if self.max_words is None:
            return
        most = CHARACTERS_PER_WORD * self.max_words
        if len(caption) > most:
            expected = f"at most {most:,} characters, for a limit of {self.max_words} words"
            raise DataError(name, expected=expected, got=f"{len(caption):,}", hint=_HINT)
        self.check_words(len(caption.split()) + 2, name)

    def check_words(self, words: int, name: str) -> None:
        """Raise DataError for too many words; `words` counts `<start>` and `<end>`."""
        if self.max_words is not None and words > self.max_words:
            expected = f"at most {self.max_words} words, including <start> and <end>"
            raise DataError(name, expected=expected, got=words, hint=_HINT)
