"""Writes the features of photographs as a split of a precomp folder, and goes on where it stopped.

The regions of every 32 photographs are a part, kept in a hidden folder, `.SPLIT.work`, until all
are there. Then the split's files are put together from the parts and renamed into place, the
features last: a reader finds a split only by them. Neither the jobs nor a kill change a byte.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sgraf_deploy.data.files import read_lines
from sgraf_deploy.data.regions import open_regions
from sgraf_deploy.data.split_files import IMAGES, NAMES, list_splits
from sgraf_deploy.errors import InputError
from sgraf_deploy.features.base import RegionExtractor
from sgraf_deploy.features.extraction import DEFAULTS, STAGES, Extraction, FeatureOptions
from sgraf_deploy.features.parts import SKIPPED, Parts, Plan, gather, read_skipped
from sgraf_deploy.features.paths import Photo
from sgraf_deploy.features.photographs import Skipped
from sgraf_deploy.features.recipe import FILE, Recipe, differences, read_recipe, write_recipe
from sgraf_deploy.features.reference import check_reference
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.files.work import (
    begin_work,
    discard_work,
    kept_work,
    publish_files,
    work_path,
    works,
)
from sgraf_deploy.progress import Progress

STEPS = ("planned", "part", "gathered", "withdrawn", "published", "discarded")
"""Every name that `step` is called with, right after the step has happened; besides these, each
file's name once it is in its place."""

_SPLIT = re.compile(r"[\w-][\w.-]*")


@dataclass(frozen=True)
class Report:
    """What was written: `images` with regions, and the photographs that were `skipped`.

    `present` photographs were done by an earlier run. `seconds` is the time of all jobs in each of
    `extraction.STAGES`, `elapsed` that of the whole.
    """

    images: int
    skipped: tuple[Skipped, ...]
    present: int
    seconds: dict[str, float]
    elapsed: float


