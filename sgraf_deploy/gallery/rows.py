"""What is written into a gallery, a batch at a time, and what is read from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import TensorSpec
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gallery.header import PER_WORD, ROUNDED, Header, RowSpec, encoding_of
from sgraf_deploy.gallery.record import NO_SOURCE, Details, Layout, encode_id
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.encoding import Encoding, Kind
from sgraf_deploy.runtime.origin import Origin

if TYPE_CHECKING:
    from sgraf_deploy.runtime.scorer import Scorer

Arrays = Mapping[str, Mapping[str, NDArray[Any]]]
"""By member and name: a row for each image or caption, and for each word in `word_embeddings`."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Encoded images or captions with their ids, to be written in one transaction.

    `lengths` (captions,) int32 are those of captions, None for images. `details` and `sources`,
    the 16-byte digests of what was encoded, are one for each id, or None.
    """

    ids: Sequence[str]
    encoding: Encoding
    arrays: Arrays
    lengths: NDArray[np.int32] | None = None
    details: Sequence[Details] | None = None
    sources: Sequence[bytes] | None = None

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        encoded: EncodedImages | EncodedCaptions,
        *,
        details: Sequence[Details] | None = None,
        sources: Sequence[bytes] | None = None,
    ) -> Batch:
        """Images or captions that a scorer encoded; their rows are fetched from its device."""
        lengths = None if isinstance(encoded, EncodedImages) else encoded.lengths
        return cls(ids, encoded.encoding, encoded.to_host(), lengths, details, sources)

    def records(self, header: Header, layout: Layout) -> Iterator[tuple[bytes, bytes]]:
        """Every id's key with its record; raises DataError for what does not fit the gallery."""
        keys = self._keys()
        self._check_counts(header)
        arrays = self._as_stored(header)
        ends = None if self.lengths is None else np.cumsum(self.lengths, dtype=np.int64)
        for row, key in enumerate(keys):
            words = 0 if self.lengths is None else int(self.lengths[row])
            if ends is None:
                rows = [array[row] for _, array in arrays]
            else:
                last = int(ends[row])
                rows = [
                    array[last - words : last] if name == PER_WORD else array[row]
                    for name, array in arrays
                ]
            source = NO_SOURCE if self.sources is None else self.sources[row]
            details = Details() if self.details is None else self.details[row]
            yield key, layout.pack(key, rows, words, source, details)

    def _keys(self) -> list[bytes]:
        keys = [encode_id(id_) for id_ in self.ids]
        if len(set(keys)) != len(keys):
            seen: set[str] = set()
            twice = next(id_ for id_ in self.ids if id_ in seen or seen.add(id_))  # type: ignore[func-returns-value]
            raise DataError("ids of a batch", expected="each once", got=f"{twice!r} again")
        return keys

    def _check_counts(self, header: Header) -> None:
        count = len(self.ids)
        for name, given in (("details", self.details), ("sources", self.sources)):
            if given is not None and len(given) != count:
                raise DataError(name, expected=f"{count}, one for each id", got=len(given))
        if (self.lengths is not None) != (header.kind == "captions"):
            got = "images" if self.lengths is None else "captions"
            raise InputError("what is written", expected=header.kind, got=got)
        if self.lengths is not None and (len(self.lengths) != count or (self.lengths < 1).any()):
            raise DataError("lengths", expected=f"{count}, each at least 1", got=self.lengths)
        for detail in self.details or ():
            _check_details(detail, header)

    def _as_stored(self, header: Header) -> list[tuple[str, NDArray[Any]]]:
        """The names and arrays in the header's order, rounded where the gallery rounds."""
        words = None if self.lengths is None else int(self.lengths.sum(dtype=np.int64))
        found = []
        for member, specs in header.rows.items():
            given = dict(self.arrays.get(member, {}))
            if given.keys() != specs.keys():
                got = ", ".join(given) or "none"
                raise DataError(f"rows of {member}", expected=", ".join(specs), got=got)
            if header.dtype == "float16":
                given = _rounded(given)
            for name, spec in specs.items():
                count = len(self.ids) if name != PER_WORD or words is None else words
                array = given[name]
                if array.shape != (count, *spec.shape) or array.dtype != spec.dtype:
                    raise DataError(
                        f"{member}.{name}",
                        expected=f"{spec.dtype} of shape {(count, *spec.shape)}",
                        got=f"{array.dtype} of shape {array.shape}",
                    )
                found.append((name, np.ascontiguousarray(array)))
        return found


