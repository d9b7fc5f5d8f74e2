"""Makes valid inputs for the graphs of a bundle, for the programs that run them; needs NumPy.

For Polygraphy: `--data-loader-script FILE:NAME`. For trtexec and perf_analyzer: `python3 FILE NAME`
writes every input to a file of its name, raw and in row-major order, into the folder FILE_raw/NAME/
beside this file. NAME is one of `GRAPHS`; a name always gives the same values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCAB_SIZE = 1
GRAPHS: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}

Inputs = dict[str, NDArray[Any]]


def inputs(name: str) -> Inputs:
    """The inputs of one of `GRAPHS` by name, in its order: seeded random values that fit together.

    Token ids are below VOCAB_SIZE, and 0 past a caption's length; lengths lie in 1 … words, of
    which the first caption has all; indices are those of images and captions that are there.
    Embeddings have unit norm, but words past a caption's length, which are zeros.
    """
    rng = np.random.default_rng(0)
    made: Inputs = {}
    shapes = {tensor: shape for tensor, (_, shape) in GRAPHS[name].items()}
    words = next(
        (shapes[each][1] for each in ("token_ids", "word_embeddings") if each in shapes), 1
    )
    captions = shapes.get("lengths", (1,))
    lengths = rng.integers(1, words + 1, captions)
    lengths[0] = words
    real = np.arange(words) < lengths[:, None]
    for tensor, (dtype, shape) in GRAPHS[name].items():
        if tensor == "token_ids":
            values: NDArray[Any] = rng.integers(min(1, VOCAB_SIZE - 1), VOCAB_SIZE, shape) * real
        elif tensor == "lengths":
            values = lengths
        elif tensor in {"image_index", "caption_index"}:
            rows = shapes["region_embeddings" if tensor == "image_index" else "lengths"][0]
            values = rng.integers(0, rows, shape)
        elif tensor == "region_gram":
            regions = made["region_embeddings"]
            values = regions @ regions.transpose(0, 2, 1)
        else:
            values = rng.standard_normal(shape, dtype=np.float32)
            if tensor != "regions":
                values /= np.linalg.norm(values, axis=-1, keepdims=True)
            if tensor == "word_embeddings":
                values *= real[:, :, None]
        made[tensor] = np.ascontiguousarray(values, dtype)
    return made


def __getattr__(name: str) -> Callable[[], Iterator[Inputs]]:
    """What Polygraphy imports: a function for each of `GRAPHS`, which yields its inputs once."""
    if name not in GRAPHS:
        raise AttributeError(name)
    return lambda: iter([inputs(name)])


def write(name: str) -> None:
    """Write the inputs of one of `GRAPHS` into its folder beside this file."""
    file = Path(__file__)
    folder = file.with_name(f"{file.stem}_raw") / name
    folder.mkdir(parents=True, exist_ok=True)
    for tensor, values in inputs(name).items():
        values.tofile(folder / tensor)


if __name__ == "__main__":
    if not sys.argv[1:] or not GRAPHS.keys() >= set(sys.argv[1:]):
        sys.exit(f"usage: {sys.argv[0]} NAME …, with NAME out of {', '.join(GRAPHS)}")
    for given in sys.argv[1:]:
        write(given)
