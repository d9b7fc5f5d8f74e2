"""The plain types that describe a model and its graphs; no heavy imports.

Axis names: `images`, `regions`, `captions`, `words`, `pairs`, `embed`, `sim_dim`, `img_dim`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

Module = Literal["SGR", "SAF"]
Precision = Literal["fp32", "fp16", "fp8"]
GraphName = Literal["image_encoder", "text_encoder", "scorer", "pair_scorer"]
Direction = Literal["image_to_text", "text_to_image"]
"""Which way a query is answered: an image with captions, or a caption with images."""

MODULES: tuple[Module, ...] = get_args(Module)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DEFAULT_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
"""The precisions that an export makes by default; fp8 must be requested."""
GRAPHS: tuple[GraphName, ...] = get_args(GraphName)
"""A member's graphs, which engines run."""
COMBINED = "combined"
"""The graph of all members in one, for other programs: no member's, and none that engines run."""
EXPLAIN: Literal["explain"] = "explain"
"""A member's graph that gives the values on the way to a logit; no scorer runs it."""

CAPTIONS_PER_IMAGE = 5
MOST_THREADS = 1024
"""More than a machine has cores: libraries start as many threads as they are told, or try to."""
"""The number of captions per image in Flickr30K and MSCOCO, the usual evaluation data."""

MAX_PIXELS = 50_000_000
"""The pixels of a photograph that is decoded, unless more are allowed; they take 150 MB."""
MOST_PIXELS = 178_956_970
"""The most that can be allowed: Pillow refuses a larger photograph itself."""


def member_names(modules: Iterable[Module]) -> list[str]:
    """The names of members of these modules, in the same order: `sgr`, `saf`, `sgr-2`, …"""
    counts: Counter[Module] = Counter()
    names = []
    for module in modules:
        counts[module] += 1
        number = f"-{counts[module]}" if counts[module] > 1 else ""
        names.append(f"{module.lower()}{number}")
    return names


def describe_modules(modules: Iterable[Module]) -> str:
    """The name of the model that members of these modules form together.

    It is `SGR` or `SAF` for a single member, and `SGRAF` for one of each, as in the paper. For
    other combinations it gives the number of each, SGR first: `2×SGR`, `2×SGR + SAF`.
    """
    counts = Counter(modules)
    if counts == dict.fromkeys(MODULES, 1):
        return "SGRAF"
    parts = [(module, counts[module]) for module in MODULES if counts[module]]
    return " + ".join(module if count == 1 else f"{count}×{module}" for module, count in parts)


def ensemble_name(members: Collection[str]) -> str:
    """The name of several members together: `sgraf` for one of each module, else `ensemble`."""
    return "sgraf" if set(members) == set(member_names(MODULES)) else "ensemble"


@dataclass(frozen=True)
class ModelConfig:
    """The dimensions and options of one member (one checkpoint): SGR or SAF.

    `regions` is read from the region BatchNorm of the image's self-attention; `sgr_steps` is 0
    for SAF. `image_norm` and `text_norm` say whether the embeddings are l2-normalised.
    """

    module: Module
    img_dim: int
    regions: int
    embed: int
    sim_dim: int
    word_dim: int
    vocab_size: int
    num_layers: int
    bidirectional: bool
    sgr_steps: int
    image_norm: bool
    text_norm: bool

    @property
    def word_flop(self) -> int:
        """The floating-point operations of one word of a pair: what members' costs differ by.

        They are those of its attention, of its alignment and, in SGR, of its reasoning: two
        products in each step but the last, in which the words are only looked at.
        """
        attention, alignment = 4 * self.regions * self.embed, 2 * self.embed * self.sim_dim
        return attention + alignment + 4 * max(0, self.sgr_steps - 1) * self.sim_dim**2


_SGR = ModelConfig(
    module="SGR",
    img_dim=2048,
    regions=36,
    embed=1024,
    sim_dim=256,
    word_dim=300,
    vocab_size=8481,
    num_layers=1,
    bidirectional=True,
    sgr_steps=3,
    image_norm=True,
    text_norm=True,
)
PAPER: dict[Module, ModelConfig] = {"SGR": _SGR, "SAF": replace(_SGR, module="SAF", sgr_steps=0)}
"""The models with the paper's dimensions."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; `axes` has names for dynamic axes, ints for fixed ones."""

    name: str
    dtype: Literal["float32", "float16", "int32"]
    axes: tuple[str | int, ...]

    def __str__(self) -> str:
        """As in `regions float32 (images, 36, 2048)`."""
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.axes))})"