@dataclass(frozen=True, eq=False)
class Rows:
    """Records of a gallery as they are stored, in the order in which their ids were asked for.

    `lengths` and the arrays are as of a `Batch`.
    """

    ids: tuple[str, ...]
    arrays: Arrays
    lengths: NDArray[np.int32] | None
    tails: tuple[bytes, ...]
    """What `details` are read from."""
    path: Path
    """The gallery's folder."""
    header: Header
    layout: Layout

    def __len__(self) -> int:
        return len(self.ids)

    def details(self, row: int) -> Details:
        """The metadata, boxes and size of a row's image or caption."""
        return self.layout.details(self.tails[row])

    def encoded(self, scorer: Scorer) -> EncodedImages | EncodedCaptions:
        """Whichever of images and captions they are, on the device of a scorer."""
        return self.images(scorer) if self.lengths is None else self.captions(scorer)

    def images(self, scorer: Scorer) -> EncodedImages:
        """These images on the device of a scorer; DataError if it encodes in another way."""
        check_scorer(scorer, self.path, self.header, "images")
        return scorer.images_from_host(taken(scorer, self.header, self.arrays))

    def captions(self, scorer: Scorer) -> EncodedCaptions:
        """These captions on the device of a scorer; DataError if it encodes in another way."""
        check_scorer(scorer, self.path, self.header, "captions")
        lengths = np.empty(0, np.int32) if self.lengths is None else self.lengths
        return scorer.captions_from_host(lengths, taken(scorer, self.header, self.arrays))


@dataclass(frozen=True, eq=False)
class Gathered:
    """Images or captions of a gallery on the device of a scorer, and what belongs to them."""

    ids: tuple[str, ...]
    encoded: EncodedImages | EncodedCaptions
    layout: Layout
    tails: tuple[bytes, ...]
    """What the layout reads details from, (ids,)."""


def check_scorer(scorer: Scorer, path: Path, header: Header, kind: Kind) -> None:
    """Raise DataError unless a scorer's images or captions are encoded as a gallery's are."""
    what = f"{kind} of gallery {path}"
    encoding_of(scorer, kind).check(header.encoding, what, error=DataError)


def origin_of(scorer: Scorer, header: Header) -> Origin:
    """What images of a scorer have as their origin, which no rows need to be read for."""
    none = {
        member: {
            name: np.empty((0, *spec.shape), encoded_dtype(header, name, spec))
            for name, spec in specs.items()
        }
        for member, specs in header.rows.items()
    }
    return scorer.images_from_host(none).origin


def encoded_dtype(header: Header, name: str, spec: RowSpec) -> np.dtype[Any]:
    """The dtype in which the encoders make rows, which a gallery may have rounded."""
    rounded = header.dtype == "float16" and header.encoding.precision == "fp32" and name in ROUNDED
    return np.dtype(np.float32 if rounded else spec.dtype)


def taken(scorer: Scorer, header: Header, arrays: Arrays) -> Arrays:
    """Rows as the scorer's engine takes them: rounded ones are widened unless it reads float16."""
    if header.dtype == "stored" or header.encoding.precision != "fp32":
        return arrays
    origin = origin_of(scorer, header) if header.kind == "images" else None
    return {
        member: {
            name: array.astype(taken_dtype(origin, header, member, name), copy=False)
            for name, array in named.items()
        }
        for member, named in arrays.items()
    }


def taken_dtype(origin: Origin | None, header: Header, member: str, name: str) -> np.dtype[Any]:
    """The dtype of rows for an engine: as they are stored if it takes that, else as encoded."""
    spec = header.rows[member][name]
    encoded = encoded_dtype(header, name, spec)
    if origin is None or encoded == spec.dtype:
        return encoded
    dtypes = origin.image_dtypes(member, TensorSpec(name, "float32", ("images", *spec.shape)))
    return np.dtype(spec.dtype) if np.dtype(spec.dtype) in dtypes else encoded


def _rounded(given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A member's rows in float16, and the products of the regions as they are after rounding."""
    arrays = {
        name: array.astype(np.float16) if name in ROUNDED else array
        for name, array in given.items()
    }
    if "region_gram" in arrays:
        regions = arrays["region_embeddings"].astype(np.float32)
        products = [one @ one.T for one in regions]  # a third of the time of one product of all
        arrays["region_gram"] = np.stack(products)  # (images, regions, regions)
    return arrays


def _check_details(details: Details, header: Header) -> None:
    boxes, size = details.boxes, details.size
    if boxes is not None:
        if header.kind != "images" or boxes.shape != (header.regions, 4):
            expected = f"({header.regions}, 4) of an image"
            raise DataError("boxes", expected=expected, got=f"shape {boxes.shape}")
        if not np.isfinite(boxes).all():
            raise DataError("boxes", expected="finite numbers", got="others")
    if size is not None and not all(0 < side < 2**31 for side in size):
        raise DataError("size of a picture", expected="positive width and height", got=size)
