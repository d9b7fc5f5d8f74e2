"""The `*_precomp` folders of image-text matching: features and captions of a split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.captions import read_captions
from sgraf_deploy.data.files import PathLike, read_lines
from sgraf_deploy.data.regions import open_regions, spread
from sgraf_deploy.errors import DataError

CAPTIONS_PER_IMAGE = 5
AUTHORS_DEV_CAPTIONS = 5000
"""What the authors' loader cuts the dev split to, to make validation quick."""

_IMAGES_SUFFIX = "_ims.npy"
_CAPTIONS_SUFFIX = "_caps.txt"
_IDS_SUFFIX = "_ids.txt"
_SAMPLED_IMAGES = 32


@dataclass(frozen=True, eq=False)
class PrecompSplit:
    """One split: every image once, its captions one after the other.

    regions: (images, regions, img_dim) float32 or float16, memory-mapped; image_of_caption:
    (captions,) int32; ids: the images' names, None where the folder has none.
    """

    name: str
    regions: NDArray[Any]
    captions: list[str]
    image_of_caption: NDArray[np.int32]
    ids: list[str] | None = None
    captions_per_image: int = CAPTIONS_PER_IMAGE

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.regions)

    def first(self, images: int) -> PrecompSplit:
        """The first images, at most all of them, with their captions."""
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
    limit_images: int | None = None,
    authors_dev: bool = False,
) -> PrecompSplit:
    """Open `{split}_ims.npy` (mapped, not read), `{split}_caps.txt` and, if any, `{split}_ids.txt`.

    Features may be stored once per image or five times in a row, as the authors' loader takes
    them. `authors_dev` cuts the split `dev` to 5,000 captions, `limit_images` any split to its
    first images. Raises DataError for missing files, counts that do not match, repeated
    features that differ, and a limit out of range. Values are checked by `check_regions`.
    """
    root = Path(folder)
    images_file, captions_file = _split_files(root, split)
    stored = open_regions(images_file)
    captions = read_captions(captions_file)
    regions = _once_per_image(stored, len(captions), images_file, captions_file)
    ids = _read_ids(root / f"{split}{_IDS_SUFFIX}", len(regions))
    kept = len(regions)
    if authors_dev:
        if split != "dev":
            raise DataError("the authors' cut", expected="the split dev", got=split)
        kept = min(kept, AUTHORS_DEV_CAPTIONS // CAPTIONS_PER_IMAGE)
    if limit_images is not None:
        if not 1 <= limit_images <= kept:
            raise DataError(
                f"limit of images for split {split} of {root}",
                expected=f"1 … {kept}, the images that there are",
                got=limit_images,
            )
        kept = limit_images
    owners = np.arange(len(captions), dtype=np.int32) // np.int32(CAPTIONS_PER_IMAGE)
    return PrecompSplit(split, regions, captions, owners, ids).first(kept)


def list_splits(folder: PathLike) -> list[str]:
    """The splits of which a folder has both the features and the captions, sorted.

    Raises DataError where there is no such folder.
    """
    root = Path(folder)
    try:
        names = {entry.name for entry in root.iterdir()}
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"data folder {root} cannot be read",
            expected=f"a folder with SPLIT{_IMAGES_SUFFIX} and SPLIT{_CAPTIONS_SUFFIX}",
            got=reason,
        ) from error
    splits = (name.removesuffix(_IMAGES_SUFFIX) for name in names if name.endswith(_IMAGES_SUFFIX))
    return sorted(split for split in splits if f"{split}{_CAPTIONS_SUFFIX}" in names)


def _split_files(root: Path, split: str) -> tuple[Path, Path]:
    """The two files of a split; DataError names a missing one and the splits that exist."""
    splits = list_splits(root)
    files = root / f"{split}{_IMAGES_SUFFIX}", root / f"{split}{_CAPTIONS_SUFFIX}"
    if split not in splits:
        missing = [file.name for file in files if not file.exists()]
        raise DataError(
            f"data folder {root} has no split {split!r}",
            expected=" and ".join(missing) or f"a split in {root} itself",
            got=f"the splits {', '.join(splits)}" if splits else "no split at all",
        )
    return files


def _once_per_image(
    stored: NDArray[Any], captions: int, images_file: Path, captions_file: Path
) -> NDArray[Any]:
    """The stored rows, or every fifth of them where each image is stored five times."""
    rows = len(stored)
    if rows * CAPTIONS_PER_IMAGE == captions:
        return stored
    if rows != captions or rows % CAPTIONS_PER_IMAGE:
        raise DataError(
            f"{images_file} and {captions_file} do not match",
            expected=f"{CAPTIONS_PER_IMAGE} captions per row, or each image in "
            f"{CAPTIONS_PER_IMAGE} rows with one caption each",
            got=f"{rows} rows and {captions} captions",
        )
    regions = stored[::CAPTIONS_PER_IMAGE]
    sample = spread(len(regions), _SAMPLED_IMAGES)
    for first in (sample * CAPTIONS_PER_IMAGE).tolist():
        for row in range(first + 1, first + CAPTIONS_PER_IMAGE):
            if not np.array_equal(stored[row], stored[first], equal_nan=True):
                raise DataError(
                    f"{images_file} has as many rows as {captions_file} has captions ({rows})",
                    expected=f"{CAPTIONS_PER_IMAGE} identical rows per image",
                    got=f"row {row} differs from row {first} (counted from 0)",
                )
    return regions


def _read_ids(path: Path, images: int) -> list[str] | None:
    """The images' names; a name may be repeated once per caption, as the features may."""
    if not path.exists():
        return None
    ids = read_lines(path, "image names")
    if len(ids) == images * CAPTIONS_PER_IMAGE:
        once = ids[::CAPTIONS_PER_IMAGE]
        if ids == [name for name in once for _ in range(CAPTIONS_PER_IMAGE)]:
            return once
    if len(ids) != images:
        raise DataError(f"image names {path}", expected=f"{images} lines", got=len(ids))
    return ids
