"""The folded model's graph `explain`: the pair scorer, with the values on the way to its logits.

Whatever stands for padding is exactly 0 in every output.
"""

from __future__ import annotations

from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import FoldedWeights
from sgraf_deploy.model.ops import Ops, V


class ExplainedModel(FoldedModel[V]):
    """A member's model that keeps what `explain` gives out; make one for every run."""

    def __init__(self, weights: FoldedWeights, ops: Ops[V]) -> None:
        super().__init__(weights, ops)
        self._noted: dict[str, list[V]] = {}

    def _note(self, name: str, value: V) -> V:
        self._noted.setdefault(name, []).append(value)
        return value

    def explain(self, encoded: Encoded[V], image_index: V, caption_index: V) -> tuple[V, ...]:
        """The outputs of `config.explain_signature`, in order, of the pairs at these rows.

        `encoded` has no `region_gram`: attention is what the softmax gives, not yet divided by the
        norm of the contexts.
        """
        ops = self.ops
        logits = self.pair_scorer(encoded, image_index, caption_index)
        (mask,), (attention,), (nodes,) = map(
            self._noted.__getitem__, ("mask", "attention", "alignments")
        )
        real = self._node_mask(mask)  # (P, 1 + L)
        attention = ops.mul(attention, ops.unsqueeze(mask))
        alignments = ops.reshape(nodes, ops.size(mask, 0), -1, self.config.sim_dim)
        alignments = ops.mul(alignments, ops.unsqueeze(real))
        if self.config.module == "SAF":
            return logits, attention, alignments, *self._filtered(nodes, mask)
        return logits, attention, alignments, *self._edges(mask, real)

    def _filtered(self, nodes: V, mask: V) -> tuple[V, ...]:
        """SAF's gates, their shares, and each node's summand of the logit, all (P, 1 + L)."""
        ops = self.ops
        (gates,), (kept,), (total,) = map(self._noted.__getitem__, ("gates", "kept", "kept_sum"))
        similarity = self.weights.similarity
        weight = ops.constant(f"{similarity.name}.weight", similarity.weight)
        pairs = ops.size(mask, 0)
        products = ops.reshape(ops.matmul(nodes, weight, exact=True), pairs, -1)
        norm = ops.reshape(self._norm(ops.inner(total, total)), pairs, 1)
        gates, kept = ops.reshape(gates, pairs, -1), ops.reshape(kept, pairs, -1)
        return gates, kept, ops.div(ops.mul(kept, products), norm)

    def _edges(self, mask: V, real: V) -> tuple[V, ...]:
        """SGR's edges (P, steps, 1 + L, 1 + L); only row 0 of the last step is computed."""
        if not self.weights.reasoning:
            return ()
        ops = self.ops
        none = ops.mul(mask, self._scalar("zero", 0.0))
        only = ops.concat([ops.first(real, 1), none], 1)  # (P, 1 + L): 1 for node 0 alone
        *before, last = self._noted["edges"]  # (1, P, 1 + L, 1 + L), and (1, P, 1, 1 + L)
        steps = [ops.mul(edges, ops.unsqueeze(real)) for edges in before]
        steps.append(ops.mul(last, ops.unsqueeze(only)))
        return (ops.transpose(ops.concat(steps, 0), 1, 0, 2, 3),)
