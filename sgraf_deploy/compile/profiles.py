"""Which shapes a plan is built for, and how much scratch memory they may take."""

from __future__ import annotations

from dataclasses import dataclass

from sgraf_deploy.config import GraphName, GraphSignature, ModelConfig
from sgraf_deploy.engines.trt.plans import Profile
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.tiles import estimate_tile_bytes

CEILING = 8000 * 2**20
"""Bytes of one intermediate tensor: above it TensorRT's builder silently takes slower kernels."""

GIB = 2**30


@dataclass(frozen=True)
class Sizes:
    """The largest size of every dynamic axis.

    `images` and `captions` are those of an offline tile, `candidates` those of one query.
    """

    images: int = 64
    captions: int = 64
    words: int = 40
    candidates: int = 1000

    def __post_init__(self) -> None:
        """Raise InputError for a size below one."""
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"--max-{name}", expected="at least 1", got=value)


@dataclass(frozen=True)
class Use:
    """What a TensorRT profile is for, and its largest size by axis."""

    name: str
    axes: dict[str, int]

    @property
    def cells(self) -> tuple[int, int, int]:
        """Images, captions and words of the largest tile that is scored in one run."""
        if "pairs" in self.axes:
            return self.axes["pairs"], 1, self.axes["words"]
        return tuple(self.axes.get(axis, 1) for axis in ("images", "captions", "words"))  # type: ignore[return-value]  # three


def uses(graph: GraphName, sizes: Sizes) -> tuple[Use, ...]:
    """The profiles of a graph: large tiles offline, one query against many candidates online."""
    n, c, words, k = sizes.images, sizes.captions, sizes.words, sizes.candidates
    if graph == "image_encoder":
        return (Use("batch", {"images": n}),)
    if graph == "text_encoder":
        return (Use("batch", {"captions": c, "words": words}),)
    if graph == "pair_scorer":
        return (Use("pairs", {"images": k, "captions": k, "words": words, "pairs": k}),)
    return (
        Use("offline", {"images": n, "captions": c, "words": words}),
        Use("one caption", {"images": k, "captions": 1, "words": words}),
        Use("one image", {"images": 1, "captions": k, "words": words}),
    )


def scratch_bytes(graph: GraphName, use: Use, config: ModelConfig) -> int:
    """About how many bytes running a profile's largest shapes takes beside inputs and outputs."""
    images, captions, words = use.cells
    if graph == "image_encoder":
        return 4 * images * config.regions * (config.img_dim + 4 * config.embed)
    if graph == "text_encoder":
        return 4 * captions * words * 11 * config.embed
    return estimate_tile_bytes(config, images, captions, words)


def check_scratch(graph: GraphName, use: Use, config: ModelConfig, workspace: int) -> int:
    """The estimate in bytes; InputError where it, or one intermediate tensor, is too large."""
    images, captions, words = use.cells
    largest = 4 * images * captions * words * config.embed
    hint = "take smaller --max-images, --max-captions, --max-words or --max-candidates"
    if "scorer" in graph and largest > CEILING:
        got = f"{largest / GIB:.1f} GiB for {images} images × {captions} captions × {words} words"
        limit = f"at most {CEILING / GIB:.1f} GiB in one intermediate"
        raise InputError(f"profile {use.name} of {graph}", expected=limit, got=got, hint=hint)
    estimate = scratch_bytes(graph, use, config)
    if estimate > workspace:
        raise InputError(
            f"profile {use.name} of {graph}: scratch memory",
            expected=f"at most --workspace-gb {workspace / GIB:g}",
            got=f"about {estimate / GIB:.2f} GiB",
            hint=hint,
        )
    return estimate


def profile(signature: GraphSignature, use: Use) -> Profile:
    """A profile's shapes by input: one along every dynamic axis, half the largest, the largest."""
    found: Profile = {}
    for spec in signature.inputs:
        high = tuple(use.axes[axis] if isinstance(axis, str) else axis for axis in spec.axes)
        low = tuple(1 if isinstance(axis, str) else axis for axis in spec.axes)
        best = tuple(
            max(1, size // 2) if isinstance(axis, str) else size
            for axis, size in zip(spec.axes, high, strict=True)
        )
        found[spec.name] = (low, best, high)
    return found
