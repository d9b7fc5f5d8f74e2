"""Random captions, which the scorer takes for real ones."""

from __future__ import annotations

import numpy as np
import pytest

from sgraf_deploy.bench.random_ids import random_token_ids
from sgraf_deploy.bench.run import random_workload
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.runtime.tokens import CaptionReader


@pytest.mark.filterwarnings("error")
def test_a_reader_neither_refuses_them_nor_warns(exported: Bundle) -> None:
    workload = random_workload(exported, 1, 200)
    found = CaptionReader(exported).token_ids(list(workload.inputs.token_ids))
    assert {len(ids) for ids in found} == set(range(8, 21))
    words = np.concatenate([ids[1:-1] for ids in found])
    assert set(words.tolist()) == set(range(3, exported.manifest.vocab_size))


def test_they_have_the_special_words_of_the_vocabulary(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = Vocabulary.load(exported.vocabulary_path()).words[::-1]
    monkeypatch.setattr(Vocabulary, "load", lambda path: Vocabulary(words))
    size = len(words)
    found = random_token_ids(exported, [1, 2, 5] * 100, np.random.default_rng(0))
    assert {len(ids) for ids in found} == {2, 5}
    assert {(int(ids[0]), int(ids[-1])) for ids in found} == {(size - 2, size - 3)}
    assert not any((ids == size - 1).any() for ids in found)
    assert {ids.dtype for ids in found} == {np.dtype(np.int32)}
