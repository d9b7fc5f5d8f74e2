"""Evaluates R@K of a bundle on a split: encode, score every member, rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.data.captions import CaptionStats
from sgraf_deploy.data.checks import CheckedSplit, check_split
from sgraf_deploy.data.findings import Finding, Tell
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.engines.ensemble import similarities, with_ensemble
from sgraf_deploy.engines.ranks import RankCounts
from sgraf_deploy.errors import DataError
from sgraf_deploy.evaluation.chance import chance_findings
from sgraf_deploy.evaluation.cost import Cost, Memory, estimate_seconds, plan_memory
from sgraf_deploy.evaluation.recall import (
    FoldReport,
    Ranks,
    RecallReport,
    Ties,
    folds,
    rank_matrix,
    row_blocks,
)
from sgraf_deploy.progress import Stage
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.outputs import check_outputs
from sgraf_deploy.runtime.part import Execution
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.runtime.tokens import bundle_tokenizer
from sgraf_deploy.versions import tool_versions

Announce = Callable[[Cost], None]
"""Told the estimated cost before anything is encoded."""


@dataclass(frozen=True)
class EvalOptions:
    """How ranks are counted: the rule for ties (see `recall.rank_matrix`), and folds if any.

    With `ensemble_only` the ranks of the ensemble alone are reported, for which the scorer may
    leave members out (see `Scorer.count_ranks`); of a bundle with one member, its own.
    """

    ties: Ties = "last"
    folds: int | None = None
    ensemble_only: bool = False

    @property
    def needs_matrix(self) -> bool:
        """Whether every model's matrix of logits is held; if not, ranks are counted by tiles."""
        return self.ties != "last" or self.folds is not None

    @property
    def ranks_from(self) -> Literal["tiles", "matrix"]:
        """Where reports say that ranks were counted."""
        return "matrix" if self.needs_matrix else "tiles"

    def matrices(self, scorer: Scorer) -> int:
        """How many matrices are held: one per member, and one for the ensemble of several."""
        members = len(scorer.members)
        return members + (members > 1) if self.needs_matrix else 0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Ranks by model (see `by_model`), and what is needed to compare two runs.

    `logits` is empty where ranks were counted by tiles. `seconds` is wall time by stage, end to
    end; None for a stage of which earlier runs of a job did pieces.
    """

    ranks: dict[str, Ranks]
    fold_reports: dict[str, FoldReport]
    words: CaptionStats
    memory: Memory
    seconds: Mapping[str, float | None]
    logits: dict[str, NDArray[np.float32]]
    run: dict[str, Any] = field(default_factory=dict)
    of_the_data: tuple[Finding, ...] = ()
    """Known before the long stages."""
    of_the_ranks: tuple[Finding, ...] = ()

    @cached_property
    def reports(self) -> dict[str, RecallReport]:
        """R@K by model."""
        return rank_reports(self.ranks)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything suspicious, in the data and in the ranks."""
        return self.of_the_data + self.of_the_ranks

    def to_json(self) -> dict[str, Any]:
        """Everything but the logits and the ranks, as a JSON object."""
        return {
            "run": self.run,
            "reports": {name: report.to_json() for name, report in self.reports.items()},
            "folds": {name: report.to_json() for name, report in self.fold_reports.items()},
            "words": asdict(self.words),
            "memory_bytes": asdict(self.memory),
            "seconds": self.seconds,
            "warnings": [one.message for one in self.findings if one.is_warning],
            "notes": [one.message for one in self.findings if not one.is_warning],
        }


