"""An explanation as lines for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sgraf_deploy.cli.terminal import table

if TYPE_CHECKING:
    from sgraf_deploy.explanation.page import Shown
    from sgraf_deploy.explanation.values import Explanation, MemberExplanation

BAR = 10
"""Characters of the largest weight's bar."""

LOOKED_AT, CHANGED = 2, 6
"""How many regions are named for a word, and how many that change the logit most."""


def report_lines(shown: Sequence[Shown]) -> Iterator[str]:
    """What `sgraf-deploy explain` prints of one image, or of two with the same caption."""
    from sgraf_deploy.explanation.page import score_text, verdict

    first = shown[0].explanation
    unknown = [token.text for token in first.tokens if not token.known]
    yield f"caption: {first.caption}"
    if unknown:
        yield f"not in the vocabulary, read as <unk>: {', '.join(unknown)}"
    if len(shown) > 1:
        yield f"{verdict(shown)}"
        yield f"side by side, A is {shown[0].name} and B {shown[1].name}:"
        yield ""
        yield from _side_by_side(shown)
    for one in shown:
        yield ""
        yield score_text(one)
        yield from _words(one)
        yield from _regions(one)
        yield from _edges(one.explanation)
    yield ""
    yield (
        "without it: the change of the logit when a word is left out; below 0, it spoke for the "
        "pair. Weights are weights: they say what a model reads, not what it does to the score."
    )


def _side_by_side(shown: Sequence[Shown]) -> list[str]:
    """A row for every node, with each image's change and each SAF member's summand."""
    headers, columns = ["word"], [[*shown[0].explanation.nodes]]
    for letter, one in zip("AB", shown, strict=True):
        headers.append(f"without it, {letter}")
        columns.append(["", *map(_change, one.explanation.without_word.tolist())])
    for name, member in shown[0].explanation.members.items():
        if member.contribution is None:
            continue
        for letter, one in zip("AB", shown, strict=True):
            headers.append(f"{name} summand, {letter}")
            summands = one.explanation.members[name].contribution
            columns.append([] if summands is None else [f"{each:+.3f}" for each in summands])
    return table(list(zip(*columns, strict=True)), headers, right=headers[1:])


def _words(one: Shown) -> list[str]:
    """A row for every node: effect, SAF's weights, and what every member looked at."""
    found = one.explanation
    headers, columns = ["word", "without it"], [[*found.nodes]]
    columns.append(["", *map(_change, found.without_word.tolist())])
    for name, member in found.members.items():
        if member.kept is not None and member.contribution is not None:
            headers += [f"{name} weight", f"{name} summand"]
            columns.append(_bars(member))
            columns.append([f"{each:+.3f}" for each in member.contribution])
    for name, member in found.members.items():
        headers.append(f"{name} attention")
        columns.append(["", *_looked_at(member, one.layout.names)])
    right = [header for header in headers if header.endswith(("without it", "summand"))]
    return table(list(zip(*columns, strict=True)), headers, right=right)


def _bars(member: MemberExplanation) -> list[str]:
    """SAF's kept weights, with bars unless they are uniform."""
    from sgraf_deploy.explanation.values import is_uniform

    assert member.kept is not None  # noqa: S101  # the caller has looked
    if is_uniform(member.kept_entropy or 0.0):
        texts = [f"{each:.3f}" for each in member.kept]
        return [f"{texts[0]} uniform: an average", *texts[1:]]
    largest = float(member.kept.max())
    return [f"{each:.3f} {'█' * round(BAR * each / largest)}" for each in member.kept.tolist()]


def _looked_at(member: MemberExplanation, names: Sequence[str]) -> Iterator[str]:
    from sgraf_deploy.explanation.values import is_uniform

    for row, entropy in zip(member.attention, member.attention_entropy, strict=True):
        if is_uniform(float(entropy)):
            yield "uniform: an average"
            continue
        best = (-row).argsort(kind="stable")[:LOOKED_AT]
        yield " ".join(f"{names[each]} {row[each]:.2f}" for each in best)


def _regions(one: Shown) -> Iterator[str]:
    changes = one.explanation.without_region
    best = (-abs(changes)).argsort(kind="stable")[:CHANGED]
    told = ", ".join(f"{one.layout.names[each]} {changes[each]:+.3f}" for each in best)
    yield f"replaced by the image's mean region, the largest changes: {told}"


def _edges(explanation: Explanation) -> Iterator[str]:
    """A line for every step of SGR: what the whole read most, or that it was an average."""
    from sgraf_deploy.explanation.edges import uniform_step

    for name, member in explanation.members.items():
        if member.edges is None or member.edges_entropy is None:
            continue
        for step, (edges, entropy) in enumerate(
            zip(member.edges, member.edges_entropy, strict=True)
        ):
            told = f"{name} edges, step {step + 1}"
            if uniform_step(entropy):
                yield f"{told}: uniform (entropy {entropy[0]:.2f}): an average"
                continue
            best = (-edges[0]).argsort(kind="stable")[:LOOKED_AT]
            read = ", ".join(f"{explanation.nodes[each]} {edges[0][each]:.2f}" for each in best)
            yield f"{told}: the whole reads {read} (entropy {entropy[0]:.2f})"


def _change(change: float) -> str:
    return "" if math.isnan(change) else f"{change:+.3f}"
