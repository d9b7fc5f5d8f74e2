"""Runs the graphs `explain` on an image and a caption that a scorer encoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.base import Engine, EngineOptions, Graph
from sgraf_deploy.engines.buffers import Array
from sgraf_deploy.engines.registry import ENGINES, open_engine, unavailable
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages

Internals = dict[str, dict[str, Array]]
"""By member, the outputs of `config.explain_signature` for one pair, without the axis of pairs."""


def compute_internals(
    bundle: Bundle, image: EncodedImages, caption: EncodedCaptions
) -> tuple[Internals, str]:
    """The members' values on the way to their logits, float32, and the engine that computed them.

    That is the scorer's own where it runs the graph; else ONNX Runtime on the CPU or, for a bundle
    without the graph, PyTorch on the original weights. Embeddings of another precision are
    converted. Raises UnavailableError where neither is installed, and BundleError or
    CheckpointError where the original weights are needed and were left out.
    """
    engine = image.origin.engine
    found: Internals = {}
    with _explaining(bundle, engine) as (running, graphs):
        for member, graph in graphs.items():
            buffers = image.members[member]
            text = caption.members[member].text_global
            inputs = {
                "region_embeddings": engine.fetch(buffers.region_embeddings),
                "image_global": engine.fetch(buffers.image_global),
                "word_embeddings": caption.compact_words(member)[None],
                "text_global": engine.fetch(text),
                "lengths": caption.lengths,
                **dict.fromkeys(("image_index", "caption_index"), np.zeros(1, np.int32)),
            }
            outputs = graph.run(
                {
                    spec.name: running.put(np.array(inputs[spec.name], dtype=spec.dtype))
                    for spec in graph.signature.inputs
                }
            )
            found[member] = {name: running.fetch(value)[0] for name, value in outputs.items()}
    return found, running.name


@contextmanager
def _explaining(bundle: Bundle, engine: Engine) -> Iterator[tuple[Engine, dict[str, Graph]]]:
    """An engine that runs the graphs, and each member's; the scorer's own stays open."""
    own = _graphs(bundle, engine)
    if own is not None:
        yield engine, own
        return
    name = "ort" if bundle.manifest.explain else "torch"
    error = unavailable(name, "cpu")
    if error is not None:
        raise UnavailableError(
            f"engine {engine.name} does not compute what explain needs, and engine {name} is "
            "not available",
            got=error.reason,
            hint=error.hint or ENGINES[name].install,
        ) from error
    other = open_engine(name, bundle, "fp32", EngineOptions(checkpoints=engine.checkpoints))
    try:
        graphs = _graphs(bundle, other)
        assert graphs is not None, name  # noqa: S101  # both run it
        yield other, graphs
    finally:
        other.close()


def _graphs(bundle: Bundle, engine: Engine) -> dict[str, Graph] | None:
    graphs = {member: engine.explainer(member) for member in bundle.manifest.members}
    found = {member: graph for member, graph in graphs.items() if graph is not None}
    return found if len(found) == len(graphs) else None
