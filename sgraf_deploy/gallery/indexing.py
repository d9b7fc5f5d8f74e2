"""Encodes images or captions into a gallery, batch by batch, and goes on where it was stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import MAX_PIXELS
from sgraf_deploy.data.files import read_bytes
from sgraf_deploy.errors import DataError
from sgraf_deploy.features.paths import Photo
from sgraf_deploy.features.photographs import Unread, extract_photos
from sgraf_deploy.gallery.header import PER_WORD
from sgraf_deploy.gallery.record import Details, Layout, source_of
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.splits import SplitDetails
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.photos import ForeignWatch
from sgraf_deploy.runtime.saved_encodings import SavedRows
from sgraf_deploy.runtime.scorer import Scorer

BATCH_BYTES = 64 * 2**20
"""The bytes of rows that one transaction writes: all that is lost when the process is killed."""
MOST_PER_BATCH = 4096
_WORDS = 16
"""The words that a caption is taken to have."""
_SHOWN = 5


@dataclass(frozen=True)
class Indexed:
    """How many images or captions were written, and how many were there already as they are.

    `replaced` of those that were written were there with another content.
    """

    written: int
    present: int
    replaced: int = 0


class Items(ABC):
    """What is to be in a gallery under some ids."""

    most_per_batch: int | None = None
    """The most rows that one transaction writes, if that is less than `MOST_PER_BATCH`."""

    def __init__(self, ids: Sequence[str]) -> None:
        """Take the ids, each of which may be there once; DataError names one that is twice."""
        self.ids = ids
        seen: dict[str, int] = {}
        for row, id_ in enumerate(ids):
            if id_ in seen:
                raise DataError(
                    f"ids: {id_!r}",
                    expected="each id once",
                    got=f"it in rows {seen[id_]} and {row}, counted from 0",
                )
            seen[id_] = row

    @abstractmethod
    def source(self, row: int) -> bytes:
        """The digest of what a row is encoded from."""

    def changed(self, row: int, source: bytes) -> bool:
        """Whether a row is encoded from something else than what has this digest."""
        return self.source(row) != source

    @abstractmethod
    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """These rows (images,), encoded; those that have to be left out are not in it."""


class SplitImages(Items):
    """A split's images: regions (images, regions, img_dim), with boxes and sizes if there are."""

    def __init__(
        self, scorer: Scorer, ids: Sequence[str], regions: NDArray[Any], details: SplitDetails
    ) -> None:
        super().__init__(ids)
        self._scorer, self._regions, self._details = scorer, regions, details

    def source(self, row: int) -> bytes:
        """Of the regions as they are stored, and of boxes and size."""
        details = self._details[row]
        parts: list[Any] = [str(self._regions.dtype).encode(), np.asarray(self._regions[row])]
        if details.boxes is not None:
            parts.append(details.boxes)
        if details.size is not None:
            parts.append(np.array(details.size, np.int64))
        return source_of(parts)

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Encode the regions of these rows."""
        encoded = self._scorer.encode_images(self._regions[rows])
        return _batch(self, rows, encoded, [self._details[row] for row in rows])


class PhotoImages(Items):
    """Photographs, through the extractor of the scorer's bundle; boxes and sizes are kept.

    With `unread`, which is called with its number, one that cannot be read is left out. One of more
    than `max_pixels` is such.
    """

    most_per_batch = 64  # each may take a second

    def __init__(
        self,
        scorer: Scorer,
        photos: Sequence[Photo],
        unread: Unread | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__([photo.id for photo in photos])
        self._scorer, self._photos, self._unread = scorer, photos, unread
        self._max_pixels = max_pixels
        self._recipe = scorer.extractor.spec.sha256.encode()
        self._watch = ForeignWatch(scorer.bundle.manifest)

    def source(self, row: int) -> bytes:
        """Of the file's content, and of the extractor's recipe."""
        content = read_bytes(self._photos[row].path, "photograph")
        return source_of([self._recipe, content])

    def changed(self, row: int, source: bytes) -> bool:
        """Whether the file has other content; one that is left out counts as it was."""
        try:
            return super().changed(row, source)
        except DataError as error:
            if self._unread is None:
                raise
            self._unread(row, error)
            return False

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Extract and encode the regions of these photographs."""
        unread = self._unread
        note = None if unread is None else lambda place, error: unread(int(rows[place]), error)
        paths = [self._photos[row].path for row in rows]
        found = extract_photos(
            self._scorer.extractor, paths, unread=note, max_pixels=self._max_pixels
        )
        rows = rows[found.rows]
        encoded = self._scorer.encode_images(self._watch.add(found.features.regions))
        self._watch.warn()
        details = [
            Details(None, boxes, (int(size[0]), int(size[1])))
            for boxes, size in zip(found.features.boxes, found.sizes, strict=True)
        ]
        return _batch(self, rows, encoded, details)


