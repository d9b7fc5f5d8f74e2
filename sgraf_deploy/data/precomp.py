"""The `*_precomp` folders of image-text matching: features and captions of a split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import CAPTIONS_PER_IMAGE
from sgraf_deploy.data.captions import read_captions
from sgraf_deploy.data.files import read_lines
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.layout import Dimensions
from sgraf_deploy.data.regions import conversion_findings, open_regions
from sgraf_deploy.data.split_files import CAPTIONS, IMAGES, NAMES, find_split, list_splits
from sgraf_deploy.data.stored_rows import once_in_runs, once_per_image
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.disk import PathLike

__all__ = ["PrecompSplit", "list_splits", "open_images", "open_precomp"]

AUTHORS_DEV_CAPTIONS = 5000
"""The captions of the dev split that the authors' loader keeps, to make validation fast."""


@dataclass(frozen=True, eq=False)
class PrecompSplit:
    """One split: every image once, and its captions one after the other.

    regions: (images, regions, img_dim) of any float dtype, memory-mapped; image_of_caption:
    (captions,) int32; ids: the images' names, or None if the folder has none. `findings` are about
    the files themselves.
    """

    name: str
    regions: NDArray[Any]
    captions: list[str]
    image_of_caption: NDArray[np.int32]
    ids: list[str] | None = None
    captions_per_image: int = CAPTIONS_PER_IMAGE
    findings: tuple[Finding, ...] = ()

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.regions)

    def image_name(self, row: int) -> str:
        """The name of the image of that row, or, if there are none, its number."""
        return self.ids[row] if self.ids else f"image {row}"

    def first(self, images: int) -> PrecompSplit:
        """The first `images` images, which must not be more than there are, with their captions."""
        captions = images * self.captions_per_image
        return replace(
            self,
            regions=self.regions[:images],
            captions=self.captions[:captions],
            image_of_caption=self.image_of_caption[:captions],
            ids=None if self.ids is None else self.ids[:images],
        )


def open_precomp(
    folder: PathLike,
    split: str,
    *,
    captions_per_image: int = CAPTIONS_PER_IMAGE,
    model: Dimensions | None = None,
    limit_images: int | None = None,
    authors_dev: bool = False,
) -> PrecompSplit:
    """Open `{split}_ims.npy` (mapped, not read), `{split}_caps.txt` and, if any, `{split}_ids.txt`.

    Features may be stored once per image or once per caption, as the authors' loader accepts them.
    `model` gives the regions and the img_dim that a model takes. `authors_dev` cuts the split `dev`
    to 5,000 captions, `limit_images` any split to its first images. Raises DataError for missing
    files, features that do not fit the model, counts that do not match, repeated features that
    differ, and a limit that is out of range. `check_regions` checks the values.
    """
    root = Path(folder)
    _check_count(captions_per_image)
    images_file, captions_file = find_split(root, split, (IMAGES, CAPTIONS), model)
    stored = open_regions(images_file, model)
    captions = read_captions(captions_file)
    files = images_file, captions_file
    regions = once_per_image(stored, len(captions), captions_per_image, files)
    image_of = np.arange(len(captions), dtype=np.int32) // np.int32(captions_per_image)
    opened = _with_names(
        PrecompSplit(split, regions, captions, image_of, captions_per_image=captions_per_image),
        root,
    )
    if authors_dev:
        if split != "dev":
            raise DataError("the cut of --authors-dev", expected="the split dev", got=split)
        most = max(1, AUTHORS_DEV_CAPTIONS // captions_per_image)
        opened = opened.first(min(opened.images, most))
    return _first(opened, root, limit_images)


def open_images(
    folder: PathLike,
    split: str,
    *,
    captions_per_image: int = CAPTIONS_PER_IMAGE,
    model: Dimensions | None = None,
    limit_images: int | None = None,
) -> PrecompSplit:
    """The same without captions, whose file may be missing.

    Features that are stored once per caption are recognised by their values, unless the rows have
    names of their own. Raises like `open_precomp`.
    """
    root = Path(folder)
    _check_count(captions_per_image)
    (images_file,) = find_split(root, split, (IMAGES,), model)
    regions: NDArray[Any] = open_regions(images_file, model)
    if not _each_row_is_named(root, split, len(regions), captions_per_image):
        regions = once_in_runs(regions, captions_per_image)
    none = np.empty(0, dtype=np.int32)
    opened = PrecompSplit(split, regions, [], none, captions_per_image=captions_per_image)
    return _first(_with_names(opened, root), root, limit_images)


def _check_count(captions_per_image: int) -> None:
    if captions_per_image < 1:
        expected = "at least 1"
        raise InputError("captions per image", expected=expected, got=captions_per_image)


def _first(split: PrecompSplit, root: Path, limit: int | None) -> PrecompSplit:
    if limit is None:
        return split
    if not 1 <= limit <= split.images:
        raise DataError(
            f"limit of images for split {split.name} of {root}",
            expected=f"1 … {split.images}, the number of images",
            got=limit,
        )
    return split.first(limit)


def _with_names(split: PrecompSplit, root: Path) -> PrecompSplit:
    """The split with its images' names, and with findings about its files."""
    findings = conversion_findings(split.regions, f"the regions of split {split.name}")
    path = root / f"{split.name}{NAMES}"
    ids = None
    if path.exists():
        try:
            ids = _read_names(path, split.images, split.captions_per_image)
        except DataError as error:
            message = f"the images' names are ignored: {error.reason}"
            findings += (Finding("names-left-out", message),)
    return replace(split, ids=ids, findings=findings)


def _each_row_is_named(root: Path, split: str, rows: int, per_image: int) -> bool:
    """Whether every row has a name, and not every image's rows the same one."""
    path = root / f"{split}{NAMES}"
    if not path.exists():
        return False
    try:
        names = read_lines(path, "image names")
    except DataError:
        return False
    runs = [name for name in names[::per_image] for _ in range(per_image)]
    return len(names) == rows and names != runs


def _read_names(path: Path, images: int, per_image: int) -> list[str]:
    """The images' names; like the features, they may be stored once per caption."""
    names = read_lines(path, "image names")
    if len(names) == images * per_image:
        once = names[::per_image]
        if names == [name for name in once for _ in range(per_image)]:
            return once
    if len(names) != images:
        raise DataError(f"image names {path}", expected=f"{images} lines", got=len(names))
    return names
