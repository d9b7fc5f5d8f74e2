"""`sgraf-deploy features`: photographs to regions, as a split of a precomp folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE_PATH,
    CAPTION_COUNT,
    PATH,
    check_regions_fit,
    check_result_file,
    count,
    dimensions,
    gathered,
    show_finding,
)
from sgraf_deploy.cli.features_compare import Compared, compare_folders
from sgraf_deploy.cli.photos import (
    MAX_PIXELS_OPTION,
    end_if_skipped,
    on_error_option,
    tell_skipped,
)
from sgraf_deploy.cli.terminal import duration, echo, progress_bars, warn
from sgraf_deploy.config import MAX_PIXELS

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.features.base import RegionExtractor
    from sgraf_deploy.features.extraction import FeatureOptions
    from sgraf_deploy.features.folder import Report
    from sgraf_deploy.features.paths import Found

_JOBS = click.IntRange(min=1)


@dataclass(frozen=True)
class Source:
    """What is extracted: the photographs, the extractor, and how."""

    paths: tuple[Path, ...]
    ids: Path | None
    extractor: str | None
    dtype: Any
    jobs: int
    resume: bool
    force: bool
    on_error: Any
    max_pixels: int | None

    def options(self) -> FeatureOptions:
        """As the options of the writer."""
        from sgraf_deploy.features.extraction import FeatureOptions

        most = self.max_pixels or MAX_PIXELS
        return FeatureOptions(self.dtype, self.jobs, self.on_error, most, self.resume, self.force)


@click.command(short_help="Extract the regions of photographs, for the other commands.")
@click.argument("paths", nargs=-1, type=PATH)
@click.option(
    "--extractor",
    metavar="SPEC",
    help="What makes regions of photographs: grid:MODEL.onnx or boxes:DETECTOR.onnx+MODEL.onnx, "
    "each with ,OPTION=VALUE …; an extractor.json beside its models; or a bundle that has one. "
    "docs/photographs.md lists the options.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=PATH,
    required=True,
    metavar="DIR",
    help="Folder to write to. It may exist and have other splits, of the same extractor. Without "
    "PATHS nothing is extracted: the features that it has are compared.",
)
@click.option(
    "--split", required=True, metavar="NAME", help="Name of the split, such as train, dev or test."
)
@click.option(
    "--ids",
    type=PATH,
    metavar="FILE",
    help="Take only the photographs with these ids, one a line, in this order. Default: all of "
    "them.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float32",
    show_default=True,
    help="How features are stored; float16 takes half the bytes.",
)
@click.option(
    "--jobs",
    type=_JOBS,
    default=1,
    show_default=True,
    metavar="N",
    help="Number of photographs to work on at a time, each on a processor core of its own. It does "
    "not change a byte of the result.",
)
@on_error_option(" in SPLIT_skipped.txt", "no file appears")
@MAX_PIXELS_OPTION
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with what a run that was stopped has done, for the same photographs and options; "
    "nothing is done if the split is complete.",
)
@click.option(
    "--force", is_flag=True, help="Replace an existing split, or work that was begun on it."
)
@click.option(
    "--like",
    type=BUNDLE_PATH,
    metavar="BUNDLE",
    help="Check that the features are such as this bundle's model was trained on, and warn if not. "
    "With --compare, also measure the R@K of both folders' features with it, if SPLIT_caps.txt is "
    "in one of them.",
)
@click.option(
    "--compare",
    "other",
    type=PATH,
    metavar="OTHER",
    help="Compare the features in DIR with those of the same photographs and the same split in "
    "this folder, region by region.",
)
@click.option(
    "--json",
    "json_file",
    type=PATH,
    metavar="FILE",
    help="Also write the result of --compare to this file, as JSON.",
)
@CAPTION_COUNT
@gathered(Source, "source")
@gathered(Compared, "compared")
def features(
    *, folder: Path, split: str, like: Path | str | None, source: Source, compared: Compared
) -> None:
    """Extract the regions of photographs, and write them as a split of a precomp folder.

    PATHS are files and folders; of a folder, all photographs in it and below it are taken, sorted
    by name. An image's id is its file's name, or its path below the folder that was given.

    DIR then has SPLIT_ims.npy (images, regions, img_dim), SPLIT_ids.txt, SPLIT_boxes.npy with each
    region's x1, y1, x2, y2 in the upright photograph's pixels, SPLIT_sizes.npy with widths and
    heights, and extractor.json, the recipe. Put SPLIT_caps.txt beside them for train and eval.

    With --compare, the features in DIR are compared with others of the same photographs; without
    PATHS that is all.
    """
    from sgraf_deploy.bundle.bundle import Bundle

    _check_options(source, like, compared)
    check_result_file(compared.json_file, "--json")
    bundle = None if like is None else Bundle.open(like)
    report = _extract(source, folder, split, bundle) if source.paths else None
    if bundle is not None:
        _check_like(bundle, folder, split, compared.captions_per_image)
    if compared.other is not None:
        compare_folders(folder, compared.other, split, bundle, compared)
    end_if_skipped(() if report is None else report.skipped)


def _check_options(source: Source, like: Path | str | None, compared: Compared) -> None:
    """Raise InputError for options that need others, or that go with nothing."""
    from sgraf_deploy.errors import InputError

    if source.paths and source.extractor is None:
        hint = "name what makes regions, such as --extractor grid:MODEL.onnx,size=224"
        raise InputError("--extractor", expected="SPEC together with PATHS", hint=hint)
    if not source.paths and (source.extractor is not None or (like is None and not compared.other)):
        expected = "photographs, or folders with photographs"
        hint = "without PATHS, --compare OTHER or --like BUNDLE looks at the features in DIR"
        raise InputError("PATHS", expected=expected, got="none", hint=hint)
    if compared.json_file is not None and compared.other is None:
        raise InputError("--json", expected="--compare OTHER together with it", got="none")


def _extract(source: Source, folder: Path, split: str, bundle: Bundle | None) -> Report:
    """Extract and write, and say what was done."""
    from sgraf_deploy.features.folder import check_target, write_features
    from sgraf_deploy.features.paths import find_photos
    from sgraf_deploy.features.spec import open_extractor

    found = find_photos(source.paths, source.ids)
    extractor = open_extractor(source.extractor or "")
    try:
        check_target(folder, split, extractor.spec, source.options())
        if bundle is not None:
            _check_extractor(bundle, extractor)
        echo(_introduction(found, extractor))
        with progress_bars() as bars:
            report = write_features(
                found.photos,
                extractor,
                folder,
                split,
                source.options(),
                progress=bars("extracting", "photographs"),
            )
    except KeyboardInterrupt:
        echo("What is done is kept: the same command with --resume goes on with it", err=True)
        raise
    finally:
        extractor.close()
    _summarise(report, folder, split)
    return report


def _introduction(found: Found, extractor: RegionExtractor) -> str:
    others = f"; {count(found.left_out, 'other file')} left out" if found.left_out else ""
    shape = f"{extractor.regions} regions of {extractor.img_dim} numbers each"
    return f"{count(len(found.photos), 'photograph')}{others}; {shape}"


def _summarise(report: Report, folder: Path, split: str) -> None:
    """Print what was left out and why, what was written, and at what rate."""
    tell_skipped(report.skipped, folder / f"{split}_skipped.txt")
    done = report.images + len(report.skipped) - report.present
    left_out = f"; {len(report.skipped):,} skipped" if report.skipped else ""
    earlier = count(report.present, "photograph")
    before = f"; {earlier} looked at by an earlier run" if report.present else ""
    echo(f"split {split} of {folder}: {count(report.images, 'image')}{left_out}{before}")
    total = sum(report.seconds.values())
    if done and total > 0:
        shares = ", ".join(f"{name} {part / total:.0%}" for name, part in report.seconds.items())
        rate = done / report.elapsed if report.elapsed else 0.0
        echo(f"{rate:,.1f} photographs/s, {duration(report.elapsed)}; {shares}")


def _check_extractor(bundle: Bundle, extractor: RegionExtractor) -> None:
    """Raise unless what an extractor makes fits a bundle, before hours are spent on it.

    Where the bundle has an extractor of its own, the reference picture must give the same regions.
    """
    from sgraf_deploy.errors import DataError
    from sgraf_deploy.features.bundled import bundle_recipe
    from sgraf_deploy.features.reference import check_reference

    made = extractor.regions, extractor.img_dim
    if made != dimensions(bundle):
        raise DataError(
            f"the extractor's regions do not fit {bundle.path.name}",
            expected=f"(regions, img_dim) = {dimensions(bundle)}",
            got=made,
            hint="choose another model, size or projection",
        )
    if bundle.manifest.extractor is None:
        return
    recipe, _ = bundle_recipe(bundle)
    if recipe.reference is not None:
        check_reference(extractor, recipe.reference)


def _check_like(bundle: Bundle, folder: Path, split: str, per_image: int) -> None:
    """Warn of features that are unlike those that a bundle's model was trained on."""
    from sgraf_deploy.data.precomp import open_images

    chosen = open_images(folder, split, captions_per_image=per_image, model=dimensions(bundle))
    for finding in chosen.findings:
        show_finding(finding)
    check_regions_fit(bundle, chosen.regions, f"regions of split {split}")
    _compare_recipes(bundle, folder)


def _compare_recipes(bundle: Bundle, folder: Path) -> None:
    """Warn where a folder's features were made by another recipe than a bundle's extractor has."""
    from sgraf_deploy.features.bundled import bundle_recipe
    from sgraf_deploy.features.recipe import FILE, differences, read_recipe

    path = folder / FILE
    if bundle.manifest.extractor is None or not path.exists():
        return
    found = differences(bundle_recipe(bundle)[0], read_recipe(path))
    if found:
        warn(f"{path} is another recipe than that of {bundle.path.name}: {'; '.join(found)}")
