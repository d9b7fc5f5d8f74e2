"""Compares two sets of features of the same photographs, region by region.

Photographs are matched by their ids. Where both sides have boxes, each region is compared with the
one of the other side that lies where it lies; else with the one of the same number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.pictures import open_boxes, open_sizes
from sgraf_deploy.data.precomp import PrecompSplit, open_images
from sgraf_deploy.data.split_files import BOXES, SIZES
from sgraf_deploy.errors import DataError
from sgraf_deploy.features.choice import overlaps
from sgraf_deploy.features.reference import cosines
from sgraf_deploy.progress import Progress

CLOSE = 0.999
"""The cosine from which two regions count as the same."""
MOVED = 0.9
"""The intersection over union below which a box counts as moved."""

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Side:
    """The features of a split, with boxes and the pictures' sizes where there are any."""

    folder: Path
    split: PrecompSplit
    boxes: NDArray[Any] | None
    sizes: NDArray[Any] | None

    @classmethod
    def open(cls, folder: Path, split: str, captions_per_image: int) -> Side:
        """Open a split's features, and its boxes and sizes where it has them; DataError if not."""
        opened = open_images(folder, split, captions_per_image=captions_per_image)
        images, regions = opened.regions.shape[:2]
        files = folder / f"{split}{BOXES}", folder / f"{split}{SIZES}"
        boxes = open_boxes(files[0], images, regions) if files[0].exists() else None
        sizes = open_sizes(files[1], images) if files[1].exists() else None
        return cls(folder, opened, boxes, sizes)

    def placed(self, boxes: NDArray[Any], row: int, *, scaled: bool) -> NDArray[np.float64]:
        """An image's boxes (regions, 4), divided by its width and height if `scaled`."""
        found = np.asarray(boxes[row], np.float64)
        return found / np.tile(self.sizes[row], 2) if scaled and self.sizes is not None else found


@dataclass(frozen=True, eq=False)
class Matched:
    """The rows of both sides that are of the same photographs, in the first side's order."""

    by: Literal["ids", "rows"]
    first: NDArray[np.int64]
    second: NDArray[np.int64]


@dataclass(frozen=True)
class Likeness:
    """How alike two sets of features are, over all `regions` that were compared.

    `only_first` and `only_second` photographs are on one side alone. `lowest_at` is the photograph
    and the region, of the first side, of the lowest cosine. `close` is the share of cosines of at
    least `CLOSE`, `equal` that of elements that are the same number, in the coarser of the two
    dtypes. `moved` is the share of boxes whose intersection over union is below `MOVED`, None where
    regions were matched by their order.
    """

    images: int
    images_by: Literal["ids", "rows"]
    only_first: int
    only_second: int
    regions: int
    regions_by: Literal["boxes", "order"]
    mean: float
    lowest: float
    lowest_at: tuple[str, int]
    close: float
    equal: float
    moved: float | None

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        return asdict(self)


def match_images(first: Side, second: Side) -> Matched:
    """Match photographs by id, or by row where a side has no ids and both have as many.

    Raises DataError where no photograph is on both sides.
    """
    ids = first.split.ids, second.split.ids
    if ids[0] is None or ids[1] is None:
        images = first.split.images, second.split.images
        if images[0] != images[1]:
            missing = first if ids[0] is None else second
            raise DataError(
                f"photographs of {first.folder} and {second.folder}",
                expected=f"a name for each in {first.split.name}_ids.txt, or as many on both sides",
                got=f"{images[0]} and {images[1]}, and no names in {missing.folder}",
            )
        rows = np.arange(images[0])
        return Matched("rows", rows, rows)
    places = {id_: row for row, id_ in enumerate(ids[1])}
    pairs = [(row, places[id_]) for row, id_ in enumerate(ids[0]) if id_ in places]
    if not pairs:
        raise DataError(
            f"{first.folder} and {second.folder} have no photograph in common",
            expected=f"ids as in {first.folder}: {', '.join(ids[0][:_SHOWN])}",
            got=", ".join(ids[1][:_SHOWN]),
            hint="ids are names of files, or paths below the folder that was given",
        )
    both = np.array(pairs, np.int64)
    return Matched("ids", both[:, 0], both[:, 1])


