"""An engine in plain NumPy with a small model of its own, for tests of everything above engines.

Its model is no SGRAF, but has what matters there: values of an image or caption depend on nothing
else in the batch, words count by their place, and padding is told apart by lengths alone. It
refuses what a real engine could only get wrong: padding that is not zero, and nothing to run on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from support.closeness import assert_close
from support.locked import Locked

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GraphName, GraphSignature, ModelConfig, Precision
from sgraf_deploy.engines.base import Engine, EngineOptions, Graph
from sgraf_deploy.engines.buffers import Array, Sizes
from sgraf_deploy.errors import EngineMemoryError

GARBAGE = 7.0
"""What the text encoder leaves past a caption's length."""


def fake_weights(member: str, config: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """A member's fixed random projections: `image` (img_dim, embed), `words` (vocab, embed)."""
    rng = np.random.default_rng(len(member) + ord(member[0]) + ord(member[1]))
    return {
        "image": rng.normal(0, 0.5, (config.img_dim, config.embed)).astype(np.float32),
        "words": rng.normal(0, 1, (config.vocab_size, config.embed)).astype(np.float32),
    }


class FakeEngine(Locked, Engine):
    """On the host, with the base class's bodies.

    `calls` counts runs by graph, `shapes` lists their leading sizes.

    `memory` is the largest images x captions x words (pairs x words, rows x words, images) that
    a run may have before it raises EngineMemoryError; None: no limit. `profiles` are the largest
    sizes that graphs take: a run that fits none of a graph's is refused.
    """

    name = "fake"

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = "fp32",
        options: EngineOptions | None = None,
        *,
        memory: int | None = None,
        profiles: Mapping[GraphName, tuple[Mapping[str, int], ...]] | None = None,
    ) -> None:
        super().__init__(bundle, precision, options or EngineOptions())
        self.executed = "fp32" if precision == "fp32" else "fake fp16"
        self.options = options
        self.memory = memory
        self.profiles = profiles or {}
        self.closed = False
        self.calls: Counter[str] = Counter()
        self.shapes: list[tuple[str, tuple[int, ...]]] = []
        self.largest_gather = 0

    @classmethod
    def check_available(cls, device: str) -> None:
        return None

    def _open(self, member: str, graph: GraphName) -> Graph:
        config = self._bundle.manifest.members[member].config
        return FakeGraph(self, member, graph, config, self.signature(member, graph))

    def largest(self, graph: GraphName) -> tuple[Mapping[str, int], ...]:
        return self.profiles.get(graph, ())

    def gather(self, buffer: Array, rows: slice | NDArray[np.int32]) -> Array:
        if isinstance(rows, slice):
            assert rows.step in (None, 1)
            assert 0 <= rows.start <= rows.stop <= len(buffer)
        else:
            assert rows.dtype == np.int32
            assert rows.size == 0 or (rows.min() >= 0 and rows.max() < len(buffer))
        gathered: Array = super().gather(buffer, rows)
        if not isinstance(rows, slice):
            self.largest_gather = max(self.largest_gather, gathered.nbytes)
        return gathered

    def note(self, graph: GraphName, sizes: tuple[int, ...]) -> None:
        """A run of a graph, by the sizes of its dynamic axes."""
        self.calls[graph] += 1
        self.shapes.append((graph, sizes))

    def close(self) -> None:
        super().close()
        self.closed = True