def write_features(  # noqa: PLR0913  # three of them are callbacks
    photos: Sequence[Photo],
    extractor: RegionExtractor,
    folder: PathLike,
    split: str,
    options: FeatureOptions = DEFAULTS,
    *,
    progress: Progress = lambda done, total: None,
    step: Callable[[str], None] = lambda name: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Report:
    """Extract the regions of photographs and write them as a split of a folder.

    Writes `{split}_ims.npy` (images, regions, img_dim), `{split}_ids.txt`, `{split}_boxes.npy`
    (images, regions, 4) float32: x1, y1, x2, y2 in the upright photograph's pixels,
    `{split}_sizes.npy` (images, 2) int32: width and height, `extractor.json` and, where photographs
    were left out, `{split}_skipped.txt` with their ids and the reasons. `progress` counts what an
    earlier run has not done; it and `step`, which is called with each of `STEPS`, may be called by
    several threads.

    Raises:
        InputError: the split is there already, or work on it that was begun with other photographs,
            another recipe or dtype; another process writes it; the folder holds features of another
            recipe, or of none that is known, or work on them.
        DataError: no photograph can be read, or one of them with `on_error` `stop`; regions that
            are not finite, or too large for float16.

    Example:
        >>> from sgraf_deploy.features.folder import write_features
        >>> from sgraf_deploy.features.paths import find_photos
        >>> from sgraf_deploy.features.spec import open_extractor
        >>> extractor = open_extractor("grid:backbone.onnx,size=64,preset=imagenet")
        >>> report = write_features(find_photos(["photos"]).photos, extractor, "features", "dev")
        >>> report.images, len(report.skipped)
        (24, 0)
    """
    begin, root = clock(), Path(folder)
    check_target(root, split, extractor.spec, options)
    plan = Plan.of(photos, extractor.spec, options.dtype, options.max_pixels)
    with kept_work(root, split) as work:
        check_target(root, split, extractor.spec, options)
        _check_not_begun(root, split, options)
        finished = None if options.force else _finished(root, split, plan)
        if finished is None:
            plan = _begin(root, split, plan, extractor, options)
            step("planned")
            extraction = Extraction(photos, extractor, options, work, progress, step, clock)
            extraction.run()
            _publish(extraction, plan.recipe, root, split)
            finished = _report(extraction)
        discard_work(work)
        step("discarded")
    return replace(finished, elapsed=clock() - begin)


def check_target(folder: Path, split: str, recipe: Recipe, options: FeatureOptions) -> None:
    """Raise InputError where `write_features` would not write a split, before anything is done.

    With `resume` the photographs are compared later.
    """
    if not _SPLIT.fullmatch(split):
        expected = "letters, digits, and _ - . within"
        raise InputError("name of a split", expected=expected, got=repr(split))
    if not folder.is_dir():
        return
    splits = list_splits(folder, (IMAGES,))
    others = [name for name in splits if not (options.force and name == split)]
    _check_recipe(folder, recipe, others)
    _check_work(folder, recipe, split)
    if split in splits and not (options.force or options.resume):
        raise InputError(
            f"split {split} of {folder} exists already",
            hint="replace it with --force, or choose another --split or -o",
        )


def _check_not_begun(folder: Path, split: str, options: FeatureOptions) -> None:
    """Raise InputError for the work of a run that was stopped: others hold the lock."""
    if work_path(folder, split).exists() and not (options.force or options.resume):
        raise InputError(
            f"split {split} of {folder} was begun by a run that was stopped",
            hint="go on with --resume, or begin anew with --force",
        )


def _check_recipe(folder: Path, recipe: Recipe, splits: Sequence[str]) -> None:
    """Raise InputError unless the features of these splits were made by the same recipe."""
    path = folder / FILE
    if not splits:
        return
    if not path.exists():
        raise InputError(
            f"{folder} has features of unknown making: {splits[0]}{IMAGES}",
            expected=f"{FILE} beside them",
            hint="choose another folder with -o",
        )
    found = differences(read_recipe(path), recipe)
    if found:
        raise InputError(
            f"the features in {folder} were made by another recipe",
            expected=f"the extractor of {path}",
            got="; ".join(found),
            hint="use the same extractor, or choose another folder with -o",
        )


def _check_work(folder: Path, recipe: Recipe, split: str) -> None:
    """Raise InputError unless all work on other splits is of the same recipe."""
    for other in works(folder):
        plan = Plan.read(work_path(folder, other)) if other != split else None
        found = [] if plan is None else differences(plan.recipe, recipe)
        if found:
            raise InputError(
                f"split {other} of {folder} was begun by another recipe",
                expected="the same extractor for all splits of a folder",
                got="; ".join(found),
                hint=f"choose another folder with -o, or begin {other} anew with --force",
            )


def _finished(folder: Path, split: str, plan: Plan) -> Report | None:
    """The report of a split that an earlier run wrote by this plan; None where there is none.

    Raises InputError for a split of other photographs or another dtype.
    """
    path = folder / f"{split}{IMAGES}"
    if not path.exists():
        return None
    skipped = read_skipped(folder, split)
    left_out = {one.id for one in skipped}
    planned = [photo.id for photo in plan.photos]
    kept = [id_ for id_ in planned if id_ not in left_out]
    found = read_lines(folder / f"{split}{NAMES}", "ids")
    dtype = open_regions(path, (plan.recipe.regions, plan.recipe.img_dim)).dtype
    same = found == kept and left_out <= set(planned)
    for what, holds, expected, got in (
        ("photographs", same, f"{len(found):,}, the first {found[0]}", f"{len(kept):,}"),
        ("dtype", dtype == plan.dtype, dtype, plan.dtype),
    ):
        if not holds:
            raise InputError(
                f"split {split} of {folder} is there, with other {what}",
                expected=expected,
                got=got,
                hint="replace it with --force, or choose another --split or -o",
            )
    return Report(len(found), skipped, len(planned), dict.fromkeys(STAGES, 0.0), 0.0)


def _begin(
    folder: Path, split: str, plan: Plan, extractor: RegionExtractor, options: FeatureOptions
) -> Plan:
    """Make the work's folder with its plan, or check that the kept one has the same; returns it.

    What is there already is of the same recipe; the reference picture says whether it becomes the
    same here and now, too, with what other versions of packages and another processor make of it.
    """
    work = work_path(folder, split)
    kept = Plan.read(work) if options.resume else None
    if kept is not None:
        plan.check_same(kept, folder)
        _check_reference(extractor, kept.recipe)
    if (folder / FILE).exists() and list_splits(folder, (IMAGES,)):
        _check_reference(extractor, read_recipe(folder / FILE))
    if kept is not None:
        return kept
    begin_work(work)
    plan.write(work)
    try:
        # Of two runs that begin at once the one that looks last sees the plan of the other.
        _check_work(folder, plan.recipe, split)
    except InputError:
        discard_work(work)
        raise
    return plan


def _check_reference(extractor: RegionExtractor, kept: Recipe) -> None:
    """Raise GateError unless the reference picture has the regions that the same recipe says."""
    if kept.reference is not None and kept.sha256 == extractor.spec.sha256:
        check_reference(extractor, kept.reference)


def _publish(extraction: Extraction, recipe: Recipe, folder: Path, split: str) -> None:
    work, step = extraction.work, extraction.step
    ids = [photo.id for photo in extraction.photos]
    names = gather(Parts(work, extraction.parts), work, split, ids)
    # Another split may have been published meanwhile.
    others = [name for name in list_splits(folder, (IMAGES,)) if name != split]
    _check_recipe(folder, recipe, others)
    if not others:
        write_recipe(work, recipe)
        names.insert(0, FILE)
    step("gathered")
    former = [] if f"{split}{SKIPPED}" in names else [f"{split}{SKIPPED}"]
    publish_files(work, folder, names, withdrawn=former, step=step)
    step("published")


def _report(extraction: Extraction) -> Report:
    skipped = tuple(Parts(extraction.work, extraction.parts).skipped())
    images = len(extraction.photos) - len(skipped)
    return Report(images, skipped, extraction.present, extraction.seconds, 0.0)
