"""SGR's edges on an explanation's page: a matrix for each step that picks anything out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.explanation.drawings import STRONGEST
from sgraf_deploy.explanation.values import UNIFORM, Explanation
from sgraf_deploy.html import escape
from sgraf_deploy.svg import inline, rect, text

CELL, NAMES = 14.0, 70.0
"""A weight's square, and the room for the names beside and above the matrix, in pixels."""

CUT = 10
"""Characters of a name."""


def edges_section(named: Sequence[tuple[str, Explanation]]) -> Iterator[str]:
    """The section's HTML; nothing where no member has edges."""
    figures = [
        figure
        for name, explanation in named
        for member, found in explanation.members.items()
        if found.edges is not None and found.edges_entropy is not None
        for figure in _steps(f"{name}, {member}", found.edges, found.edges_entropy, explanation)
    ]
    if figures:
        yield "<h2>Edges of SGR</h2>"
        yield (
            '<p class="soft">A row says how much each node reads of the others in that step. Of '
            "the last step only the whole's row is computed. After the first step a node is no "
            "longer its word alone.</p>"
        )
        yield f'<div class="side">{"".join(figures)}</div>'


def uniform_step(entropy: NDArray[np.float64]) -> bool:
    """Whether every row of a step, (nodes,) entropies, is uniform."""
    return bool(np.nanmin(entropy) >= UNIFORM)


def _steps(
    name: str,
    edges: NDArray[np.float32],
    entropy: NDArray[np.float64],
    explanation: Explanation,
) -> Iterator[str]:
    for step, (weights, row) in enumerate(zip(edges, entropy, strict=True)):
        told = f"{escape(name)}, step {step + 1}: normalised entropy {np.nanmean(row):.3f}"
        if uniform_step(row):
            yield f"<figure><figcaption>{told}, uniform: an average</figcaption></figure>"
            continue
        rows = 1 if step == len(edges) - 1 else len(weights)
        drawn = _matrix(weights[:rows], explanation.nodes)
        yield f"<figure>{drawn}<figcaption>{told}</figcaption></figure>"


def _matrix(weights: NDArray[np.float32], nodes: Sequence[str]) -> str:
    """A square for each weight, the largest strongest; names to the left and above."""
    largest = float(weights.max())
    names = [node if len(node) <= CUT else f"{node[:CUT]}…" for node in nodes]
    drawn = []
    for row in range(len(weights)):
        y = NAMES + CELL * row
        drawn.append(text(NAMES - 4, y + 11, names[row], "right small"))
        for column, weight in enumerate(weights[row].tolist()):
            x = NAMES + CELL * column
            drawn.append(rect(x, y, CELL - 1, CELL - 1, "heat", STRONGEST * weight / largest))
    for column, each in enumerate(names):
        x = NAMES + CELL * column + 4
        drawn.append(
            f'<g transform="rotate(-90 {x:.0f} {NAMES:.0f})">'
            f"{text(x + 4, NAMES + 6, each, 'left small')}</g>"
        )
    size = NAMES + CELL * weights.shape[1], NAMES + CELL * len(weights)
    return inline(*size, "edges", drawn)
