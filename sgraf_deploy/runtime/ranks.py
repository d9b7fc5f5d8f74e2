"""Ranks of ground truths, counted tile by tile: the matrix of logits is never held.

Caption `captions_per_image * i + j` belongs to image `i`. Ground truths are scored first, as
pairs; then every tile is compared with them where it lies, on the host or on a GPU. A pair scored
alone and in a tile may differ by what its precision rounds (last bits in fp32, more in fp16). The
host's counter makes up for that; a GPU's rank can differ from the whole matrix's where two logits
are as close as that.
"""

from __future__ import annotations

import numpy as np

from sgraf_deploy.engines.ensemble import with_ensemble
from sgraf_deploy.engines.near_counts import ROUNDED_SLACK, SLACK
from sgraf_deploy.engines.ranks import RankCounts, Thresholds
from sgraf_deploy.errors import InputError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime import pairs
from sgraf_deploy.runtime.arguments import check_count
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.matrix import Matrix, Results, score_tiles


def count_ranks(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    captions_per_image: int,
    progress: Progress | None = None,
    out: Matrix | None = None,
) -> dict[str, RankCounts]:
    """Count the ranks of every ground truth in both directions, by member and for their ensemble.

    `out` (images, captions) takes the similarities. Raises InputError unless every image has so
    many captions, and DataError for a logit that is not finite.
    """
    check_count("captions_per_image", captions_per_image)
    if not len(images):
        raise InputError("images to rank", expected="at least one", got="none")
    if len(captions) != captions_per_image * len(images):
        raise InputError(
            f"captions of {len(images)} images",
            expected=f"{captions_per_image} of each",
            got=len(captions),
        )
    thresholds = _score_truths(context, images, captions, captions_per_image)
    counter = context.engine.rank_counter(thresholds)
    results = Results(similarities=out, ranks=counter)
    score_tiles(context, images, captions, results, progress)
    return counter.result()


def _score_truths(
    context: Context, images: EncodedImages, captions: EncodedCaptions, captions_per_image: int
) -> Thresholds:
    """Score the ground truths as pairs; their logits are the thresholds of the candidates."""
    rows = np.arange(len(captions), dtype=np.int32)
    owners = (rows // captions_per_image).astype(np.int32)
    truths = with_ensemble(pairs.pair_logits(context, images, captions, owners, rows))
    best = {name: each.reshape(len(images), -1).max(axis=1) for name, each in truths.items()}
    slack = SLACK if context.engine.executed == "fp32" else ROUNDED_SLACK
    return Thresholds(best, truths, captions_per_image, slack)