class FakeGraph(Graph):
    """One of the four graphs of one member."""

    def __init__(
        self,
        engine: FakeEngine,
        member: str,
        name: GraphName,
        config: ModelConfig,
        spec: GraphSignature,
    ) -> None:
        super().__init__(spec)
        self._engine = engine
        self._name = name
        self._weights = fake_weights(member, config)

    def _run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], sizes: Sizes
    ) -> dict[str, Array]:
        engine = self._engine
        assert not engine.closed
        assert min(sizes.values()) > 0, sizes
        profiles = engine.largest(self._name)
        fits = [all(size <= most[axis] for axis, size in sizes.items()) for most in profiles]
        assert not profiles or any(fits), (self._name, sizes, profiles)
        axes = tuple(dict.fromkeys(axis for spec in self.signature.inputs for axis in spec.axes))
        names = [axis for axis in axes if isinstance(axis, str)]
        engine.note(self._name, tuple(sizes[name] for name in names))
        axes_of_cost = {"pair_scorer": ("pairs", "words")}.get(self._name, tuple(names))
        cost = int(np.prod([sizes[name] for name in axes_of_cost]))
        if engine.memory is not None and cost > engine.memory:
            raise EngineMemoryError(f"fake {self._name} ran out of memory", got=cost)
        results = getattr(self, f"_{self._name}")(**inputs)
        stored = zip(self.signature.outputs, results, strict=True)
        return self._named([result.astype(spec.dtype) for spec, result in stored], outputs)

    def _image_encoder(self, regions: Array) -> tuple[Array, ...]:
        embeddings = np.tanh(regions.astype(np.float64) @ self._weights["image"])
        gram = embeddings @ embeddings.transpose(0, 2, 1)
        return (embeddings, embeddings.mean(axis=1), gram)[: len(self.signature.outputs)]

    def _text_encoder(self, token_ids: Array, lengths: Array) -> tuple[Array, Array]:
        assert token_ids.min() >= 0
        real = _mask(lengths, token_ids.shape[1])[:, :, None]
        words = np.tanh(self._weights["words"].astype(np.float64)[token_ids])
        overall = (words * real).sum(axis=1) / lengths[:, None]
        return np.where(real > 0, words, GARBAGE), overall

    def _scorer(
        self,
        region_embeddings: Array,
        image_global: Array,
        word_embeddings: Array,
        text_global: Array,
        lengths: Array,
        region_gram: Array | None = None,
    ) -> tuple[Array]:
        _check_gram(region_embeddings, region_gram)
        images, captions = len(region_embeddings), len(word_embeddings)
        rows, columns = np.divmod(np.arange(images * captions, dtype=np.int32), captions)
        (logits,) = self._pair_scorer(
            region_embeddings, image_global, word_embeddings, text_global, lengths, rows, columns
        )
        return (logits.reshape(images, captions),)

    def _pair_scorer(
        self,
        region_embeddings: Array,
        image_global: Array,
        word_embeddings: Array,
        text_global: Array,
        lengths: Array,
        image_index: Array,
        caption_index: Array,
        region_gram: Array | None = None,
    ) -> tuple[Array]:
        _check_gram(region_embeddings, region_gram)
        words = word_embeddings.shape[1]
        real = _mask(lengths, words)
        assert not word_embeddings[real == 0].any(), "padding that is not zero"
        assert image_index.min() >= 0
        assert caption_index.min() >= 0
        image = region_embeddings.astype(np.float64).sum(axis=1)[image_index]  # (pairs, embed)
        text = word_embeddings.astype(np.float64)[caption_index]  # (pairs, words, embed)
        attended = np.tanh((text @ image[:, :, None])[:, :, 0])  # (pairs, words)
        weighted = attended * (real * (1 + np.arange(words) / 10))[caption_index]
        local = weighted.sum(axis=1) / lengths[caption_index]
        overall = image_global.astype(np.float64)[image_index] * text_global[caption_index]
        return (local + 2 * overall.sum(axis=1),)


def _check_gram(region_embeddings: Array, region_gram: Array | None) -> None:
    if region_gram is not None:
        wide = region_embeddings.astype(np.float64)
        assert_close(region_gram, wide @ wide.transpose(0, 2, 1), depth=wide.shape[-1])


def _mask(lengths: Array, words: int) -> Array:
    """(captions, words) of 1.0 for a real word and 0.0 for padding."""
    assert lengths.min() >= 1
    assert lengths.max() <= words
    return (np.arange(words) < lengths[:, None]).astype(np.float64)
