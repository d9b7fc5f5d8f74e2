"""What a notebook or a debugger shows of the public objects: one short line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.onnx_bundles import write_bundle
from support.refusals import holds
from support.scorers import CAPTIONS, Faked

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.runtime import EngineOptions, TileShape
from sgraf_deploy.runtime.encoded import size_text
from sgraf_deploy.runtime.rerank import rank

MakeFaked = Callable[..., Faked]


def shown(*objects: Any) -> list[str]:
    found = [repr(one) for one in objects]
    for text in found:
        assert len(text) < 100, text
        assert "\n" not in text
    return found


def test_what_is_encoded_says_how_much_of_what_it_is(
    faked: MakeFaked, regions: NDArray[np.float32]
) -> None:
    scorer = faked(precision="fp16").scorer
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    size, words = size_text(images.nbytes), size_text(captions.nbytes)
    assert shown(images, images[0], captions, captions[1]) == [
        f"EncodedImages(9 images, fp16, {size} on cpu)",
        f"EncodedImages(1 image, fp16, {size_text(images[0].nbytes)} on cpu)",
        f"EncodedCaptions(7 captions, fp16, {words} on cpu)",
        f"EncodedCaptions(1 caption, fp16, {size_text(captions[1].nbytes)} on cpu)",
    ]
    scorer.close()
    assert shown(images)[0].startswith("EncodedImages(9 images")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.0 kB"),
        (512, "0.5 kB"),
        (9_949, "9.9 kB"),
        (73_400, "73 kB"),
        (1_000_000, "1.0 MB"),
        (73_400_000, "73 MB"),
        (2_500_000_000, "2.5 GB"),
        (1_234_000_000_000, "1,234 GB"),
    ],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


def test_a_long_name_is_cut(faked: MakeFaked, tmp_path: Path) -> None:
    opened = write_bundle(tmp_path / f"{'very-' * 20}long.sgraf")
    bundle, scorer = shown(opened, faked(of=opened).scorer)
    assert bundle.startswith("Bundle(very-very-")
    assert bundle.endswith("…, SGRAF, fp32 + fp16)")
    assert scorer.endswith("…, fake, fp32 on cpu)")


def test_the_rest(faked: MakeFaked, bundle: Bundle, regions: NDArray[np.float32]) -> None:
    scorer = faked().scorer
    tiling = scorer.tiling(scorer.encode_images(regions), scorer.encode_captions(CAPTIONS))
    logits = np.array([0.0, 2.0, 1.0], dtype=np.float32)
    assert shown(
        bundle,
        rank("text_to_image", logits, None),
        rank("image_to_text", logits[:1], None),
        rank("text_to_image", logits[:0], None),
    ) == [
        "Bundle(small.sgraf, SGRAF, fp32 + fp16)",
        "RerankResult(3 images for a caption, the best row 1 with 0.8808)",
        "RerankResult(1 caption for an image, the best row 0 with 0.5000)",
        "RerankResult(0 images for a caption)",
    ]
    (text,) = shown(tiling)
    assert text.startswith("Tiling(9 images x 7 captions, ")
    assert holds(text, f"{tiling.tile_bytes / 1e6:.1f} MB")
    shown(rank("text_to_image", logits, 2)[0], TileShape(10**6, 10**6))
    assert shown(EngineOptions(), EngineOptions(2, cuda_graphs=False)) == [
        "EngineOptions()",
        "EngineOptions(threads=2, cuda_graphs=False)",
    ]
