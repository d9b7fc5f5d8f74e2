"""What an explanation holds: every member's weights, and the effects of leaving parts out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import Module
from sgraf_deploy.errors import InputError
from sgraf_deploy.explanation.tokens import Token

Floats = NDArray[np.float32]

UNIFORM = 0.99
"""A distribution of at least this normalised entropy is called uniform: it picks out nothing."""


def normalised_entropy(weights: NDArray[Any]) -> NDArray[np.float64]:
    """The entropy over the last axis as a share of the largest there is: 1 for equal weights.

    1 also for a single weight, which has no choice. NaN where all weights are 0.
    """
    weights = np.asarray(weights, dtype=np.float64)
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = weights / total
        logs = np.where(shares > 0, np.log(np.where(shares > 0, shares, 1.0)), 0.0)
    if weights.shape[-1] < 2:
        return np.where(total[..., 0] > 0, 1.0, np.nan)
    entropy = -(shares * logs).sum(axis=-1) / np.log(weights.shape[-1])
    result: NDArray[np.float64] = entropy
    return result


def is_uniform(entropy: float) -> bool:
    """Whether a distribution of this normalised entropy is an average, and nothing more."""
    return entropy >= UNIFORM


@dataclass(frozen=True, eq=False)
class MemberExplanation:
    """The weights of one member, float32; `nodes` are the whole and, after it, the words.

    `attention` (words, regions): how much each word attends to each region; rows sum to 1.
    `alignments` (nodes, sim_dim): what the member compares, of norm 1.
    Of SAF, None for SGR: `gates` (nodes,) within 0 … 1; `kept` (nodes,), the gates divided by their
    sum; `contribution` (nodes,), whose sum and `bias` are the logit.
    Of SGR, None for SAF: `edges` (steps, nodes, nodes), rows sum to 1; of the last step only row 0,
    the whole's, is computed, and the others are 0.
    """

    module: Module
    logit: float
    attention: Floats = field(repr=False)
    alignments: Floats = field(repr=False)
    gates: Floats | None = field(default=None, repr=False)
    kept: Floats | None = field(default=None, repr=False)
    contribution: Floats | None = field(default=None, repr=False)
    edges: Floats | None = field(default=None, repr=False)

    @property
    def bias(self) -> float | None:
        """What SAF's logit has beyond the contributions, the same for all pairs; None for SGR."""
        if self.contribution is None:
            return None
        return self.logit - float(self.contribution.sum(dtype=np.float64))

    @property
    def attention_entropy(self) -> NDArray[np.float64]:
        """The normalised entropy of every word's attention, (words,)."""
        return normalised_entropy(self.attention)

    @property
    def kept_entropy(self) -> float | None:
        """The normalised entropy of SAF's kept weights; None for SGR."""
        return None if self.kept is None else float(normalised_entropy(self.kept))

    @property
    def edges_entropy(self) -> NDArray[np.float64] | None:
        """The normalised entropy of SGR's rows, (steps, nodes); NaN where none was computed."""
        return None if self.edges is None else normalised_entropy(self.edges)

    def to_json(self) -> dict[str, Any]:
        """Everything but the alignments, whose values mean nothing one by one."""
        arrays = ("attention", "gates", "kept", "contribution", "edges")
        entropies = ("attention_entropy", "kept_entropy", "edges_entropy")
        return {
            "module": self.module,
            "logit": self.logit,
            "bias": self.bias,
            **{name: plain(getattr(self, name)) for name in (*arrays, *entropies)},
        }


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why one image and one caption have their score; `explain` makes it.

    `tokens` are what the model reads, one for each row of a member's `attention`. `logit` and
    `similarity` are the ensemble's, `members` every member's weights. `without_word` (words,)
    float32 is the change of `logit` when a word is left out, NaN for `<start>` and `<end>`, without
    which there is no caption, and for an only token. Weights are weights; what a word or a region
    does to the score is said by these changes alone: below 0, it spoke for the pair.

    Example:
        >>> explanation = sgraf_deploy.explain(scorer, regions[0], "two dogs play")
        >>> " ".join(token.text for token in explanation.tokens)
        '<start> two dogs play <end>'
        >>> saf = explanation.members["saf"]
        >>> saf.attention.shape, saf.kept.shape, round(float(saf.kept.sum()), 4)
        ((5, 7), (6,), 1.0)
        >>> explanation.members["sgr"].edges.shape
        (3, 6, 6)
    """

    caption: str | None
    tokens: tuple[Token, ...] = field(repr=False)
    members: Mapping[str, MemberExplanation]
    logit: float
    similarity: float
    without_word: Floats = field(repr=False)
    scored_by: str
    """The engine that scored, and its arithmetic."""
    weights_by: str
    """The engine that computed the weights, always in float32."""
    region_changes: Floats | None = field(default=None, repr=False)
    """`without_region`, or None where the regions were not given."""

    @property
    def without_region(self) -> Floats:
        """The change of `logit` when a region becomes the image's mean region, (regions,) float32.

        Raises InputError where the image was given encoded.
        """
        if self.region_changes is None:
            raise InputError(
                "the effect of leaving out a region",
                expected="an image given as regions (regions, img_dim)",
                got="encoded images",
                hint="explain(scorer, regions[row], caption): regions can be replaced, what was "
                "encoded from them cannot",
            )
        return self.region_changes

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes: the whole and, after it, the tokens."""
        return ("(whole)", *(token.text for token in self.tokens))

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; what is NaN becomes null."""
        return {
            "caption": self.caption,
            "tokens": [asdict(token) for token in self.tokens],
            "logit": self.logit,
            "similarity": self.similarity,
            "without_word": plain(self.without_word),
            "without_region": plain(self.region_changes),
            "scored_by": self.scored_by,
            "weights_by": self.weights_by,
            "members": {name: member.to_json() for name, member in self.members.items()},
        }


def plain(value: Any) -> Any:
    """Arrays as lists, NaN as None; for JSON."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
