"""The plain types that describe a model and its graphs; no heavy imports.

Axis names: `images`, `regions`, `captions`, `words`, `pairs`, `embed`, `sim_dim`, `img_dim`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from sgraf_deploy.errors import InputError

Module = Literal["SGR", "SAF"]
Precision = Literal["fp32", "fp16", "fp8"]
GraphName = Literal["image_encoder", "text_encoder", "scorer", "pair_scorer"]

MODULES: tuple[Module, ...] = get_args(Module)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DEFAULT_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
"""What an export makes where nothing is said: fp8 has to be asked for."""
GRAPHS: tuple[GraphName, ...] = get_args(GraphName)

CAPTIONS_PER_IMAGE = 5
"""In the data that the field evaluates on, Flickr30K and MSCOCO."""


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

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, value: object) -> ModelConfig:
        """Read `to_json`'s object back; InputError if a field is missing, unknown or mistyped."""
        expected = {field.name: field.type for field in fields(cls)}
        if not isinstance(value, dict) or set(value) != set(expected):
            got = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise InputError("model config", expected=f"the fields {sorted(expected)}", got=got)
        for name, kind in expected.items():
            right = {"int": int, "bool": bool, "Module": str}[str(kind)]
            if type(value[name]) is not right:
                raise InputError(f"model config field {name}", expected=kind, got=value[name])
        if value["module"] not in MODULES:
            raise InputError("model config field module", expected=MODULES, got=value["module"])
        return cls(**value)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph: `axes` holds a name per dynamic axis, an int per fixed."""

    name: str
    dtype: Literal["float32", "float16", "int32"]
    axes: tuple[str | int, ...]


@dataclass(frozen=True)
class GraphSignature:
    """The named inputs and outputs of one graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def signature(
    graph: GraphName, config: ModelConfig, precision: Precision, *, gram: bool = True
) -> GraphSignature:
    """The signature that `graph` has for a model of `config` in `precision`.

    Embeddings are stored in the graph's precision, and in float16 for fp8; regions and logits are
    always float32, ids, lengths and indices int32. `region_gram` is part of fp32 graphs alone;
    graphs that were written before they had one have none (`gram=False`).
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
