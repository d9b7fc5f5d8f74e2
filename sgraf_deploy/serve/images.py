"""Reads, writes and deletes single images of the gallery."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError
from sgraf_deploy.gallery.record import Details, pack_metadata, source_of
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.serve.calls import NotFoundError, UnprocessableError
from sgraf_deploy.serve.documents import Given, Reader, Whole, malformed
from sgraf_deploy.serve.settings import MOST_PIXELS


class Image(msgspec.Struct, forbid_unknown_fields=True):
    """An image to be stored: its regions, and what is kept beside them."""

    regions: str
    dtype: str
    shape: tuple[Whole, Whole]
    metadata: dict[str, Any] | None = None
    boxes: list[tuple[float, float, float, float]] | None = None
    size: tuple[Whole, Whole] | None = None


class ImageStore(Protocol):
    """What the routes ask of a gallery's images, one at a time; `Images` says what of each."""

    async def get(self, id_: str) -> dict[str, Any]:
        """What is kept beside an image's regions."""

    async def put(self, id_: str, body: bytes) -> dict[str, Any]:
        """Encode an image and store it."""

    async def delete(self, id_: str) -> dict[str, Any]:
        """Delete an image."""


class Images:
    """The images of a gallery, one at a time. Writers wait for each other, in other threads."""

    def __init__(self, scorer: Scorer, gallery: Gallery, reader: Reader) -> None:
        self._scorer, self._gallery, self._reader = scorer, gallery, reader
        self._writing = asyncio.Lock()

    async def get(self, id_: str) -> dict[str, Any]:
        """What is kept beside an image's regions; NotFoundError for an unknown id."""
        details = await asyncio.to_thread(self._details, id_)
        found: dict[str, Any] = {"id": id_}
        if details.metadata is not None:
            found["metadata"] = details.metadata
        if details.boxes is not None:
            found["boxes"] = details.boxes.tolist()
        if details.size is not None:
            found["size"] = list(details.size)
        return found

    async def put(self, id_: str, body: bytes) -> dict[str, Any]:
        """Encode an image and store it, in place of one of the same id; durable upon return."""
        async with self._writing:
            created = await asyncio.to_thread(self._write, id_, body)
        return {"id": id_, "created": created}

    async def delete(self, id_: str) -> dict[str, Any]:
        """Delete an image; NotFoundError for an unknown id."""
        async with self._writing:
            await asyncio.to_thread(self._delete, id_)
        return {"id": id_, "deleted": True}

    def _details(self, id_: str) -> Details:
        if id_ in self._gallery:
            try:
                return self._gallery.details([id_])[0]
            except DataError:
                if id_ in self._gallery:  # It is damaged, not deleted meanwhile.
                    raise
        raise unknown_image(id_)

    def _write(self, id_: str, body: bytes) -> bool:
        image = _decoded(body)
        given = Given(regions=image.regions, dtype=image.dtype, shape=image.shape)
        regions = self._reader.array(given, "the image")
        details = _details_of(image, self._reader.regions)
        encoded = self._scorer.encode_images(np.asarray(regions, np.float32)[None])
        parts: list[Any] = [str(regions.dtype).encode(), regions]
        if details.boxes is not None:
            parts.append(details.boxes)
        if details.size is not None:
            parts.append(np.array(details.size, np.int64))
        batch = Batch.of([id_], encoded, details=[details], sources=[source_of(parts)])
        _check_finite(batch)
        created = id_ not in self._gallery
        self._gallery.write(batch, replace=True)
        return created

    def _delete(self, id_: str) -> None:
        if id_ not in self._gallery:
            raise unknown_image(id_)
        self._gallery.delete([id_])


def unknown_image(id_: str) -> NotFoundError:
    """The error for an id that the gallery does not have."""
    return NotFoundError(
        "the image", expected="one of the gallery", got=repr(id_[:80]), code="image_not_found"
    )


def _decoded(body: bytes) -> Image:
    try:
        return msgspec.json.decode(body, type=Image)
    except msgspec.ValidationError as error:
        told = str(error)[:200]
        raise UnprocessableError("the image", got=told, code="invalid_image") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from error


def _details_of(image: Image, regions: int) -> Details:
    """What is kept beside the regions, checked."""
    if image.metadata is not None:
        try:
            pack_metadata(image.metadata)
        except DataError as error:
            raise _wrong("metadata", "a JSON object of at most 1 MiB") from error
    boxes: NDArray[np.float32] | None = None
    if image.boxes is not None:
        places = np.array(image.boxes, np.float64).reshape(-1, 4)  # (regions, 4)
        if len(places) != regions or not (np.abs(places) <= MOST_PIXELS).all():
            raise _wrong("boxes", f"{regions} boxes of four numbers of at most {MOST_PIXELS}")
        boxes = places.astype(np.float32)
    size: tuple[int, int] | None = None
    if image.size is not None:
        if not all(0 < side <= MOST_PIXELS and side == int(side) for side in image.size):
            raise _wrong("size", "a width and a height of at least 1")
        size = int(image.size[0]), int(image.size[1])
    return Details(image.metadata, boxes, size)


def _check_finite(batch: Batch) -> None:
    """Refuse regions so large that their encodings are no finite numbers: none would be scored."""
    rows = cast(
        "list[NDArray[Any]]", [a for named in batch.arrays.values() for a in named.values()]
    )
    if not all(np.isfinite(array).all() for array in rows):
        raise _wrong("regions", "numbers that the model encodes as finite ones")


def _wrong(field: str, expected: str) -> UnprocessableError:
    return UnprocessableError(
        f"the image: {field}", expected=expected, got="others", param=field, code="invalid_image"
    )