def evaluate_split(  # noqa: PLR0913  # four of them are callbacks
    scorer: Scorer,
    split: PrecompSplit,
    options: EvalOptions = EvalOptions(),
    *,
    out: NDArray[np.float32] | None = None,
    stage: Stage = lambda name: None,
    tell: Tell = lambda finding: None,
    announce: Announce | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Evaluation:
    """Score every image with every caption of a split and rank them in both directions.

    `out`, float32 (images, captions), receives the similarities, those of the ensemble if there are
    several members. Before the long stages `tell` is told what is suspicious in the data, and
    `announce` what they will take. Raises DataError for regions that do not fit the bundle, folds
    that do not divide the images and an `out` that does not fit, and BundleError for a bundle
    without a vocabulary, all before anything is encoded.
    """
    checked = _checked_inputs(scorer, split, options, out)
    for finding in checked.findings:
        tell(finding)
    memory = plan_memory(scorer, checked.token_ids, split.images, options.matrices(scorer))
    if announce is not None:
        seconds = estimate_seconds(scorer, split.regions, checked.token_ids, clock)
        announce(Cost(memory, seconds))
    times = [clock()]
    images = scorer.encode_images(split.regions, progress=stage("encoding images"))
    captions = scorer.encode_captions(checked.token_ids, progress=stage("encoding captions"))
    times.append(clock())
    encoded = _Encoded(scorer, images, captions, split.captions_per_image, out)
    before = scorer.scored_pairs()
    if options.needs_matrix:
        scored = _by_matrices(encoded, options, stage, clock)
    else:
        scored = _by_tiles(encoded, options, stage, clock)
    return Evaluation(
        ranks=scored.ranks,
        fold_reports=scored.fold_reports,
        words=checked.words,
        memory=memory,
        seconds={"encode": times[1] - times[0], "score": scored.done - times[1]},
        logits=scored.logits,
        run=describe_scored(scorer, split)
        | {
            "ranks_from": options.ranks_from,
            "scored_share": scored_shares(_scored_since(before, scorer)),
        },
        of_the_data=checked.findings,
        of_the_ranks=chance_findings(rank_reports(scored.ranks)),
    )


def by_model(members: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Logits as reports name them: `SGR`, `SGR-2`, `SAF`, …, then the ensemble of several.

    The ensemble is `SGRAF` for one SGR and one SAF, `ENSEMBLE` for others.
    """
    return {name.upper(): logits for name, logits in with_ensemble(members).items()}


def _checked_inputs(
    scorer: Scorer, split: PrecompSplit, options: EvalOptions, out: NDArray[np.float32] | None
) -> CheckedSplit:
    """Check everything that could be wrong; returns the captions' token ids and findings."""
    if out is not None:
        check_outputs({"out": out}, (split.images, len(split.captions)), ())
    folds = options.folds
    if folds is not None and (folds < 1 or split.images % folds):
        expected = f"a number that divides the {split.images} images"
        raise DataError("folds", expected=expected, got=folds)
    return check_for(scorer.bundle, split, scorer.max_words)


def check_for(
    bundle: Bundle, split: PrecompSplit, max_words: int | None = MAX_WORDS
) -> CheckedSplit:
    """Check a split as a bundle will read it; raises as `check_split`, and BundleError.

    None of its captions may be longer than `max_words`, unless that is None.
    """
    manifest, vocabulary = bundle.manifest, Vocabulary.load(bundle.vocabulary_path())
    tokenizer = bundle_tokenizer(bundle, vocabulary, max_words)
    dimensions = (manifest.regions, manifest.img_dim)
    return check_split(split, dimensions, tokenizer, vocabulary, manifest.region_statistics)


@dataclass(frozen=True, eq=False)
class _Encoded:
    """The encoded inputs, and where the similarities go."""

    scorer: Scorer
    images: EncodedImages
    captions: EncodedCaptions
    captions_per_image: int
    out: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class _Scored:
    """Ranks by model; `done` is when the last pair was scored."""

    done: float
    ranks: dict[str, Ranks]
    fold_reports: dict[str, FoldReport] = field(default_factory=dict)
    logits: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def rank_reports(ranks: Mapping[str, Ranks]) -> dict[str, RecallReport]:
    """R@K by model."""
    return {name: RecallReport.of(each) for name, each in ranks.items()}


def scored_shares(scored: Mapping[str, int]) -> dict[str, float]:
    """The share of all pairs that each member has scored, given how many of them."""
    most = max(1, *scored.values())  # The first member scores every pair.
    return {name: pairs / most for name, pairs in scored.items()}


def _scored_since(before: Mapping[str, int], scorer: Scorer) -> dict[str, int]:
    return {name: pairs - before[name] for name, pairs in scorer.scored_pairs().items()}


def _by_tiles(
    encoded: _Encoded, options: EvalOptions, stage: Stage, clock: Callable[[], float]
) -> _Scored:
    """Ranks by model, counted tile by tile without a matrix of logits."""
    found = encoded.scorer.count_ranks(
        encoded.images,
        encoded.captions,
        encoded.captions_per_image,
        ensemble_only=options.ensemble_only,
        out=encoded.out,
        progress=stage("scoring"),
    )
    return _Scored(clock(), ranks_by_model(found))


def ranks_by_model(found: Mapping[str, RankCounts]) -> dict[str, Ranks]:
    """Counts as reports name and hold them; see `by_model`."""
    return {
        name.upper(): Ranks(
            counts.image_to_text,
            counts.text_to_image,
            int(np.count_nonzero(counts.level_image_to_text)),
            int(np.count_nonzero(counts.level_text_to_image)),
        )
        for name, counts in found.items()
    }


def _by_matrices(
    encoded: _Encoded, options: EvalOptions, stage: Stage, clock: Callable[[], float]
) -> _Scored:
    """Ranks by model, from whole matrices of logits."""
    scorer = encoded.scorer
    logits = scorer.logits(encoded.images, encoded.captions, progress=stage("scoring"))
    done = clock()
    if len(logits) > 1:
        stage("combining")
    logits = by_model(logits)
    if encoded.out is not None:
        reported = list(logits.values())[-1]
        for rows in row_blocks(*reported.shape):
            encoded.out[rows] = similarities(reported[rows])
    if options.ensemble_only:
        logits = dict([logits.popitem()])
    stage("ranking")
    return _Scored(done, *_rank(logits, encoded.captions_per_image, options), logits)


def _rank(
    logits: dict[str, NDArray[np.float32]], captions_per_image: int, options: EvalOptions
) -> tuple[dict[str, Ranks], dict[str, FoldReport]]:
    """Ranks by model on the whole and, if asked for, R@K in folds."""
    ranks, fold_reports = {}, {}
    for name, matrix in logits.items():
        ranked = similarities(matrix) if options.ties == "authors" else matrix
        ranks[name] = rank_matrix(ranked, captions_per_image, options.ties)
        if options.folds is not None:
            fold_reports[name] = folds(ranked, options.folds, captions_per_image, options.ties)
    return ranks, fold_reports


def describe_scored(scorer: Scorer, split: PrecompSplit) -> dict[str, Any]:
    """The part of a report by which two runs can be compared."""
    sizes = split.images, len(split.captions), split.captions_per_image
    return describe_run(scorer.bundle, scorer.execution, scorer.device, split.name, sizes)


def describe_run(
    bundle: Bundle, execution: Execution, device: str, split: str, sizes: tuple[int, int, int]
) -> dict[str, Any]:
    """The same of a run elsewhere; `sizes` are images, captions and captions per image."""
    return {
        "bundle_sha256": bundle.sha256,
        "module": bundle.manifest.module,
        "members": list(bundle.manifest.members),
        "engine": execution.engine,
        "precision": execution.precision,
        "executed": execution.executed,
        "device": device,
        "split": split,
        "images": sizes[0],
        "captions": sizes[1],
        "captions_per_image": sizes[2],
        "versions": tool_versions(),
    }
