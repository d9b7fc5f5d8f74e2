"""Splits of synthetic scenes, in memory or as a `*_precomp` folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.synthetic.captions import CAPTIONS, captions_of
from sgraf_deploy.data.synthetic.regions import Codebook, render_regions
from sgraf_deploy.data.synthetic.scenes import make_scenes
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.writer import staged_file, write_file

MOST_SCENES = 100_000
"""The largest split: there are far more scenes, but a split is kept in memory while written."""

MOST_NOISE = 1000.0
"""Far more noise than leaves a signal; float32 would overflow from 1e19."""


@dataclass(frozen=True)
class SceneOptions:
    """The options of synthetic data; `noise` is relative to the norm of an attribute's code."""

    seed: int = 0
    img_dim: int = 64
    regions: int = 36
    noise: float = 1.5

    def __post_init__(self) -> None:
        """Raise InputError for a number out of range."""
        for name, value, valid, expected in (
            ("seed", self.seed, 0 <= self.seed < 2**32, "0 … 2^32 - 1"),
            ("img dim", self.img_dim, 8 <= self.img_dim <= 4096, "8 … 4096"),
            ("regions", self.regions, 1 <= self.regions <= 1000, "1 … 1000"),
            ("noise", self.noise, 0 <= self.noise <= MOST_NOISE, f"0 … {MOST_NOISE:g}"),
        ):
            if not valid:
                raise InputError(f"scenes: {name}", expected=expected, got=value)


def scene_split(options: SceneOptions, name: str, images: int) -> PrecompSplit:
    """A split (`train`, `dev` or `test`) of `images` scenes; `ids` are the scenes in words.

    The same options and count give the same split, byte for byte, on one machine with one version
    of NumPy. Elsewhere the scenes and captions are the same, and a region may differ in the last
    bit of its float16. A larger split begins with the same scenes and captions, with other noise.
    Raises InputError for an unknown split or a count out of range.
    """
    if not 1 <= images <= MOST_SCENES:
        raise InputError(f"scenes of split {name}", expected=f"1 … {MOST_SCENES}", got=images)
    scenes = make_scenes(name, images, options.seed)
    seeds = [options.seed, *name.encode("ascii")]
    words = np.random.Generator(np.random.PCG64([*seeds, 0xCAFE]))
    captions = [caption for scene in scenes for caption in captions_of(scene, words)]
    codebook = Codebook(options.img_dim, options.seed)
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    regions = render_regions(scenes, codebook, options.regions, options.noise, seed)
    image_of = np.arange(len(captions), dtype=np.int32) // np.int32(CAPTIONS)
    return PrecompSplit(name, regions, captions, image_of, [str(scene) for scene in scenes])


def write_split(folder: Path, split: PrecompSplit) -> None:
    """Write `NAME_ims.npy`, `NAME_caps.txt` and `NAME_ids.txt` into a folder.

    Raises DataError if a file cannot be written.
    """
    with staged_file(folder / f"{split.name}_ims.npy", what="regions", error=DataError) as file:
        np.save(file, split.regions)
    for name, text in texts_of(split).items():
        write_file(folder / name, text, what="scenes", error=DataError)


def texts_of(split: PrecompSplit) -> dict[str, str]:
    """The content of a split's text files, by name."""
    return {
        f"{split.name}_{suffix}.txt": "".join(f"{line}\n" for line in lines)
        for suffix, lines in (("caps", split.captions), ("ids", split.ids or []))
    }


def write_splits(folder: Path, options: SceneOptions, sizes: Mapping[str, int]) -> None:
    """Write several splits into an existing folder; `sizes` maps a split to its images."""
    for name, images in sizes.items():
        write_split(folder, scene_split(options, name, images))
