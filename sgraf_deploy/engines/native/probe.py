"""Checks on a few pairs that a scorer graph computes what the compiled scorer computes.

The compiled scorer takes only the weights of a graph, and computes what this program exports. A
graph that was changed together with its hash would give other values in ONNX Runtime than in C.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.manifest import EXPORT_AGAIN
from sgraf_deploy.config import GraphSignature
from sgraf_deploy.engines.base import Graph
from sgraf_deploy.engines.onnx_runtime import import_onnxruntime
from sgraf_deploy.engines.ort import (
    PROVIDER,
    check_interface,
    open_session,
    session_options,
    translated,
)
from sgraf_deploy.errors import BundleError, InputError

Arrays = dict[str, NDArray[Any]]

RELATIVE, ABSOLUTE = 5e-5, 1e-6
"""The tolerance for what float32 rounds differently: a share of the largest logit, plus a constant.
Measured: at most 5e-7 of logits of 2 to 4 with trained weights, and 2e-7 in all with random ones of
embed 16 to 2048. A leaky slope of 0.11 for 0.1 changes 4e-6 in the flattest of these, and 0.01 in
trained models."""

LENGTHS = (1, 3, 8)
SCALES = (1.0, 2.0, 1e-7, 0.0)
"""The scales of the images' regions; where these are tiny, the epsilons of the norms matter."""


def check_graph(path: Path, signature: GraphSignature, compiled: Graph) -> None:
    """Run the graph in `path`, of this signature, and its compiled counterpart on the same pairs.

    Raises BundleError where the graph is not what the signature says, cannot be run, or differs.
    """
    inputs = probe(compiled.signature)
    (name,) = (spec.name for spec in signature.outputs)
    right = compiled.run(inputs)[name]
    found = _run(path, signature, inputs)
    tolerance = ABSOLUTE + RELATIVE * float(np.abs(right).max())
    if found.shape == right.shape and np.all(np.abs(found - right) <= tolerance):
        return
    differs = "another shape"
    if found.shape == right.shape:
        differs = f"logits that differ by {np.abs(found - right).max():.2g}"
    raise BundleError(
        f"graph {path} does not compute what sgraf-deploy exports",
        expected=f"engine native's logits within {tolerance:.2g}",
        got=differs,
        hint=f"{EXPORT_AGAIN}, or use --engine ort if the graph was changed on purpose",
    )


def probe(signature: GraphSignature) -> Arrays:
    """Inputs of a scorer or a pair scorer that reach every operation and every branch of it.

    One image has large regions, the first of them zeros, one has tiny regions, and one only zeros;
    captions have one word and more, and are padded with zeros. The inputs never change.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    _, regions, embed = specs["region_embeddings"].axes
    rng = np.random.default_rng(0)
    images, captions, words = len(SCALES), len(LENGTHS), max(LENGTHS)
    scales = np.array(SCALES, dtype=np.float32)
    shape = (images, int(regions), int(embed))
    region_embeddings = _unit(rng, *shape) * scales[:, None, None]
    region_embeddings[1, 0] = 0.0
    word_embeddings = _unit(rng, captions, words, shape[2])
    word_embeddings[np.arange(words) >= np.array(LENGTHS)[:, None]] = 0.0
    pairs = rng.permutation(images * captions).astype(np.int32)
    inputs = {
        "region_embeddings": region_embeddings,
        "image_global": _unit(rng, images, shape[2]) * np.sign(scales)[:, None],
        "word_embeddings": word_embeddings,
        "text_global": _unit(rng, captions, shape[2]),
        "lengths": np.array(LENGTHS, dtype=np.int32),
        "region_gram": _gram(region_embeddings),
        "image_index": pairs // captions,
        "caption_index": pairs % captions,
    }
    return {name: np.ascontiguousarray(inputs[name]) for name in specs}


def _run(path: Path, signature: GraphSignature, inputs: Mapping[str, Any]) -> NDArray[np.float32]:
    """The graph's logits in ONNX Runtime, not optimised, as that would take longer."""
    onnxruntime = import_onnxruntime()
    options = session_options(threads=1, arena=False)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_session(path, options, [PROVIDER])
    check_interface(session, signature, path)
    taken = {spec.name: inputs[spec.name] for spec in signature.inputs}
    try:
        with translated(str(path)):
            (logits,) = session.run(None, taken)
    except InputError as error:
        raise BundleError(f"graph {path} cannot be run", got=error, hint=EXPORT_AGAIN) from error
    found: NDArray[np.float32] = logits
    return found


def _unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    x = rng.standard_normal(shape, dtype=np.float32)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return x


def _gram(regions: NDArray[np.float32]) -> NDArray[np.float32]:
    # Not by a product of BLAS, whose threads cost more than they save here.
    gram: NDArray[np.float32] = np.einsum("nrd,nsd->nrs", regions, regions)
    return gram