@dataclass(frozen=True)
class GraphSignature:
    """The named inputs and outputs of one graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def signature(
    graph: GraphName, config: ModelConfig, precision: Precision, *, gram: bool = True
) -> GraphSignature:
    """The signature of `graph` for a model of `config` in `precision`.

    Embeddings are stored in the graph's precision, and in float16 for fp8; regions and logits are
    always float32, and ids, lengths and indices int32. Only fp32 graphs have `region_gram`; older
    fp32 graphs were exported without it (`gram=False`).
    """
    stored: Literal["float32", "float16"] = "float32" if precision == "fp32" else "float16"
    image = (
        TensorSpec("region_embeddings", stored, ("images", config.regions, config.embed)),
        TensorSpec("image_global", stored, ("images", config.embed)),
    )
    products: tuple[TensorSpec, ...] = ()
    if gram and precision == "fp32":
        axes = ("images", config.regions, config.regions)
        products = (TensorSpec("region_gram", "float32", axes),)
    text = (
        TensorSpec("word_embeddings", stored, ("captions", "words", config.embed)),
        TensorSpec("text_global", stored, ("captions", config.embed)),
    )
    lengths = TensorSpec("lengths", "int32", ("captions",))
    if graph == "image_encoder":
        regions = TensorSpec("regions", "float32", ("images", config.regions, config.img_dim))
        return GraphSignature((regions,), (*image, *products))
    if graph == "text_encoder":
        token_ids = TensorSpec("token_ids", "int32", ("captions", "words"))
        return GraphSignature((token_ids, lengths), text)
    if graph == "scorer":
        logits = TensorSpec("logits", "float32", ("images", "captions"))
        return GraphSignature((*image, *text, lengths, *products), (logits,))
    index = (
        TensorSpec("image_index", "int32", ("pairs",)),
        TensorSpec("caption_index", "int32", ("pairs",)),
    )
    logits = TensorSpec("logits", "float32", ("pairs",))
    return GraphSignature((*image, *text, lengths, *products, *index), (logits,))


def ragged_signature(padded: GraphSignature) -> GraphSignature:
    """The signature of a scorer whose captions are not padded but lie one after the other.

    "words" are then those of all captions, and `offsets` say in which row each caption begins.
    """
    inputs = []
    for spec in padded.inputs:
        ragged = spec.name == "word_embeddings"
        inputs.append(replace(spec, axes=spec.axes[1:]) if ragged else spec)
    offsets = TensorSpec("offsets", "int32", ("captions",))
    return GraphSignature((*inputs, offsets), padded.outputs)


def explain_signature(config: ModelConfig) -> GraphSignature:
    """The signature of a member's graph `explain`: the pair scorer's with more outputs, float32.

    "nodes" are the words and, before them, the whole: 1 + "words".
    """
    pairs = signature("pair_scorer", config, "fp32", gram=False)
    nodes: tuple[str | int, ...] = ("pairs", "nodes")
    outputs: dict[str, tuple[str | int, ...]] = {
        "attention": ("pairs", "words", config.regions),
        "alignments": (*nodes, config.sim_dim),
    }
    if config.module == "SAF":
        outputs |= dict.fromkeys(("gates", "kept", "contribution"), nodes)
    elif config.sgr_steps:
        outputs["edges"] = ("pairs", config.sgr_steps, "nodes", "nodes")
    more = (TensorSpec(name, "float32", axes) for name, axes in outputs.items())
    return GraphSignature(pairs.inputs, (*pairs.outputs, *more))


def combined_signature(config: ModelConfig) -> GraphSignature:
    """The signature of the combined graph of members that share the dimensions in `config`.

    It is the same in every precision: regions and logits are float32, ids and lengths int32.
    """
    regions = signature("image_encoder", config, "fp32").inputs
    texts = signature("text_encoder", config, "fp32").inputs
    (logits,) = signature("scorer", config, "fp32").outputs
    return GraphSignature((*regions, *texts), (logits, replace(logits, name="similarities")))
