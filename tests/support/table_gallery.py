"""A gallery of images that stand for the rows of tables of logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from support.table_engine import table_scorer

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime import Scorer

MEMBERS = "sgr", "saf"
IMAGES, CAPTIONS = 60, 12
IDS = [f"{row:02}.jpg" for row in range(IMAGES)]

ONE, SOME, ALL = 1, 20_000, 1 << 28
"""Bytes of a chunk: a record, a few, the whole gallery."""


def tables() -> dict[str, Any]:
    """Logits of two members that mostly agree, high enough that the best leave others no chance."""
    rng = np.random.default_rng(8)
    common = rng.normal(4, 5, (IMAGES, CAPTIONS)).round(1)
    return {name: (common + rng.normal(0, 0.3, common.shape)).astype("f4") for name in MEMBERS}


@contextmanager
def opened(bundle: Bundle, folder: Path, *, prune: bool) -> Iterator[tuple[Scorer, Gallery, Any]]:
    """A scorer of the tables, a gallery of their images, and their captions."""
    scorer, images, captions = table_scorer(bundle, tables(), prune=prune)
    with Gallery.create(folder / f"{prune}.gallery", scorer, "images") as gallery:
        gallery.write(Batch.of(IDS, images))
        yield scorer, gallery, captions
