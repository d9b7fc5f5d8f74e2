"""Ranks of ground truths, counted tile by tile: the matrix of logits is never held.

Caption `captions_per_image * i + j` belongs to image `i`. Ground truths are scored first, as
pairs; then every tile is compared with them where it lies, on the host or on a GPU. A pair scored
alone and in a tile may differ by what its precision rounds (last bits in fp32, more in fp16). The
host's counter makes up for that; a GPU's rank can differ from the whole matrix's where two logits
are as close as that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sgraf_deploy.engines.ensemble import with_ensemble
from sgraf_deploy.engines.near_counts import ROUNDED_SLACK, SLACK
from sgraf_deploy.engines.ranks import RankCounter, RankCounts
from sgraf_deploy.errors import InputError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime import pairs
from sgraf_deploy.runtime.arguments import check_count
from sgraf_deploy.runtime.best_tiles import may_gain, search_best
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.matrix import Matrix, Results, score_share
from sgraf_deploy.runtime.part import Execution, check_same
from sgraf_deploy.runtime.partial import PartialRanks, RankedWhole
from sgraf_deploy.runtime.pruning import count_pruned
from sgraf_deploy.runtime.share import Share
from sgraf_deploy.runtime.thresholds import RankThresholds, make_thresholds
from sgraf_deploy.runtime.tiles import Tiling
from sgraf_deploy.runtime.top_k import BestFinder, ListedWhole, PartialTopK


def count_ranks(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    captions_per_image: int,
    progress: Progress | None = None,
    out: Matrix | None = None,
    *,
    ensemble_only: bool = False,
) -> dict[str, RankCounts]:
    """Count the ranks of every ground truth in both directions, by member and for their ensemble.

    `out` (images, captions) takes the similarities. With `ensemble_only` the members' own ranks are
    not counted. Raises InputError unless every image has so many captions, and DataError for a
    logit that is not finite.
    """
    thresholds = score_truths(context, images, captions, captions_per_image)
    share = Share.whole(context.tiling(len(images), captions.lengths))
    part = count_share(
        context, images, captions, thresholds, share, progress, out, ensemble_only=ensemble_only
    )
    return part.counts(thresholds)


def score_truths(
    context: Context, images: EncodedImages, captions: EncodedCaptions, captions_per_image: int
) -> RankThresholds:
    """Score the ground truths as pairs; their logits are the thresholds of the candidates.

    Raises InputError unless every image has so many captions.
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
    rows = np.arange(len(captions), dtype=np.int32)
    owners = (rows // captions_per_image).astype(np.int32)
    truths = with_ensemble(pairs.pair_logits(context, images, captions, owners, rows))
    slack = SLACK if context.engine.executed == "fp32" else ROUNDED_SLACK
    return make_thresholds(Execution.of(context), truths, int(captions_per_image), slack)


def count_share(  # noqa: PLR0913  # what is counted, where, and who is told
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    thresholds: RankThresholds,
    share: Share,
    progress: Progress | None = None,
    out: Matrix | None = None,
    *,
    ensemble_only: bool = False,
) -> PartialRanks:
    """Count what some tiles hold; `out` (images, captions) takes their similarities.

    With `ensemble_only` the members' own ranks are not counted, and unless there is an `out`, they
    score no more than the ensemble's ranks need.

    Raises InputError for thresholds of another scorer or of other images and captions, and
    DataError for a logit that is not finite.
    """
    execution, tiling = Execution.of(context), share.tiling
    check_same("thresholds", execution, thresholds.execution, "compute them with such a scorer")
    found, expected = ((each.images, each.captions) for each in (thresholds, tiling))
    if found != expected:
        raise InputError("images, captions of the thresholds", expected=expected, got=found)
    scored = context.scored.begin()
    models = thresholds.models[-1:] if ensemble_only else thresholds.models
    if ensemble_only and out is None and context.prunes:
        values = thresholds.values.only(*models)
        counter: RankCounter = count_pruned(
            context, images, captions, values, share, scored, progress
        )
    else:
        counter = context.engine.rank_counter(thresholds.values)
        results = Results(similarities=out, ranks=counter)
        score_share(context, images, captions, results, share, scored, progress)
    touched = share.touched(thresholds.values.captions_per_image)
    tallies = counter.tallies(touched)
    whole = RankedWhole(**_whole(execution, tiling), thresholds=thresholds.digest)
    counted = {name: tallies[name] for name in models}
    return PartialRanks(whole, share.numbers, scored.counts(), touched, counted)


def find_best(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    k: int,
    share: Share,
    progress: Progress | None = None,
) -> PartialTopK:
    """Find the best `k` candidates in some tiles, of all members combined.

    Raises DataError for a logit that is NaN, among those that are computed.
    """
    tiling, touched, scored = share.tiling, share.touched(), context.scored.begin()
    finder = BestFinder(touched, tiling.images, tiling.captions, k)
    if context.prunes and may_gain(k, touched):
        search_best(context, images, captions, share, scored, finder, progress)
    else:
        score_share(context, images, captions, Results(best=finder), share, scored, progress)
    whole = ListedWhole(**_whole(Execution.of(context), tiling), k=k)
    sides = touched.images, touched.captions
    return PartialTopK(whole, share.numbers, scored.counts(), *sides, *finder.found())


def _whole(execution: Execution, tiling: Tiling) -> dict[str, Any]:
    """The fields of a `Whole`."""
    sizes = {"images": tiling.images, "captions": tiling.captions}
    return vars(execution) | {"tiling": tiling.digest, "tiles": len(tiling)} | sizes
