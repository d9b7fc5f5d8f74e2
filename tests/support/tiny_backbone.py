"""A convolutional network of one layer as an ONNX file, and photographs to try it on."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CELL = 8
"""The side in pixels of what one region sees."""


def write_backbone(
    path: Path, regions: int, img_dim: int, *, seed: int = 0, outside: bool = False
) -> Path:
    """Write a backbone that gives `regions` cells in a row of `img_dim` channels each.

    `outside` puts the weights into a file beside it.
    """
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((img_dim, 3, CELL, CELL)) / np.sqrt(3 * CELL**2)
    scale = np.geomspace(0.3, 3, img_dim)[rng.permutation(img_dim)]
    initializers = [
        numpy_helper.from_array((weight * scale[:, None, None, None]).astype(np.float32), "weight"),
        numpy_helper.from_array((scale * 0.5).astype(np.float32), "bias"),
    ]
    node = helper.make_node(
        "Conv", ["image", "weight", "bias"], ["map"], kernel_shape=[CELL] * 2, strides=[CELL] * 2
    )
    graph = helper.make_graph(
        [node],
        "backbone",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, CELL, CELL * regions])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, img_dim, 1, regions])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    if outside:
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def spec_of(path: Path) -> str:
    """The SPEC of a grid on such a backbone."""
    return f"grid:{path},preset=imagenet"


def random_photo(seed: int, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """A picture (height, width, 3) of coarse random colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 16, axis=0), 16, axis=1)


def png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as the content of a PNG file."""
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def write_photos(folder: Path, seeds: Sequence[int]) -> list[Path]:
    """Write `photo0.png`, … into a new folder, of sizes that differ."""
    folder.mkdir(parents=True)
    paths = []
    for place, seed in enumerate(seeds):
        path = folder / f"photo{place}.png"
        path.write_bytes(png(random_photo(seed, width=64 + 16 * (place % 3))))
        paths.append(path)
    return paths
