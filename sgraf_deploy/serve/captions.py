"""Captions of requests as token ids: too long ones are refused by name, or cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.bound import CHARACTERS_PER_WORD
from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.runtime.tokens import CaptionReader
from sgraf_deploy.serve.calls import UnprocessableError

NO_WORDS = "send at least one word"
HINT = "shorten it, or start the server with --truncate, which cuts such captions"


@dataclass(frozen=True, eq=False)
class ReadCaptions:
    """The token ids (words,) int32 of each caption, and warnings of those that were cut."""

    token_ids: tuple[NDArray[np.int32], ...]
    warnings: tuple[str, ...]


class CaptionTexts:
    """Reads captions as a scorer does, up to its `max_words`."""

    def __init__(self, scorer: Scorer) -> None:
        self._most = scorer.max_words
        self._reader = CaptionReader(scorer.bundle, scorer.max_words)
        self._whole = CaptionReader(scorer.bundle, None)

    def read(self, texts: Sequence[tuple[str, str]], *, truncate: bool) -> ReadCaptions:
        """Read captions, each with its name in the request.

        Raises UnprocessableError that names the first one without words or, unless `truncate`, with
        too many.
        """
        found, warnings = [], []
        for name, text in texts:
            try:
                found += self._reader.token_ids([text])
            except DataError as error:
                cut = self._cut(text) if truncate else None
                if cut is None:
                    raise self._refusal(name, text, error) from error
                found.append(cut)
                warnings.append(f"{name} was cut to {self._most} words")
        return ReadCaptions(tuple(found), tuple(warnings))

    def _cut(self, text: str) -> NDArray[np.int32] | None:
        """The ids of as many words as are allowed, `<end>` included; None if that helps nothing.

        The text is cut first, so that a long one costs no more than a whole caption does.
        """
        if self._most is None:
            return None
        short = " ".join(text[: CHARACTERS_PER_WORD * self._most].split()[: self._most])
        try:
            (ids,) = self._whole.token_ids([short])
        except DataError:
            return None
        if len(ids) <= self._most:
            return ids
        return np.concatenate([ids[: self._most - 1], ids[-1:]])

    def _refusal(self, name: str, text: str, error: DataError) -> UnprocessableError:
        expected = "a caption of at least one word"
        if self._most is not None:
            expected += f" and at most {self._most}, <start> and <end> included"
        return UnprocessableError(
            name,
            expected=expected,
            got=str(error.got)[:80],
            hint=HINT if text.strip() else NO_WORDS,
            param=name,
            code="invalid_caption",
        )
