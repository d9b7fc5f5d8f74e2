"""The CPU's own scorer: ONNX Runtime encodes, compiled C scores.

A tile's words are transposed once; cross attention, alignments and reasoning then run on a few
hundred words at a time, whose intermediates never leave a core's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import GraphName, GraphSignature, Precision, TensorSpec, signature
from sgraf_deploy.errors import EngineMemoryError, InputError, UnavailableError
from sgraf_deploy.runtime.engine import Buffer, EngineOptions, Graph, TileAdvice
from sgraf_deploy.runtime.engines.ort import OrtEngine
from sgraf_deploy.runtime.native.library import MAX_STEPS, NativeModel, instruction_sets
from sgraf_deploy.runtime.native.probe import check_graph
from sgraf_deploy.runtime.native.weights import read_weights

if TYPE_CHECKING:
    from sgraf_deploy.bundle import Bundle


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
                mend="use --engine ort",
            )
        path = self._bundle.graph_path(member, "scorer", self._precision)
        return NativeModel(config, read_weights(path, config))


class NativeGraph:
    """A scorer or a pair scorer; see `Graph`."""

    def __init__(self, signature: GraphSignature, model: NativeModel) -> None:
        self.signature = signature
        self._model = model
        self._inputs = [_Layout.of(spec) for spec in signature.inputs]
        (logits,) = signature.outputs
        self._logits = _Layout.of(logits)

    def run(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer] | None = None
    ) -> dict[str, Buffer]:
        """Score arrays; InputError for what the signature does not allow."""
        sizes = self._checked(inputs)
        given = (outputs or {}).get(self._logits.name)
        try:
            logits = np.empty(self._logits.shape(sizes), np.float32) if given is None else given
            self._logits.check(logits, sizes)
            if not logits.flags.writeable:
                raise InputError(f"array {self._logits.name}", expected="writeable memory")
            if logits.size:
                self._model.score(inputs, logits)
        except MemoryError as error:
            raise EngineMemoryError("engine native ran out of memory") from error
        return {self._logits.name: logits}

    def _checked(self, inputs: Mapping[str, Buffer]) -> dict[str | int, int]:
        """The sizes by axis; InputError for anything that C could not read safely."""
        sizes: dict[str | int, int] = {}
        for layout in self._inputs:
            layout.check(inputs.get(layout.name), sizes)
        _check_range("lengths", inputs["lengths"], 1, sizes["words"])
        if "image_index" in inputs:
            _check_range("image_index", inputs["image_index"], 0, sizes["images"] - 1)
            _check_range("caption_index", inputs["caption_index"], 0, sizes["captions"] - 1)
        return sizes


@dataclass(frozen=True)
class _Layout:
    """What an array must be: `axes` holds a name for each dynamic axis."""

    name: str
    dtype: np.dtype[Any]
    axes: tuple[str | int, ...]

    @classmethod
    def of(cls, spec: TensorSpec) -> _Layout:
        return cls(spec.name, np.dtype(spec.dtype), spec.axes)

    def shape(self, sizes: Mapping[str | int, int]) -> tuple[int, ...]:
        """The shape where axes have these sizes."""
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self.axes)

    def check(self, array: object, sizes: dict[str | int, int]) -> None:
        """InputError unless an array fits; an axis that had no size yet takes the array's."""
        if not self._fits(array, sizes):
            axes = tuple(sizes.get(axis, axis) for axis in self.axes)
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array)
            raise InputError(
                f"array {self.name}", expected=f"contiguous {self.dtype} {axes}", got=got
            )

    def _fits(self, array: object, sizes: dict[str | int, int]) -> bool:
        if not isinstance(array, np.ndarray) or array.dtype != self.dtype:
            return False
        flags = array.flags
        if array.ndim != len(self.axes) or not (flags.c_contiguous and flags.aligned):
            return False
        for axis, size in zip(self.axes, array.shape, strict=True):
            if size != (axis if isinstance(axis, int) else sizes.setdefault(axis, size)):
                return False
        return True


def _check_range(name: str, values: NDArray[np.int32], lowest: int, highest: int) -> None:
    if values.size and (values.min() < lowest or values.max() > highest):
        got = f"{values.min()} … {values.max()}"
        raise InputError(f"values of {name}", expected=f"{lowest} … {highest}", got=got)