def compare_features(
    first: Side, second: Side, progress: Progress = lambda done, total: None
) -> Likeness:
    """Compare the regions of the photographs that two sides share.

    Raises DataError where nothing can be compared: no photograph on both sides, features of
    another img_dim, or another number of regions without boxes.

    Example:
        >>> from pathlib import Path
        >>> from sgraf_deploy.features.compare import Side, compare_features
        >>> side = Side.open(Path("features"), "dev", 5)
        >>> compare_features(side, side).lowest
        1.0
    """
    matched = match_images(first, second)
    boxes = first.boxes, second.boxes
    by_boxes = boxes[0] is not None and boxes[1] is not None
    _check_comparable(first, second, by_boxes)
    regions = first.split.regions, second.split.regions
    coarser = min((one.dtype for one in regions), key=lambda dtype: dtype.itemsize)
    scaled = first.sizes is not None and second.sizes is not None
    angles, shares, equal, elements = [], [], 0, 0
    lowest, lowest_at = 2.0, ("", 0)
    for done, (row, other) in enumerate(zip(matched.first, matched.second, strict=True), start=1):
        x, y = np.asarray(regions[0][row]), np.asarray(regions[1][other])
        order = _in_order(len(x))
        if boxes[0] is not None and boxes[1] is not None:
            order, overlap = match_boxes(
                first.placed(boxes[0], row, scaled=scaled),
                second.placed(boxes[1], other, scaled=scaled),
            )
            shares.append(overlap)
        x, y = x[order[0]], y[order[1]]
        equal += int((x.astype(coarser) == y.astype(coarser)).sum())
        elements += x.size
        found = cosines(x, y)
        angles.append(found)
        if found.min() < lowest:
            at = int(found.argmin())
            lowest, lowest_at = float(found[at]), (first.split.image_name(row), int(order[0][at]))
        progress(done, len(matched.first))
    values = np.concatenate(angles)
    return Likeness(
        images=len(matched.first),
        images_by=matched.by,
        only_first=first.split.images - len(matched.first),
        only_second=second.split.images - len(matched.second),
        regions=values.size,
        regions_by="boxes" if by_boxes else "order",
        mean=float(values.mean()),
        lowest=lowest,
        lowest_at=lowest_at,
        close=float((values >= CLOSE).mean()),
        equal=equal / elements,
        moved=float((np.concatenate(shares) < MOVED).mean()) if by_boxes else None,
    )


def _check_comparable(first: Side, second: Side, by_boxes: bool) -> None:
    shapes = first.split.regions.shape[1:], second.split.regions.shape[1:]
    if shapes[0][1] != shapes[1][1] or (shapes[0][0] != shapes[1][0] and not by_boxes):
        raise DataError(
            f"regions of {second.folder}",
            expected=f"(regions, img_dim) = {shapes[0]} as in {first.folder}",
            got=shapes[1],
            hint="regions of another number can be compared where both sides have boxes",
        )


def match_boxes(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]:
    """Pair boxes (regions, 4) one to one, those that overlap most first; each with its overlap.

    As many pairs as there are boxes on the side that has fewer; in the order of the first side.
    """
    if np.array_equal(first, second):
        return _in_order(len(first)), np.ones(len(first))
    overlap = overlaps(first, second)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for place in np.argsort(-overlap, axis=None, kind="stable").tolist():
        row, column = divmod(place, len(second))
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
            if len(pairs) == min(len(first), len(second)):
                break
    rows = np.array(sorted(pairs), np.int64)
    columns = np.array([pairs[row] for row in rows.tolist()], np.int64)
    return (rows, columns), overlap[rows, columns]


def _in_order(regions: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.arange(regions), np.arange(regions)
