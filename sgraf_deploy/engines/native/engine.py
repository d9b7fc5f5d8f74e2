"""The CPU's own scorer: ONNX Runtime encodes, compiled C scores.

A tile's words are transposed once; cross attention, alignments and reasoning then run on a few
hundred words at a time, whose intermediates never leave a core's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import GraphName, GraphSignature, Precision, signature
from sgraf_deploy.engines.base import EngineOptions, Graph, TileAdvice
from sgraf_deploy.engines.buffers import Buffer, InputCheck, shape_of
from sgraf_deploy.engines.native.library import MAX_STEPS, NativeModel, instruction_sets
from sgraf_deploy.engines.native.probe import check_graph
from sgraf_deploy.engines.native.weights import read_weights
from sgraf_deploy.engines.ort import OrtEngine
from sgraf_deploy.errors import EngineMemoryError, UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle


class NativeEngine(OrtEngine):
    """See `Engine`; float32 on the CPU, with the widest instruction set that there is.

    Weights come from the bundle's scorer graphs, which must compute what it computes: opening one
    compares them on a few pairs. A tile is scored by one thread.
    """

    name = "native"
    tile_advice = TileAdvice(
        intermediate_bytes=16 * 2**20, smallest_share=25, smallest_flop=6e7, words=120
    )
    """No intermediate is a whole tile's: larger ones only cost less between them."""

    def __init__(self, bundle: Bundle, precision: Precision, options: EngineOptions) -> None:
        """Take the graphs of `bundle`, in fp32; InputError for a device but the CPU."""
        super().__init__(bundle, precision, options)
        self._models: dict[str, NativeModel] = {}

    @classmethod
    def check_available(cls, device: str) -> None:
        """UnavailableError without the library, ONNX Runtime, or an instruction set asked for."""
        _ = instruction_sets().used
        super().check_available(device)

    def close(self) -> None:
        """Drop sessions and weights."""
        super().close()
        self._models.clear()

    def _open(self, member: str, graph: GraphName) -> Graph:
        if "scorer" not in graph:
            return super()._open(member, graph)
        if member not in self._models:
            self._models[member] = self._read(member)
        opened = NativeGraph(self._signature(member, graph), self._models[member])
        path = self._bundle.graph_path(member, graph, self._precision)
        stored = self._bundle.graph(member, graph, self._precision).signature
        check_graph(path, stored, opened)
        return opened

    def _signature(self, member: str, name: GraphName) -> GraphSignature:
        """A pair scorer takes what the scorer takes, so that a pair has the same bits in both.

        In bundles that were written before theirs took `region_gram` as well.
        """
        config = self._bundle.member(member).config
        taken = self._bundle.graph(member, "scorer", self._precision).signature.inputs
        gram = any(spec.name == "region_gram" for spec in taken)
        return signature(name, config, self._precision, gram=gram)

    def _read(self, member: str) -> NativeModel:
        """A member's weights, from its scorer's graph."""
        config = self._bundle.member(member).config
        if config.sgr_steps > MAX_STEPS:
            raise UnavailableError(
                "engine native",
                expected=f"at most {MAX_STEPS} SGR steps",
                got=config.sgr_steps,
                hint="use --engine ort",
            )
        path = self._bundle.graph_path(member, "scorer", self._precision)
        return self._model(member, read_weights(path, config))

    def _model(self, member: str, weights: Mapping[str, NDArray[np.float32]]) -> NativeModel:
        """What scores; `bench profile` has one that takes the time of its stages."""
        return NativeModel(self._bundle.member(member).config, weights)


class NativeGraph:
    """A scorer or a pair scorer; see `Graph`."""

    def __init__(self, signature: GraphSignature, model: NativeModel) -> None:
        self.signature = signature
        self._model = model
        self._check = InputCheck(signature)
        (self._logits,) = signature.outputs

    def run(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer] | None = None
    ) -> dict[str, Buffer]:
        """Score arrays; InputError for what the signature does not allow."""
        sizes = self._check.inputs(inputs)
        self._check.outputs(outputs, sizes)
        logits = (outputs or {}).get(self._logits.name)
        try:
            if logits is None:
                logits = np.empty(shape_of(self._logits.axes, sizes), np.float32)
            if logits.size:
                self._model.score(inputs, logits)
        except MemoryError as error:
            raise EngineMemoryError("engine native ran out of memory") from error
        return {self._logits.name: logits}
