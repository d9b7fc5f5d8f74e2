"""What a graph says about itself to whoever opens it in another program.

That is what it computes, what its inputs and outputs mean, the shape of every value, and where it
is from. Nothing of it varies from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import onnx
from onnx import helper

from sgraf_deploy import __version__
from sgraf_deploy.config import (
    COMBINED,
    EXPLAIN,
    GraphSignature,
    Precision,
    TensorSpec,
    describe_modules,
)
from sgraf_deploy.export.shapes import named_shapes
from sgraf_deploy.model.checkpoint import Checkpoint

PREFIX = "sgraf_deploy."
"""Before the names of metadata, so that another program's do not clash with them."""

_GRAPHS = {
    "image_encoder": "Encodes images, each alone, for the scorers.",
    "text_encoder": "Encodes captions, each alone, for the scorers.",
    "scorer": "Scores every image with every caption.",
    "pair_scorer": "Scores the pairs of images and captions that it is given the places of.",
    EXPLAIN: "Scores pairs as the pair scorer does, and gives the values on the way to the logits.",
    COMBINED: "Scores every image with every caption, by all members together.",
}
_SOURCE = (
    "Similarity Graph Reasoning and Attention Filtration for image-text matching, AAAI 2021, "
    "arXiv 2101.01368."
)
_TENSORS = {
    "regions": "Features of an image's regions, as the detector gives them.",
    "token_ids": "Ids of a caption's words in the vocabulary, <start> first and <end> last, padded "
    "with 0 to the longest caption's words; what stands past a caption's length must be an id, but "
    "has no effect.",
    "lengths": "Words of each caption, <start> and <end> counted and padding not; one below 1 "
    "counts as 1, and one beyond the words axis as that axis.",
    "region_embeddings": "Embeddings of an image's regions.",
    "image_global": "One embedding of the whole image.",
    "region_gram": "Products of an image's region embeddings with each other.",
    "word_embeddings": "Embeddings of a caption's words, zeros past its length.",
    "text_global": "One embedding of the whole caption.",
    "image_index": "Rows of the images that are scored, from 0; others must not occur.",
    "caption_index": "Rows of the captions that are scored, from 0; others must not occur.",
    "logits": "The greater, the better the match: rank by them. Their sigmoids are similarities.",
    "attention": "How much each word attends to each region; rows sum to 1, zeros for padding.",
    "alignments": "What is compared, of norm 1: of the whole, then of each word; zeros for "
    "padding.",
    "gates": "How far each node is let through, from 0 to 1: the whole, then each word; zeros for "
    "padding.",
    "kept": "The gates divided by their sum.",
    "contribution": "What each node adds to the logit, which is their sum and the model's bias.",
    "edges": "How much each node reads of each other in every step; rows sum to 1, zeros for "
    "padding; of the last step only row 0 is computed, and the others are zeros.",
    "similarities": "How well they match, from 0 to 1: the mean of the members' similarities.",
}


def annotate(
    model: onnx.ModelProto,
    spec: GraphSignature,
    precision: Precision,
    members: Mapping[str, Checkpoint],
) -> None:
    """Add documentation, shapes and metadata to a graph of one or all members; checked by ONNX.

    `members` are the checkpoints that the graph computes, by the prefix of their metadata: the
    member's name and a period, or nothing for a graph of one.
    """
    graph, name = model.graph, model.graph.name
    module = describe_modules(each.config.module for each in members.values())
    graph.doc_string = f"{_GRAPHS[name]} {module} in {precision}. {_SOURCE}"
    for values, tensors in ((graph.input, spec.inputs), (graph.output, spec.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            value.doc_string = describe_tensor(tensor)
    graph.value_info.extend(named_shapes(model))
    model.producer_version = __version__
    helper.set_model_props(model, dict(_metadata(name, module, precision, members)))
    onnx.checker.check_model(model, full_check=True)


def describe_tensor(spec: TensorSpec) -> str:
    """What an input or output means, and its axes and type."""
    axes = ", ".join(map(str, spec.axes))
    return f"{_TENSORS[spec.name]} Shape ({axes}), {spec.dtype}."


def _metadata(
    graph: str, module: str, precision: Precision, members: Mapping[str, Checkpoint]
) -> Iterator[tuple[str, str]]:
    facts = {"graph": graph, "model": module, "precision": precision}
    facts |= {"version": __version__, "onnx_version": onnx.__version__}
    if graph == COMBINED:
        facts["members"] = " ".join(prefix.rstrip(".") for prefix in members)
    for prefix, checkpoint in members.items():
        config = asdict(checkpoint.config) | {"checkpoint_sha256": checkpoint.sha256}
        facts |= {f"{prefix}{name}": str(value) for name, value in config.items()}
    for name, value in facts.items():
        yield f"{PREFIX}{name}", value