class SplitCaptions(Items):
    """Captions as texts, with their token ids; a caption's text is in its metadata."""

    def __init__(
        self, scorer: Scorer, ids: Sequence[str], texts: Sequence[str], token_ids: Sequence[Any]
    ) -> None:
        super().__init__(ids)
        self._scorer, self._texts, self._token_ids = scorer, texts, token_ids

    def source(self, row: int) -> bytes:
        """Of the text."""
        return source_of([self._texts[row].encode()])

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Encode the captions of these rows."""
        encoded = self._scorer.encode_captions([self._token_ids[row] for row in rows])
        return _batch(self, rows, encoded, [Details({"caption": self._texts[row]}) for row in rows])


class SavedItems(Items):
    """Images or captions that are encoded already, from a file of `save_encoded`."""

    def __init__(self, ids: Sequence[str], saved: SavedRows) -> None:
        super().__init__(ids)
        first = next(iter(saved.arrays.values()))
        count = len(first["image_global" if saved.lengths is None else "text_global"])
        if len(ids) != count:
            raise DataError("ids", expected=f"{count}, one for each row", got=len(ids))
        self._saved = saved
        lengths = np.zeros(0, np.int64) if saved.lengths is None else saved.lengths
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def source(self, row: int) -> bytes:
        """Of the encoded rows."""
        batch = self._rows(np.array([row]))
        return source_of(array for named in batch.values() for array in named.values())

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """The rows themselves."""
        lengths = self._saved.lengths
        return Batch(
            [self.ids[row] for row in rows],
            self._saved.encoding,
            self._rows(rows),
            None if lengths is None else lengths[rows],
            sources=[self.source(int(row)) for row in rows],
        )

    def _rows(self, rows: NDArray[np.int64]) -> dict[str, dict[str, NDArray[Any]]]:
        lengths, words = self._saved.lengths, rows
        if lengths is not None:
            sizes = lengths[rows].astype(np.int64)
            starts = self._ends[rows] - sizes
            first = np.cumsum(sizes) - sizes
            words = np.arange(sizes.sum()) + np.repeat(starts - first, sizes)
        return {
            member: {
                name: array[words if name == PER_WORD else rows] for name, array in named.items()
            }
            for member, named in self._saved.arrays.items()
        }


def add(
    gallery: Gallery,
    items: Items,
    progress: Progress | None = None,
    step: Callable[[str], None] | None = None,
    *,
    replace: bool = False,
) -> Indexed:
    """Write what is not in the gallery yet, in batches that are committed one by one.

    Killed and called again, it goes on after the last batch. `step` is that of `Gallery.write`.
    With `replace`, what is there with another content is written anew, in its place of the order;
    without it DataError is raised before anything is written.
    """
    wanted = []
    changed = []
    for row, source in enumerate(gallery.sources(items.ids)):
        if source is None:
            wanted.append(row)
        elif items.changed(row, source):
            changed.append(items.ids[row])
            wanted.append(row)
    if changed and not replace:
        raise DataError(
            f"gallery {gallery.path} has {len(changed):,} of the ids with other contents",
            got=", ".join(map(repr, changed[:_SHOWN])) + (" …" if len(changed) > _SHOWN else ""),
            hint="`sgraf-deploy index --replace` encodes them anew and adds the others, "
            "`sgraf-deploy gallery update` encodes anew alone",
        )
    before = len(gallery)
    written = _write(gallery, items, wanted, replace=replace, progress=progress, step=step)
    replaced = written - (len(gallery) - before) if changed else 0
    return Indexed(written, len(items.ids) - len(wanted), replaced)


def update(
    gallery: Gallery, items: Items, ids: Sequence[str] | None, progress: Progress | None = None
) -> Indexed:
    """Write ids that are in the gallery anew; all of `items` by default.

    Raises DataError before anything is written for an id that is not in the gallery, or not in
    `items`.
    """
    places = {id_: row for row, id_ in enumerate(items.ids)}
    wanted = list(items.ids) if ids is None else list(dict.fromkeys(ids))
    absent = [id_ for id_ in wanted if id_ not in places]
    if absent:
        got = f"{len(absent):,} others, such as {absent[0]!r}"
        raise DataError("ids to update", expected="ids of the data", got=got)
    unknown = [id_ for id_, old in zip(wanted, gallery.sources(wanted), strict=True) if old is None]
    if unknown:
        raise DataError(
            f"gallery {gallery.path} has no record of {len(unknown):,} of the ids",
            got=", ".join(map(repr, unknown[:_SHOWN])) + (" …" if len(unknown) > _SHOWN else ""),
            hint="`sgraf-deploy index --replace` adds them, and encodes anew what has changed",
        )
    rows = [places[id_] for id_ in wanted]
    written = _write(gallery, items, rows, replace=True, progress=progress, step=None)
    return Indexed(written, 0)


def _write(
    gallery: Gallery,
    items: Items,
    rows: Sequence[int],
    *,
    replace: bool,
    progress: Progress | None,
    step: Callable[[str], None] | None,
) -> int:
    """Encode and commit rows, batch by batch; returns how many."""
    row_bytes = Layout(gallery.header).row_bytes(_WORDS)
    size = max(1, min(items.most_per_batch or MOST_PER_BATCH, BATCH_BYTES // row_bytes))
    written = 0
    for start in range(0, len(rows), size):
        chosen = np.array(rows[start : start + size], np.int64)
        batch = items.batch(chosen)
        if batch.ids:
            written += gallery.write(batch, replace=replace, step=step)
        if progress is not None:
            progress(start + len(chosen), len(rows))
    return written


def _batch(
    items: Items,
    rows: NDArray[np.int64],
    encoded: EncodedImages | EncodedCaptions,
    details: Sequence[Details] | None,
) -> Batch:
    return Batch.of(
        [items.ids[row] for row in rows],
        encoded,
        details=details,
        sources=[items.source(int(row)) for row in rows],
    )
