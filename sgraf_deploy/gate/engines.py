"""The gate on a running engine: its graphs, on its device, against the reference's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS, GraphName, Precision
from sgraf_deploy.engines.base import Engine
from sgraf_deploy.errors import GateError
from sgraf_deploy.gate.inputs import GateInputs, GateReference, read_gate
from sgraf_deploy.gate.tolerances import PADDED_WORDS
from sgraf_deploy.gate.values import Arrays, Run, check_values


def gate_engine(bundle: Bundle, engine: Engine, precision: Precision) -> dict[str, Any]:
    """Run every graph of an engine on `reference/gate.npz`; returns a report by member.

    Images and captions that are too many for the engine's profiles are left out. Raises GateError
    for a bound that is not met, and BundleError for a bundle exported without its reference.
    """
    members = bundle.manifest.members
    inputs, references = read_gate(bundle.gate_path(), tuple(members))
    report = {}
    for name in members:
        runs = {graph: _run(engine, name, graph) for graph in GRAPHS}
        fitting, expected = _fitting(engine, inputs, references[name])
        label = f"{name} {precision} on {engine.name}, {engine.device}"
        report[name] = check_values(runs, precision, fitting, expected, label)
    return report


def _run(engine: Engine, member: str, name: GraphName) -> Run:
    graph = engine.open(member, name)
    taken = {spec.name for spec in graph.signature.inputs}

    def run(inputs: Arrays) -> Arrays:
        arrays = {name: each for name, each in inputs.items() if name in taken}
        buffers = {name: engine.put(np.ascontiguousarray(each)) for name, each in arrays.items()}
        return {name: engine.fetch(found) for name, found in graph.run(buffers).items()}

    return run


def _fitting(
    engine: Engine, inputs: GateInputs, expected: GateReference
) -> tuple[GateInputs, GateReference]:
    """The gate's images and captions, as many as every graph of the engine takes in one run."""
    images = _most(engine, "images", ("image_encoder", "scorer", "pair_scorer"))
    pairs = _most(engine, "pairs", ("pair_scorer",))
    captions = _most(engine, "captions", ("text_encoder", "scorer", "pair_scorer"))
    words = _most(engine, "words", ("text_encoder", "scorer", "pair_scorer")) - PADDED_WORDS
    rows = np.arange(len(inputs.regions))[-max(1, min(images, pairs // 2)) :]
    columns = np.flatnonzero(inputs.lengths <= words)[:captions]
    if len(columns) == 0:
        raise GateError(
            "engine: words of a caption",
            expected=f"at least {int(inputs.lengths.min()) + PADDED_WORDS} for the gate",
            got=words + PADDED_WORDS,
            hint="build it with a larger --max-words",
        )
    longest = int(inputs.lengths[columns].max())
    return (
        replace(
            inputs,
            regions=inputs.regions[rows],
            token_ids=inputs.token_ids[columns, :longest],
            lengths=inputs.lengths[columns],
        ),
        _selected(expected, rows, columns),
    )


def _most(engine: Engine, axis: str, graphs: tuple[GraphName, ...]) -> int:
    """The largest size along an axis that the first profile of every graph takes."""
    limits = [_largest(engine.largest(graph), axis) for graph in graphs]
    return min(limits)


def _largest(profiles: tuple[Mapping[str, int], ...], axis: str) -> int:
    """The largest size that a graph's first profile, the general one, takes along an axis."""
    return profiles[0][axis] if profiles else np.iinfo(np.int32).max


def _selected(
    expected: GateReference, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> GateReference:
    parts = {field.name: getattr(expected, field.name) for field in fields(GateReference)}
    for name in ("region_embeddings", "image_global"):
        parts[name] = parts[name][rows]
    for name in ("word_embeddings", "text_global"):
        parts[name] = parts[name][columns]
    for name in ("logits", "fp8_logits"):
        parts[name] = None if parts[name] is None else parts[name][np.ix_(rows, columns)]
    return GateReference(**parts)
