"""Reading caption files, and encoding captions as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.files import read_bytes, split_lines
from sgraf_deploy.data.foreign_text import check_line_ends
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import DataError
from sgraf_deploy.files.disk import PathLike


@dataclass(frozen=True)
class CaptionStats:
    """Counts of encoded captions; `tokens` are their words without `<start>` and `<end>`."""

    captions: int
    tokens: int
    unknown: int

    @property
    def unknown_rate(self) -> float:
        """The share of the tokens that are not in the vocabulary; 0 if there are no tokens."""
        return self.unknown / self.tokens if self.tokens else 0.0


def read_captions(path: PathLike) -> list[str]:
    """The captions of a UTF-8 file, one per line, without surrounding white space.

    Raises DataError as `read_lines`, and for lines that end in CR alone.
    """
    content = read_bytes(path, "captions")
    lines = split_lines(content, path, "captions")
    check_line_ends(content, Path(path), "captions")
    return lines


def encode_captions(
    captions: Sequence[str], tokenizer: Tokenizer, vocabulary: Vocabulary
) -> tuple[list[NDArray[np.int32]], CaptionStats]:
    """Token ids (words,) int32 per caption, unpadded, `<start>` and `<end>` included.

    A word outside the vocabulary becomes `<unk>`, even if all words of a caption are. Raises
    DataError that names the index of a caption without words, or with more words than the
    tokenizer's limit.
    """
    if isinstance(captions, str | bytes):
        raise DataError("captions", expected="a sequence of strings", got="one string")
    encoded: list[NDArray[np.int32]] = []
    tokens = unknown = 0
    untrusted: Sequence[object] = captions
    for index, caption in enumerate(untrusted):
        if not isinstance(caption, str):
            got = type(caption).__name__
            raise DataError(f"caption {index}", expected="a string", got=got)
        words = tokenizer.tokenize(caption, f"caption {index}")
        if not words:
            raise DataError(f"caption {index}", expected="at least one word", got=repr(caption))
        encoded.append(np.array(vocabulary.encode(words), dtype=np.int32))
        tokens += len(words)
        unknown += sum(word not in vocabulary for word in words)
    return encoded, CaptionStats(captions=len(encoded), tokens=tokens, unknown=unknown)
