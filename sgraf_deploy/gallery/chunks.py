"""Gathers records of a gallery some at a time, so that memory does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.gallery.header import PER_WORD, Header
from sgraf_deploy.gallery.rows import Gathered, encoded_dtype
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.scorer import Scorer

CHUNK_BYTES = 256 << 20
"""Bytes of records that are gathered at a time."""

USUAL_WORDS = 16
"""Words of a caption, by which its bytes are estimated."""


def gather_chunks(
    gallery: Gallery, scorer: Scorer, ids: Sequence[str], records: int, optional: Collection[str]
) -> Iterator[tuple[Gathered, NDArray[np.int64]]]:
    """Gather different ids, so many records at a time, those of `optional` where they are there.

    With each chunk comes the row in it of every id, (ids,), −1 for one that is not in it.

    Raises:
        DataError: as `Gallery.gather`.
    """
    place_of = {id_: place for place, id_ in enumerate(ids)}
    for start in range(0, len(ids), records):
        found = gallery.gather(scorer, ids[start : start + records], optional=optional)
        row_of = np.full(len(ids), -1, np.int64)
        row_of[[place_of[id_] for id_ in found.ids]] = np.arange(len(found.ids))
        yield found, row_of


def records_in(gallery: Gallery, chunk_bytes: int) -> int:
    """How many of a gallery's records are gathered at a time: at least 1, and no more bytes than
    `chunk_bytes` or than it keeps resident."""
    if isinstance(gallery.resident, int) and gallery.resident:
        chunk_bytes = min(chunk_bytes, gallery.resident)
    return max(1, chunk_bytes // _record_bytes(gallery.header))


def _record_bytes(header: Header) -> int:
    """The bytes of a record's rows as they are encoded, for a caption of USUAL_WORDS words."""
    words = 1 if header.kind == "images" else USUAL_WORDS
    rows = [(name, spec) for specs in header.rows.values() for name, spec in specs.items()]
    return sum(
        math.prod(spec.shape)
        * encoded_dtype(header, name, spec).itemsize
        * (words if name == PER_WORD else 1)
        for name, spec in rows
    )
