"""Engine `native`, for CPUs: ONNX Runtime runs the encoders, and compiled C the scorers.

A tile's words are transposed once. Cross attention, alignments and reasoning then run on a few
hundred words at a time, whose intermediates stay in a core's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import (
    GraphName,
    GraphSignature,
    Precision,
    ragged_signature,
    signature,
)
from sgraf_deploy.engines.base import EngineOptions, Graph, TileAdvice
from sgraf_deploy.engines.bounds import ANY, Range, filtration_range
from sgraf_deploy.engines.buffers import Buffer, Sizes, shape_of
from sgraf_deploy.engines.native.library import MAX_STEPS, NativeModel, instruction_sets
from sgraf_deploy.engines.native.probe import check_graph
from sgraf_deploy.engines.native.weights import read_weights
from sgraf_deploy.engines.ort import OrtEngine
from sgraf_deploy.errors import EngineMemoryError, InputError, UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle


class NativeEngine(OrtEngine):
    """float32 on the CPU, with the widest instruction set that the processor has.

    The weights are those of the bundle's scorer graphs. Opening a graph compares its values with
    the compiled scorer's on a few pairs. A tile is scored by one thread.
    """

    name = "native"
    exact_pairs = True
    tile_advice = TileAdvice(
        intermediate_bytes=16 * 2**20, smallest_share=25, smallest_flop=6e7, words=120
    )
    """No intermediate is as large as a tile, so that larger tiles only save overhead."""

    def __init__(self, bundle: Bundle, precision: Precision, options: EngineOptions) -> None:
        """Take the graphs of `bundle`, in fp32; InputError for a device but the CPU."""
        super().__init__(bundle, precision, options)
        self._models: dict[str, NativeModel] = {}
        self._ranges: dict[str, Range] = {}

    @classmethod
    def check_available(cls, device: str) -> None:
        """Raise UnavailableError without the C library, its instruction set, or ONNX Runtime."""
        _ = instruction_sets().used
        super().check_available(device)

    def close(self) -> None:
        """Release sessions and weights."""
        super().close()
        self._models.clear()

    def logit_range(self, member: str) -> Range:
        """What the last layer of a SAF allows; of an SGR, whose last vector has any norm, all."""
        self.open(member, "scorer")
        return self._ranges[member]

    def _open(self, member: str, graph: GraphName) -> Graph:
        if "scorer" not in graph:
            return super()._open(member, graph)
        if member not in self._models:
            self._models[member] = self._read(member)
        opened = NativeGraph(self._taken(member, graph), self._models[member])
        path = self._bundle.graph_path(member, graph, self._precision)
        check_graph(path, self.signature(member, graph), opened)
        return opened

    def _taken(self, member: str, name: GraphName) -> GraphSignature:
        """The inputs that the compiled scorer takes: `region_gram` if the bundle's scorer does.

        A pair then has the same bits in both scorers, also in a bundle so old that its pair scorer
        takes no `region_gram`.
        """
        config = self._bundle.member(member).config
        gram = any(spec.name == "region_gram" for spec in self.signature(member, "scorer").inputs)
        return signature(name, config, self._precision, gram=gram)

    def _read(self, member: str) -> NativeModel:
        """The compiled model with a member's weights, which are read from its scorer's graph."""
        config = self._bundle.member(member).config
        if config.sgr_steps > MAX_STEPS:
            raise UnavailableError(
                "engine native",
                expected=f"at most {MAX_STEPS} SGR steps",
                got=config.sgr_steps,
                hint="use --engine ort",
            )
        path = self._bundle.graph_path(member, "scorer", self._precision)
        weights = read_weights(path, config)
        last = weights["similarity.weight"], weights["similarity.bias"]
        self._ranges[member] = filtration_range(*last) if config.module == "SAF" else ANY
        return self._model(member, weights)

    def _model(self, member: str, weights: Mapping[str, NDArray[np.float32]]) -> NativeModel:
        """What scores; `bench profile` has one that takes the time of its stages."""
        return NativeModel(self._bundle.member(member).config, weights)


class NativeGraph(Graph):
    """A scorer or a pair scorer in compiled C."""

    also_float16 = ("region_embeddings", "image_global")

    def __init__(self, signature: GraphSignature, model: NativeModel) -> None:
        super().__init__(signature, ragged=ragged_signature(signature))
        self._model = model
        (self._logits,) = signature.outputs

    def _run(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], sizes: Sizes
    ) -> dict[str, Buffer]:
        logits = outputs.get(self._logits.name)
        if "offsets" in inputs:
            _check_ends(inputs["offsets"], inputs["lengths"], sizes["words"])
        try:
            if logits is None:
                logits = np.empty(shape_of(self._logits.axes, sizes), np.float32)
            if logits.size:
                self._model.score(inputs, logits)
        except MemoryError as error:
            raise EngineMemoryError("engine native ran out of memory") from error
        return {self._logits.name: logits}


def _check_ends(offsets: NDArray[np.int32], lengths: NDArray[np.int32], words: int) -> None:
    """Raise InputError for captions whose words end past the last row."""
    ends = np.add(offsets, lengths, dtype=np.int64)
    if ends.size and ends.max() > words:
        raise InputError("offsets + lengths", expected=f"at most {words}", got=ends.max())
