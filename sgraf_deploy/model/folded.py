"""The folded model: the paper's mathematics with the exact rewrites, over any `Ops`.

It has the same value as `reference` with less work: everything that depends on only one image or
only one caption is computed in its encoder, BatchNorms and SGR's key products are folded into
weights (`folding`), and only node 0 of the last SGR step is computed. Padded words never reach a
norm, a mean, a softmax or a sum. Shapes: `images` N, `regions` R, `captions` C, `words` L, `embed`
D, `sim_dim` S.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic

import numpy as np

from sgraf_deploy.model.constants import ATTENTION_SMOOTHING, EPSILON, LEAKY_SLOPE
from sgraf_deploy.model.folding import FoldedWeights, Linear, ReasoningStep
from sgraf_deploy.model.ops import Ops, V

MASKED = 1e9
"""Subtracted from the softmax scores of padding: its weight underflows to exactly 0 in float32."""

EMBED_BLOCK = 512
"""In float32 the scorer processes the embedding axis in blocks of this many columns.

A block of the contexts fits into a core's cache, and the product with the alignment's weights does
not read rows that are 4 KiB apart, which compete for the same cache sets (measured on a CPU: SGR is
8 % faster, SAF 15 %).
"""


LARGEST_SQUARE = 4.0
"""The bound of the squared difference of a context and its word: both are within -1 … 1, the
context by its norm and the word as a state of the GRU."""


@dataclass(frozen=True)
class Encoded(Generic[V]):
    """The inputs of the scorers: embeddings as the encoders stored them, and word counts (C,).

    `region_gram` (N, R, R) are the products of an image's regions with each other, float32; None
    if they were not computed or are not needed.
    """

    region_embeddings: V
    image_global: V
    word_embeddings: V
    text_global: V
    lengths: V
    region_gram: V | None = None

    @classmethod
    def of(cls, images: tuple[V, ...], texts: tuple[V, ...], lengths: V) -> Encoded[V]:
        """The inputs of the scorers from the outputs of the encoders."""
        gram = images[2] if len(images) > 2 else None
        return cls(images[0], images[1], texts[0], texts[1], lengths, gram)


class FoldedModel(Generic[V]):
    """One member's four graphs, each a method from inputs to outputs."""

    def __init__(self, weights: FoldedWeights, ops: Ops[V]) -> None:
        self.weights = weights
        self.config = weights.config
        self.ops = ops

    def image_encoder(self, regions: V) -> tuple[V, ...]:
        """Regions (N, R, img_dim) -> region_embeddings (N, R, D), image_global (N, D), stored.

        In float32 also region_gram (N, R, R), see `_local_alignments`.
        """
        ops, weights = self.ops, self.weights
        local = self._linear(regions, weights.projection)
        if self.config.image_norm:
            local = self._l2norm(local)
        mean = ops.mul(ops.sum(local, 1), self._scalar("one_over_regions", 1 / self.config.regions))
        query = ops.tanh(self._linear(mean, weights.image_mean))  # (N, 1, D)
        keys = ops.mul(
            self._linear(local, weights.image_local),
            ops.constant("image_global.local_norm.scale", weights.image_local_scale),
        )
        shift = ops.constant("image_global.local_norm.shift", weights.image_local_shift)
        scores = self._linear(
            ops.mul(ops.tanh(ops.add(keys, shift)), query), weights.image_attention, exact=True
        )
        attention = ops.softmax(ops.transpose(scores, 0, 2, 1))  # (N, 1, R)
        overall = self._l2norm(ops.matmul(attention, local, exact=True))
        embeddings = ops.store(local), ops.store(ops.reshape(overall, -1, self.config.embed))
        return embeddings if ops.halves else (*embeddings, self._gram([local]))

    def text_encoder(self, token_ids: V, lengths: V) -> tuple[V, V]:
        """Ids (C, L), lengths (C,) -> word_embeddings (C, L, D), text_global (C, D), stored."""
        ops, weights = self.ops, self.weights
        captions, words = ops.size(token_ids, 0), ops.size(token_ids, 1)
        mask = ops.word_mask(lengths, words)
        real = ops.reshape(mask, captions, words, 1)
        counts = ops.sum(real, 1)  # (C, 1, 1)
        lengths = ops.integers(ops.reshape(counts, -1))  # within 1 … words, as the mask is
        states = ops.gather(
            ops.constant("text_encoder.embedding.weight", weights.embedding), token_ids
        )
        for layer in weights.gru:
            states = ops.gru(states, lengths, layer)
        if self.config.bidirectional:
            pair = ops.reshape(states, captions, words, 2, self.config.embed)
            mean = ops.mul(ops.sum(pair, 2), self._scalar("half", 0.5))
            states = ops.reshape(mean, captions, words, self.config.embed)
        if self.config.text_norm:
            states = self._l2norm(states)
        states = ops.mul(states, real)
        mean = ops.div(ops.sum(states, 1), counts)
        query = ops.tanh(self._linear(mean, weights.text_mean))  # (C, 1, D)
        keys = ops.tanh(self._linear(states, weights.text_local))
        scores = self._linear(ops.mul(keys, query), weights.text_attention, exact=True)
        scores = ops.add(ops.transpose(scores, 0, 2, 1), self._padding_penalty(mask))
        overall = self._l2norm(ops.matmul(ops.softmax(scores), states, exact=True))
        return ops.store(states), ops.store(ops.reshape(overall, -1, self.config.embed))

    def scorer(self, encoded: Encoded[V]) -> V:
        """Logits (N, C) of every image with every caption, float32."""
        ops, embed = self.ops, self.config.embed
        images = ops.size(encoded.region_embeddings, 0)
        captions = ops.size(encoded.word_embeddings, 0)
        words = ops.size(encoded.word_embeddings, 1)
        region_blocks = self._blocks(ops.load(encoded.region_embeddings))
        flat_words = ops.reshape(ops.load(encoded.word_embeddings), -1, embed)  # (C*L, D)
        word_blocks = self._blocks(flat_words)
        mask = ops.word_mask(encoded.lengths, words)
        raw = self._sum(
            ops.matmul(block, ops.transpose(word_block, 1, 0))
            for block, word_block in zip(region_blocks, word_blocks, strict=True)
        )
        raw = ops.reshape(raw, images, self.config.regions, captions, words)
        real = ops.reshape(mask, 1, captions, words)
        weights = ops.transpose(self._word_attention(raw, real), 0, 2, 3, 1)  # (N, C, L, R)
        weights = ops.reshape(weights, images, -1, self.config.regions)
        weights = ops.softmax(weights)
        if not ops.halves:
            gram = encoded.region_gram
            weights = self._normalise(weights, self._gram(region_blocks) if gram is None else gram)
        local = self._local_alignments(weights, region_blocks, word_blocks)
        local = ops.reshape(local, images, captions, words, self.config.sim_dim)
        text_global = ops.reshape(ops.load(encoded.text_global), 1, captions, embed)
        image_global = ops.reshape(ops.load(encoded.image_global), images, 1, embed)
        overall = self._align(ops.sub(image_global, text_global), self.weights.global_alignment)
        overall = ops.reshape(overall, images, captions, 1, self.config.sim_dim)
        nodes = ops.concat([overall, local], 2)  # (N, C, 1 + L, S)
        return ops.reshape(self._logits(nodes, mask), images, captions)

    def pair_scorer(self, encoded: Encoded[V], image_index: V, caption_index: V) -> V:
        """Logits (pairs,) of the images and captions at the given rows, float32."""
        ops = self.ops
        regions = ops.load(ops.gather(encoded.region_embeddings, image_index))  # (P, R, D)
        words = ops.load(ops.gather(encoded.word_embeddings, caption_index))  # (P, L, D)
        lengths = ops.gather(encoded.lengths, caption_index)
        pairs, longest = ops.size(words, 0), ops.size(words, 1)
        mask = self._note("mask", ops.word_mask(lengths, longest))
        raw = ops.matmul(regions, ops.transpose(words, 0, 2, 1))  # (P, R, L)
        weights = self._word_attention(raw, ops.reshape(mask, pairs, 1, longest))
        weights = self._note("attention", ops.softmax(ops.transpose(weights, 0, 2, 1)))
        if encoded.region_gram is None:
            context = self._l2norm(ops.matmul(weights, regions))
        else:
            gram = ops.gather(encoded.region_gram, image_index)  # (P, R, R)
            context = ops.matmul(self._normalise(weights, gram), regions)
        local = self._align_local(ops.sub(context, words))
        image_global = ops.load(ops.gather(encoded.image_global, image_index))
        text_global = ops.load(ops.gather(encoded.text_global, caption_index))
        overall = self._align(ops.sub(image_global, text_global), self.weights.global_alignment)
        overall = ops.reshape(overall, 1, pairs, 1, self.config.sim_dim)
        local = ops.reshape(local, 1, pairs, longest, self.config.sim_dim)
        nodes = self._note("alignments", ops.concat([overall, local], 2))  # (1, P, 1 + L, S)
        return ops.reshape(self._logits(nodes, mask), -1)

    def _note(self, name: str, value: V) -> V:
        """Tell a subclass of a value on the way to the logits; returns that value."""
        return value

    def _word_attention(self, raw: V, real: V) -> V:
        """Smoothed attention scores, l2-normalised over the real words (the last axis)."""
        ops = self.ops
        attention = ops.mul(ops.leaky_relu(raw, LEAKY_SLOPE), real)
        norm = self._norm(ops.inner(attention, attention))
        smoothed = ops.div(self._scalar("attention_smoothing", ATTENTION_SMOOTHING), norm)
        return ops.mul(attention, ops.unsqueeze(smoothed))

    def _local_alignments(self, weights: V, regions: list[V], words: list[V]) -> V:
        """Alignments (N, C*L, S) of every word with its context, block by block of `embed`.

        In float32 the weights (N, C*L, R) are already scaled so that contexts have norm 1.
        """
        ops, linear = self.ops, self.weights.local_alignment
        if ops.halves:
            context = self._l2norm(ops.matmul(weights, regions[0]))
            return self._align_local(ops.sub(context, words[0]))
        total = ops.constant(f"{linear.name}.bias", linear.bias)
        for index, (block, word_block) in enumerate(zip(regions, words, strict=True)):
            difference = ops.sub(ops.matmul(weights, block), word_block)
            rows = slice(index * EMBED_BLOCK, (index + 1) * EMBED_BLOCK)
            name = f"{linear.name}.weight" + (f".{index}" if len(words) > 1 else "")
            weight = ops.constant(name, linear.weight[rows])
            total = ops.linear(ops.mul(difference, difference), weight, total)
        return self._l2norm(total)

    def _gram(self, regions: list[V]) -> V:
        """G = v vT (N, R, R) of an image's regions, block by block of `embed`."""
        ops = self.ops
        return self._sum(ops.matmul(block, ops.transpose(block, 0, 2, 1)) for block in regions)

    def _normalise(self, weights: V, gram: V) -> V:
        """Weights (N, C*L, R) divided by the norm of their contexts, the square root of aT G a.

        This is less work than two passes over the contexts, and no block of a context needs the
        others. In half precision the scale would exceed float16's range for an all-zero image.
        """
        ops = self.ops
        squared = ops.relu(ops.inner(ops.matmul(weights, gram), weights))
        return ops.div(weights, ops.unsqueeze(self._norm(squared)))

    def _blocks(self, x: V) -> list[V]:
        """The last axis, `embed`, in blocks of EMBED_BLOCK; a single block in half precision."""
        if self.ops.halves or self.config.embed <= EMBED_BLOCK:
            return [x]
        return self.ops.split(x, EMBED_BLOCK, self.config.embed)

    def _sum(self, values: Iterable[V]) -> V:
        return functools.reduce(self.ops.add, values)

    def _align(self, difference: V, linear: Linear, *, bound: float | None = None) -> V:
        """l2norm(W (x - y)^2 + b) (paper: "Similarity Representation Learning")."""
        square = self.ops.mul(difference, difference)
        return self._l2norm(self._linear(square, linear, bound=bound))

    def _align_local(self, difference: V) -> V:
        """Alignments of contexts with their words: most of the scorer's arithmetic, and the only
        product that may be in FP8."""
        return self._align(difference, self.weights.local_alignment, bound=LARGEST_SQUARE)

    def _logits(self, nodes: V, mask: V) -> V:
        """Logits (N, C, 1, 1) from alignments (N, C, 1 + L, S) and the word mask (C, L)."""
        if self.weights.filtration is not None:
            vector = self._filtration(nodes, mask, self.weights.filtration)
        else:
            vector = self._reasoning(nodes, mask)
        return self._linear(vector, self.weights.similarity, exact=True)

    def _reasoning(self, nodes: V, mask: V) -> V:
        """SGR's node 0 (N, C, 1, S) after every step (paper: "Similarity Graph Reasoning")."""
        penalty = self._padding_penalty(self._node_mask(mask))
        last = len(self.weights.reasoning) - 1
        for index, step in enumerate(self.weights.reasoning):
            queries = self.ops.first(nodes, 2) if index == last else nodes
            nodes = self._reasoning_step(step, queries, nodes, penalty)
        return nodes if self.weights.reasoning else self.ops.first(nodes, 2)

    def _reasoning_step(self, step: ReasoningStep, queries: V, nodes: V, penalty: V) -> V:
        ops = self.ops
        projected = self._linear(queries, step.key)
        edges = ops.add(ops.matmul(projected, ops.transpose(nodes, 0, 1, 3, 2)), penalty)
        message = ops.matmul(self._note("edges", ops.softmax(edges)), nodes)
        return ops.relu(self._linear(message, step.update))

    def _filtration(self, nodes: V, mask: V, attention: Linear) -> V:
        """SAF's vector (N, C, 1, S) (paper: "Similarity Attention Filtration")."""
        ops = self.ops
        weight = ops.constant(f"{attention.name}.weight", attention.weight)
        gates = ops.transpose(ops.matmul(nodes, weight, exact=True), 0, 1, 3, 2)
        bias = ops.constant(f"{attention.name}.bias", attention.bias)
        gates = ops.sigmoid(ops.add(gates, bias))  # (N, C, 1, 1 + L)
        mask = self._node_mask(mask)
        gates = self._note("gates", ops.mul(gates, ops.reshape(mask, ops.size(mask, 0), 1, -1)))
        total = ops.add(ops.sum(gates, -1), self._scalar("epsilon", EPSILON))
        kept = self._note("kept", ops.div(gates, total))
        return self._l2norm(self._note("kept_sum", ops.matmul(kept, nodes, exact=True)))

    def _node_mask(self, mask: V) -> V:
        """(C, L) -> (C, 1 + L): the global alignment is always real, like the first word."""
        return self.ops.concat([self.ops.first(mask, 1), mask], 1)

    def _padding_penalty(self, mask: V) -> V:
        """(C, n) of 1 and 0 -> (C, 1, n) of 0 and a score that gets no weight in a softmax."""
        ops = self.ops
        penalty = ops.mul(ops.sub(mask, self._scalar("one", 1.0)), self._scalar("masked", MASKED))
        return ops.reshape(penalty, ops.size(mask, 0), 1, -1)

    def _linear(
        self, x: V, linear: Linear, *, exact: bool = False, bound: float | None = None
    ) -> V:
        ops = self.ops
        weight = ops.constant(f"{linear.name}.weight", linear.weight)
        bias = ops.constant(f"{linear.name}.bias", linear.bias)
        if exact:
            return ops.add(ops.matmul(x, weight, exact=True), bias)
        return ops.linear(x, weight, bias, bound=bound)

    def _l2norm(self, x: V) -> V:
        return self.ops.div(x, self.ops.unsqueeze(self._norm(self.ops.inner(x, x))))

    def _norm(self, squared: V) -> V:
        """Square root plus epsilon.

        `squared` has no last axis of size 1, which ONNX Runtime is slow to combine with a scalar.
        """
        return self.ops.add(self.ops.sqrt(squared), self._scalar("epsilon", EPSILON))

    def _scalar(self, name: str, value: float) -> V:
        return self.ops.constant(name, np.array(value, dtype=np.float32))
