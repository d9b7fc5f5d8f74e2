"""Captions as token ids, checked before any engine sees them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.bound import MAX_WORDS, CaptionBound
from sgraf_deploy.data.captions import encode_captions
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import END, PAD, START, Vocabulary
from sgraf_deploy.errors import BundleError, CaptionWarning, DataError

TokenIds = NDArray[np.int32]


class Tensor(Protocol):
    """Anything that NumPy reads as an array, such as a torch tensor on the CPU."""

    def __array__(self) -> NDArray[Any]: ...


RawCaptions = Sequence[str] | Sequence[Sequence[int]] | Sequence[Tensor] | Tensor
"""Strings, or every caption's token ids with `<start>` and `<end>`. Padded ids need lengths."""

Lengths = Sequence[int] | Tensor
"""How many of each caption's ids are real, `<start>` and `<end>` included: (captions,) integers."""

PAD_WITHOUT_VOCABULARY = 0
"""The id of `<pad>` in every vocabulary that the authors' code builds."""


class CaptionReader:
    """Turns a caller's captions into token ids; a bundle's vocabulary is read on first use."""

    def __init__(self, bundle: Bundle, max_words: int | None = MAX_WORDS) -> None:
        """Read captions of at most `max_words` (None: of any length) for this bundle."""
        self.bound = CaptionBound(max_words)
        self._bundle = bundle
        self._lock = Lock()
        self._tokenizer: Tokenizer | None = None
        self._words: Vocabulary | None = None
        self._warned = False

    def token_ids(self, captions: RawCaptions, lengths: Lengths | None = None) -> list[TokenIds]:
        """Return the checked token ids (words,) int32 of every caption, without padding.

        `lengths` cuts padded ids. Raises DataError, which names the caption that is wrong, and
        BundleError for strings when the bundle has no vocabulary. Warns, once, where ids lack the
        `<start>` or `<end>` that the bundle's vocabulary has.
        """
        given = _sequence(captions)
        size = self._bundle.manifest.vocab_size
        if given and isinstance(given[0], str):
            if lengths is not None:
                raise DataError(
                    "lengths",
                    expected="no lengths, which go with token ids",
                    got="lengths and strings",
                )
            words = self._load_words()
            found, _ = encode_captions(given, self._load_tokenizer(), words)
            return check_token_ids(found, size)
        found = check_token_ids(given, size, lengths=lengths, bound=self.bound)
        self._refuse_padding(found, cut=lengths is not None)
        self._warn_of_ends(found)
        return found

    def _refuse_padding(self, captions: Sequence[TokenIds], *, cut: bool) -> None:
        """Raise DataError for `<pad>` anywhere: no model was trained with it as a word."""
        known = self._bundle.manifest.vocabulary is not None
        pad = self._load_words().id(PAD) if known else PAD_WITHOUT_VOCABULARY
        if not captions or not (np.concatenate(captions) == pad).any():
            return
        index = next(index for index, ids in enumerate(captions) if (ids == pad).any())
        place = int(np.argmax(captions[index] == pad))
        hint = "give their lengths: encode_captions(captions, lengths=lengths)"
        if cut:
            hint = "give the lengths of these captions, in their order, without the padding"
        elif not known:
            hint += "; if 0 is a word, export the bundle with `--vocab FILE`"
        raise DataError(
            f"caption {index}",
            expected="the ids of its words, without <pad>",
            got=f"{pad}, which is <pad>, in place {place} of {len(captions[index])}",
            hint=hint,
        )

    def _warn_of_ends(self, captions: Sequence[TokenIds]) -> None:
        """Warn, once for each reader, of ids without `<start>` in front or `<end>` at the end."""
        if self._warned or self._bundle.manifest.vocabulary is None:
            return
        start, end = map(self._load_words().id, (START, END))
        lacking = (i for i, ids in enumerate(captions) if ids[0] != start or ids[-1] != end)
        first = next(lacking, None)
        if first is None:
            return
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            warnings.warn(
                f"caption {first} does not begin with {start}, <start>, and end with {end}, <end>, "
                "as all captions do that the model was trained on; similarities will be off",
                CaptionWarning,
                stacklevel=callers_level(),
            )

    def _load_tokenizer(self) -> Tokenizer:
        words = self._load_words()
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = bundle_tokenizer(self._bundle, words, self.bound.max_words)
            return self._tokenizer

    def _load_words(self) -> Vocabulary:
        with self._lock:
            if self._words is None:
                self._words = Vocabulary.load(self._bundle.vocabulary_path())
            return self._words


