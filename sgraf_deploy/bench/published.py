"""The paper's own R@K, to stand beside a report whose data are said to be the paper's.

Diao et al., "Similarity Reasoning and Filtration for Image-Text Matching", AAAI 2021, the tables of
bidirectional retrieval: SGRAF, the ensemble.
"""

from __future__ import annotations

from typing import Literal

Dataset = Literal["f30k", "coco"]

NAMES: dict[Dataset, str] = {"f30k": "Flickr30K", "coco": "MSCOCO"}

Figures = tuple[float, float, float, float, float, float]
"""R@1, R@5 and R@10 from image to text, and from text to image, percent."""

SGRAF: dict[tuple[Dataset, str], Figures] = {
    ("f30k", "1,000 images"): (77.8, 94.1, 97.4, 58.5, 83.0, 88.8),
    ("coco", "mean of 5 folds of 1,000 images"): (79.6, 96.2, 98.5, 63.2, 90.7, 96.1),
    ("coco", "5,000 images"): (57.8, 84.9, 91.6, 41.9, 70.7, 81.3),
}


def published(dataset: Dataset, images: int) -> dict[str, Figures]:
    """The paper's figures by what they are of, for a test split of so many images.

    Flickr30K's has 1,000; of MSCOCO's 5,000 the paper ranks all, and means over five folds.
    """
    whole = {"f30k": 1000, "coco": 5000}[dataset]
    if images != whole:
        return {}
    return {of: figures for (name, of), figures in SGRAF.items() if name == dataset}
