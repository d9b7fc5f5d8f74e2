"""Captions as token ids, checked before any engine sees them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle import Bundle
from sgraf_deploy.data.captions import encode_captions
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import BundleError, DataError

TokenIds = NDArray[np.int32]

RawCaptions = Sequence[str] | Sequence[Sequence[int]] | Sequence[NDArray[Any]] | NDArray[Any]
"""Strings, or every caption's token ids with `<start>` and `<end>` and without padding."""


class CaptionReader:
    """Turns a caller's captions into token ids; a bundle's vocabulary is read on first use."""

    def __init__(self, bundle: Bundle) -> None:
        """Read captions for this bundle."""
        self._bundle = bundle
        self._lock = Lock()
        self._text: tuple[Tokenizer, Vocabulary] | None = None

    def token_ids(self, captions: RawCaptions) -> list[TokenIds]:
        """Checked token ids (words,) int32 of every caption.

        Raises DataError, which names the caption that is wrong, and BundleError for strings when
        the bundle has no vocabulary.
        """
        if isinstance(captions, str | bytes) or not isinstance(captions, Sequence | np.ndarray):
            raise DataError(
                "captions",
                expected="a sequence of strings, or of every caption's token ids",
                got=f"one {type(captions).__name__}",
            )
        ids: Sequence[Any] = list(captions)
        if ids and isinstance(ids[0], str):
            ids, _ = encode_captions(ids, *self._load())
        return check_token_ids(ids, self._bundle.manifest.vocab_size)

    def _load(self) -> tuple[Tokenizer, Vocabulary]:
        with self._lock:
            if self._text is None:
                path, variant = self._bundle.vocabulary_path(), self._bundle.manifest.tokenizer
                if variant is None:
                    raise BundleError(f"bundle {self._bundle.path} names no tokenizer")
                self._text = Tokenizer(variant), Vocabulary.load(path)
            return self._text


def check_token_ids(captions: Iterable[Any], vocab_size: int) -> list[TokenIds]:
    """Each caption's ids as int32 (words,), `<start>` and `<end>` included, without padding.

    Raises DataError that names the first caption which is not a sequence of integers, is empty
    or has an id outside 0 … vocab_size - 1.
    """
    checked = []
    for index, caption in enumerate(captions):
        ids = _integers(caption, f"caption {index}")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocab_size:
            raise DataError(
                f"caption {index}",
                expected=f"token ids in 0 … {vocab_size - 1}",
                got=low if low < 0 else high,
                mend="use the ids of the vocabulary that the checkpoint was trained with",
            )
        checked.append(ids.astype(np.int32))
    return checked


def _integers(caption: Any, name: str) -> NDArray[Any]:
    try:
        ids = np.asarray(caption)
    except (ValueError, OverflowError) as error:
        raise DataError(name, expected="a sequence of token ids", got=error) from error
    if ids.size == 0:
        raise DataError(name, expected="at least one token id", got="none")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        got = f"{type(caption).__name__} of {ids.dtype}, shape {ids.shape}"
        raise DataError(name, expected="a sequence of integer token ids", got=got)
    return ids
