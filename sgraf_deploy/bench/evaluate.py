"""R@K of a bundle on a split: encode, score every member, rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.recall import FoldReport, Ranks, RecallReport, Ties, evaluate, folds
from sgraf_deploy.data.captions import CaptionStats, encode_captions
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import check_regions, region_statistics
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.halving import Progress
from sgraf_deploy.runtime.logits import similarities, with_ensemble
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.versions import tool_versions

Stage = Callable[[str], Progress | None]
"""Told the name of each long stage as it begins; returns what to report its progress to."""

FOREIGN_NORM_RATIO = 2.0
"""Regions whose mean norm is off by more than this factor were likely extracted differently."""


@dataclass(frozen=True)
class EvalOptions:
    """How ranks are counted: ties (see `recall.rank_matrix`), and folds besides the whole."""

    ties: Ties = "last"
    folds: int | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes that an evaluation holds: encoded inputs, scratch of the tiles under way, result."""

    encoded: int
    tiles: int
    result: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """R@K by model (see `by_model`), and what is needed to compare two runs.

    `logits` are empty where ranks were counted on a GPU, tile by tile. Seconds are wall time of
    the stage on the engine's device, end to end.
    """

    reports: dict[str, RecallReport]
    fold_reports: dict[str, FoldReport]
    words: CaptionStats
    memory: Memory
    seconds: dict[str, float]
    logits: dict[str, NDArray[np.float32]]
    run: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything but the logits, as a JSON object."""
        return {
            "run": self.run,
            "reports": {name: report.to_json() for name, report in self.reports.items()},
            "folds": {name: report.to_json() for name, report in self.fold_reports.items()},
            "words": asdict(self.words),
            "memory_bytes": asdict(self.memory),
            "seconds": self.seconds,
            "warnings": list(self.warnings),
        }


def evaluate_split(
    scorer: Scorer,
    split: PrecompSplit,
    options: EvalOptions = EvalOptions(),
    *,
    stage: Stage = lambda name: None,
    warn: Callable[[str], None] = lambda message: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Evaluation:
    """Score every image with every caption of a split and rank them in both directions.

    `warn` is told each warning before the long stages begin. Raises DataError for regions that
    do not fit the bundle and for folds that do not divide the images, BundleError for a bundle
    without a vocabulary; all of it before anything is encoded.
    """
    manifest = scorer.bundle.manifest
    token_ids, words = _checked_inputs(scorer, split, options)
    warnings = foreign_regions(split.regions, manifest.region_statistics)
    for message in warnings:
        warn(message)
    times = [clock()]
    images = scorer.encode_images(split.regions, progress=stage("encoding images"))
    captions = scorer.encode_captions(token_ids, progress=stage("encoding captions"))
    times.append(clock())
    plan = scorer.plan(images, captions)
    logits: dict[str, NDArray[np.float32]] = {}
    fold_reports: dict[str, FoldReport] = {}
    if _counted(scorer, options):
        reports = _count(scorer, images, captions, split.captions_per_image, stage("scoring"))
        times.append(clock())
    else:
        logits = scorer.logits(images, captions, progress=stage("scoring"))
        times.append(clock())
        if len(logits) > 1:
            stage("combining")
        logits = by_model(logits)
        stage("ranking")
        reports, fold_reports = _rank(logits, split.captions_per_image, options)
    encoded, result = images.nbytes + captions.nbytes, plan.result_bytes * len(logits)
    return Evaluation(
        reports=reports,
        fold_reports=fold_reports,
        words=words,
        memory=Memory(encoded, plan.workers * plan.tile_bytes, result),
        seconds={"encode": times[1] - times[0], "score": times[2] - times[1]},
        logits=logits,
        run=describe_run(scorer, split),
        warnings=warnings,
    )


def by_model(members: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Logits as reports name them: `SGR`, `SGR-2`, `SAF`, …, then the ensemble of several.

    That is `SGRAF` for one SGR and one SAF, `ENSEMBLE` for others.
    """
    return {name.upper(): logits for name, logits in with_ensemble(members).items()}


def _checked_inputs(
    scorer: Scorer, split: PrecompSplit, options: EvalOptions
) -> tuple[list[NDArray[np.int32]], CaptionStats]:
    """The captions' token ids, once everything that could be wrong has been looked at."""
    manifest, folds = scorer.bundle.manifest, options.folds
    if folds is not None and (folds < 1 or split.images % folds):
        expected = f"a number that divides the {split.images} images"
        raise DataError("folds", expected=expected, got=folds)
    name = f"regions of split {split.name}"
    check_regions(split.regions, manifest.regions, manifest.img_dim, name)
    vocabulary = Vocabulary.load(scorer.bundle.vocabulary_path())
    return encode_captions(split.captions, Tokenizer(manifest.tokenizer or ""), vocabulary)


def _counted(scorer: Scorer, options: EvalOptions) -> bool:
    """Whether ranks are counted on the device: on a GPU, and where nothing needs the matrix."""
    return scorer.device != "cpu" and options == EvalOptions()


def _count(
    scorer: Scorer,
    images: EncodedImages,
    captions: EncodedCaptions,
    captions_per_image: int,
    progress: Progress | None,
) -> dict[str, RecallReport]:
    """R@K by model without the matrix."""
    found = scorer.count_ranks(images, captions, captions_per_image, progress=progress)
    return {
        name.upper(): RecallReport.of(
            Ranks(
                counts.image_to_text,
                counts.text_to_image,
                int(np.count_nonzero(counts.level_image_to_text)),
                int(np.count_nonzero(counts.level_text_to_image)),
            )
        )
        for name, counts in found.items()
    }


def _rank(
    logits: dict[str, NDArray[np.float32]], captions_per_image: int, options: EvalOptions
) -> tuple[dict[str, RecallReport], dict[str, FoldReport]]:
    """R@K by model, on the whole and, if asked for, in folds."""
    reports, fold_reports = {}, {}
    for name, matrix in logits.items():
        ranked = similarities(matrix) if options.ties == "authors" else matrix
        reports[name] = evaluate(ranked, captions_per_image, options.ties)
        if options.folds is not None:
            fold_reports[name] = folds(ranked, options.folds, captions_per_image, options.ties)
    return reports, fold_reports


def describe_run(scorer: Scorer, split: PrecompSplit) -> dict[str, Any]:
    """What a report carries so that two runs can be compared."""
    return {
        "bundle_sha256": scorer.bundle.sha256,
        "module": scorer.bundle.manifest.module,
        "members": list(scorer.members),
        "engine": scorer.engine_name,
        "precision": scorer.precision,
        "executed": scorer.executed,
        "device": scorer.device,
        "split": split.name,
        "images": split.images,
        "captions": len(split.captions),
        "versions": tool_versions(),
    }


def foreign_regions(regions: NDArray[Any], at_export: dict[str, Any] | None) -> tuple[str, ...]:
    """A warning where regions differ in scale from those that the bundle was exported with."""
    if at_export is None:
        return ()
    here, there = region_statistics(regions)["mean_norm"], at_export["mean_norm"]
    if there / FOREIGN_NORM_RATIO <= here <= there * FOREIGN_NORM_RATIO:
        return ()
    return (
        f"the regions' mean norm is {here:.3g}, at export it was {there:.3g}: "
        "were these features extracted in the same way?",
    )
