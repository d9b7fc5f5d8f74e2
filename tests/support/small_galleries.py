"""Galleries of a few images and captions, for what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.scorers import CAPTIONS, make_regions

from sgraf_deploy.gallery.record import Details
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime import Scorer

IMAGES = 9
REGIONS = make_regions(IMAGES)
IMAGE_IDS = [f"photo{row}.jpg" for row in range(IMAGES)]
CAPTION_IDS = [f"line {row}" for row in range(len(CAPTIONS))]
BOXES = np.arange(16, dtype=np.float32).reshape(4, 4)
SIZE = (640, 480)


def image_gallery(scorer: Scorer, path: Path) -> Gallery:
    """REGIONS by IMAGE_IDS; those of even rows have metadata, those of uneven ones a place."""
    details = [
        Details(metadata={"row": row}) if row % 2 == 0 else Details(boxes=BOXES + row, size=SIZE)
        for row in range(IMAGES)
    ]
    gallery = Gallery.create(path, scorer, "images")
    gallery.write(Batch.of(IMAGE_IDS, scorer.encode_images(REGIONS), details=details))
    return gallery


def caption_gallery(scorer: Scorer, path: Path) -> Gallery:
    """CAPTIONS by CAPTION_IDS, each with its text as metadata."""
    details = [Details(metadata={"caption": text}) for text in CAPTIONS]
    gallery = Gallery.create(path, scorer, "captions")
    gallery.write(Batch.of(CAPTION_IDS, scorer.encode_captions(CAPTIONS), details=details))
    return gallery
