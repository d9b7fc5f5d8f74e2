"""Captions of random words, to measure speed and parity without data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.vocabulary import END, PAD, SPECIAL_WORDS, START, Vocabulary


def random_token_ids(
    bundle: Bundle, lengths: Sequence[int], rng: np.random.Generator
) -> list[NDArray[np.int32]]:
    """Ids (words,) of each caption, at least two: random words between `<start>` and `<end>`.

    `<pad>` is never among them, as in any caption. Without a vocabulary the special words are taken
    to have the first ids, as in the authors' code.
    """
    manifest = bundle.manifest
    vocabulary = Vocabulary(SPECIAL_WORDS)
    if manifest.vocabulary is not None:
        vocabulary = Vocabulary.load(bundle.vocabulary_path())
    pad, start, end = map(vocabulary.id, (PAD, START, END))
    words = np.setdiff1d(np.arange(manifest.vocab_size, dtype=np.int32), (pad, start, end))
    captions = [rng.choice(words, max(2, length)).astype(np.int32) for length in lengths]
    for ids in captions:
        ids[0], ids[-1] = start, end
    return captions
