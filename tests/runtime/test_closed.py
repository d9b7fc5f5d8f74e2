"""A scorer that is closed refuses whatever is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import naming, refused
from support.scorers import CAPTIONS, Faked

from sgraf_deploy.errors import InputError

MakeFaked = Callable[..., Faked]


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")
def test_a_closed_scorer_says_so(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    made = faked()
    scorer = made.scorer
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    with scorer:
        pass
    scorer.close()
    assert made.engine.closed
    uses: list[Callable[[], Any]] = [
        lambda: scorer.encode_images(regions),
        lambda: scorer.encode_captions(CAPTIONS),
        lambda: scorer.score(images, captions),
        lambda: scorer.logits(images, captions),
        lambda: scorer.score_pairs(images, captions, [0], [0]),
        lambda: scorer.rerank("a dog", images),
        lambda: scorer.rerank_many([], images),
        lambda: scorer.images_from_host(images.to_host()),
        lambda: scorer.captions_from_host(captions.lengths, captions.to_host()),
        lambda: scorer.read_saved("nowhere"),
        lambda: scorer.tiling(images, captions),
        lambda: scorer.save_encoded(images, "nowhere"),
        lambda: scorer.load_images("nowhere"),
        lambda: scorer.load_captions("nowhere"),
        scorer.__enter__,
    ]
    for use in uses:
        with refused(InputError, expected=None, got=None, hint=naming()):
            use()