def bundle_tokenizer(
    bundle: Bundle, vocabulary: Vocabulary, max_words: int | None = MAX_WORDS
) -> Tokenizer:
    """Return the tokenizer of a bundle, whose vocabulary is given.

    Raises BundleError if the bundle names no tokenizer, and what `Tokenizer` raises.
    """
    variant = bundle.manifest.tokenizer
    if variant is None:
        raise BundleError(f"bundle {bundle.path} names no tokenizer")
    return Tokenizer(variant, max_words, vocabulary)


def check_token_ids(
    captions: Sequence[Any],
    vocab_size: int,
    *,
    lengths: Lengths | None = None,
    bound: CaptionBound | None = None,
) -> list[TokenIds]:
    """Return each caption's ids as int32 (words,), cut to its length if lengths are given.

    Raises DataError that names the first caption which is not a sequence of integers, is empty or
    longer than the bound, has an id outside 0 … vocab_size - 1, or a length outside 1 … words.
    """
    counts: Iterable[int | None] = [None] * len(captions)
    if lengths is not None:
        counts = _lengths(lengths, len(captions))
    checked = []
    for index, (caption, count) in enumerate(zip(captions, counts, strict=True)):
        name = f"caption {index}"
        ids = _integers(caption, name)
        if count is not None and not 1 <= count <= len(ids):
            raise DataError(f"{name}: its length", expected=f"1 … {len(ids)}", got=count)
        ids = ids[:count]
        if bound is not None:
            bound.check_words(len(ids), name)
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocab_size:
            raise DataError(
                name,
                expected=f"token ids in 0 … {vocab_size - 1}",
                got=low if low < 0 else high,
                hint="use the ids of the vocabulary that the checkpoint was trained with",
            )
        checked.append(ids.astype(np.int32))
    return checked


def _sequence(captions: object) -> list[Any]:
    """Return captions as a list; they may be a tensor or a column of a table, too."""
    given = captions
    if hasattr(given, "__array__") and not isinstance(given, type):
        given = _array(given, "captions")
    single = isinstance(given, str | bytes) or (isinstance(given, np.ndarray) and given.ndim == 0)
    if single or not isinstance(given, Sequence | np.ndarray):
        raise DataError(
            "captions",
            expected="a sequence of strings, or of every caption's token ids",
            got=f"a single {type(captions).__name__}",
        )
    return list(given)


def _lengths(lengths: object, captions: int) -> list[int]:
    """Return lengths as an integer for each caption; DataError for anything else."""
    given = _array(lengths, "lengths")
    if given.ndim != 1 or (given.dtype.kind not in "iu" and given.size):
        got = f"{type(lengths).__name__} of {given.dtype}, shape {given.shape}"
        raise DataError("lengths", expected="an integer for each caption", got=got)
    if len(given) != captions:
        raise DataError("lengths", expected=f"{captions}, one for each caption", got=len(given))
    integers: list[int] = given.tolist()
    return integers


def _integers(caption: object, name: str) -> NDArray[Any]:
    ids = _array(caption, name)
    if ids.size == 0:
        raise DataError(name, expected="at least one token id", got="none")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        got = f"{type(caption).__name__} of {ids.dtype}, shape {ids.shape}"
        raise DataError(name, expected="a sequence of integer token ids", got=got)
    return ids


def _array(given: object, name: str) -> NDArray[Any]:
    """Convert to an array; DataError for what NumPy cannot read, such as a tensor on a GPU."""
    try:
        return np.asarray(given)
    except (ValueError, OverflowError, TypeError, RuntimeError) as error:
        raise DataError(name, expected="a sequence of token ids", got=error) from error


def callers_level() -> int:
    """Return the `stacklevel` at which a warning of the calling function names the user's line."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("sgraf_deploy."):
        frame, level = frame.f_back, level + 1
    return level
