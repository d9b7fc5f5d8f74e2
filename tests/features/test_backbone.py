"""The real backbone of the tests: its weights, its classes on photographs, and its ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.built_once import BuiltOnce
from support.efficientnet import backbone_file, lite2, weights
from torch import Tensor


def photograph(name: str, size: int) -> Tensor:
    """A photograph of scikit-image's, its middle, as the network takes it."""
    from PIL import Image
    from skimage import data

    picture = Image.fromarray(getattr(data, name)())
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    picture = picture.crop((left, top, left + side, top + side)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    pixels = (np.asarray(picture, np.float32) - 127) / 128
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())


def test_every_tensor_is_loaded() -> None:
    stored, network = weights(), lite2()
    assert len(stored) == 386
    assert network.state_dict().keys() == stored.keys()
    assert all(torch.equal(network.state_dict()[name], stored[name]) for name in stored)


@pytest.mark.parametrize(("name", "label"), [("chelsea", 285), ("coffee", 967)])
def test_photographs_are_recognised(name: str, label: int) -> None:
    """285 is an Egyptian cat, 967 an espresso."""
    with torch.no_grad():
        assert int(lite2()(photograph(name, 260)).argmax()) == label


def test_the_onnx_file_computes_the_networks_map(lite2_file: Path) -> None:
    import onnxruntime as ort

    picture = photograph("coffee", 192)
    session = ort.InferenceSession(str(lite2_file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": picture.numpy()})
    with torch.no_grad():
        expected = lite2().features(picture).numpy()
    assert found.shape == expected.shape == (1, 1280, 6, 6)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)  # of values up to 6


@pytest.mark.parametrize("padding_for", [192, 260])
def test_padding_decides_the_map(built_once: BuiltOnce, padding_for: int) -> None:
    """The same weights with "same" padding of another size are other features."""
    picture = photograph("coffee", 192)
    with torch.no_grad():
        right, found = (lite2(size).features(picture) for size in (260, padding_for))
    cosine = float(torch.cosine_similarity(right, found, dim=1).mean())
    assert cosine > 0.9999 if padding_for == 260 else cosine < 0.7
    assert backbone_file(built_once, 192, padding_for).is_file()
