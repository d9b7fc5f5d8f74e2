"""A small `*_precomp` split, in the small models' words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.small_models import SGR, WORDS

CAPTIONS_PER_IMAGE = 5


def write_split(
    folder: Path, split: str, *, images: int, regions: int = SGR.regions, seed: int = 0
) -> None:
    """Random regions (images, regions, img_dim) and five captions each of two to seven words."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((images, regions, SGR.img_dim), dtype=np.float32)
    np.save(folder / f"{split}_ims.npy", features)
    lengths = rng.integers(2, 8, images * CAPTIONS_PER_IMAGE)
    captions = [" ".join(rng.choice(WORDS[4:], length)) for length in lengths]
    (folder / f"{split}_caps.txt").write_text("\n".join(captions) + "\n")
