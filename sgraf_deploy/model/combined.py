"""The ensemble over any `Ops`: one logit and one similarity from those of its members."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from sgraf_deploy.model.ops import Ops, V


def combine(ops: Ops[V], members: Sequence[V]) -> tuple[V, V]:
    """Logits and similarities, float32, of an ensemble from its members' logits of one shape.

    A similarity is the mean of the members' similarities, and the logit that of this mean, without
    saturation: logsumexp of log sigmoid(x) over the members, minus that of log sigmoid(-x). One
    member's logits are its own.
    """
    if len(members) == 1:
        return members[0], ops.sigmoid(members[0])
    share = ops.constant("one_over_members", np.array(1 / len(members), dtype=np.float32))
    similarities = ops.mul(functools.reduce(ops.add, map(ops.sigmoid, members)), share)
    yes, no = [], []
    for logits in members:
        minus = _minus(ops, logits)
        near = _log_sigmoid_of_size(ops, logits, minus)
        yes.append(ops.sub(near, ops.relu(minus)))  # log sigmoid(x)
        no.append(ops.sub(near, ops.relu(logits)))  # log sigmoid(-x)
    return ops.sub(_logsumexp(ops, yes), _logsumexp(ops, no)), similarities


def _logsumexp(ops: Ops[V], values: Sequence[V]) -> V:
    """log Σ exp(xᵢ), value by value: nothing overflows."""

    def add(a: V, b: V) -> V:
        apart = ops.sub(a, b)
        rest = _log_sigmoid_of_size(ops, apart, _minus(ops, apart))
        return ops.sub(ops.maximum(a, b), rest)

    return functools.reduce(add, values)


def _log_sigmoid_of_size(ops: Ops[V], x: V, minus: V) -> V:
    """log sigmoid(|x|), which is within -log 2 … 0, from x and -x.

    Runtimes compute a sigmoid within 1/2 … 1 to the last bits, but not always one near 0.
    """
    return ops.log(ops.sigmoid(ops.maximum(x, minus)))


def _minus(ops: Ops[V], x: V) -> V:
    return ops.mul(x, ops.constant("minus_one", np.array(-1.0, dtype=np.float32)))
