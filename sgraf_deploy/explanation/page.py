"""An explanation, or two beside each other, as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sgraf_deploy import svg
from sgraf_deploy.explanation.drawings import STYLE, change_bar, changed_regions, heat, weight_bar
from sgraf_deploy.explanation.edges import edges_section
from sgraf_deploy.explanation.picture import Picture
from sgraf_deploy.explanation.regions import RegionLayout
from sgraf_deploy.explanation.values import UNIFORM, Explanation, is_uniform
from sgraf_deploy.html import document, escape

UNIFORM_TEXT = "uniform: an average"

READING = (
    "<strong>Without it</strong> is an effect: the change of the ensemble's logit when the word is "
    "left out of the caption, or when the region is replaced by the image's mean region. Below 0, "
    "it spoke for the pair; above 0, against it. Effects of several parts do not add up.",
    "<strong>Weights</strong> are weights: how much a member reads of a word (SAF) or of a region "
    "(attention). A part with a large weight may hardly move the score, and one with a small "
    "weight may move it much.",
    "<strong>Summands</strong> of a SAF member, and its bias, add up to its logit exactly.",
    "Bars and colours have the same scale for all words and images of the page. Weights of a "
    f"normalised entropy of {UNIFORM} or more pick nothing out: “{UNIFORM_TEXT}”.",
)


@dataclass(frozen=True, eq=False)
class Shown:
    """One image of the page: its name, its explanation, where its regions lie, its picture."""

    name: str
    explanation: Explanation
    layout: RegionLayout
    picture: Picture | None = None


def page(shown: Sequence[Shown], source: str) -> str:
    """The page of one image, or of two explained with the same caption, as HTML text.

    `source` says which bundle and data they are from.
    """
    first = shown[0].explanation
    body = [
        *_pictures(shown),
        f"<h1>{escape(verdict(shown))}</h1>",
        f'<p class="caption">{caption_text(first)}</p>',
        *(f"<p>{escape(score_text(one))}</p>" for one in shown),
        "<h2>Words</h2>",
        f'<div class="wide">{_words_table(shown)}</div>',
        "<h2>Regions</h2>",
        f'<div class="side">{"".join(map(_regions_figure, shown, range(2)))}</div>',
        *edges_section([(one.name, one.explanation) for one in shown]),
        "<h2>How to read this</h2>",
        *(f"<p>{text}</p>" for text in READING),
        f'<p class="soft">{escape(source)}. Scores by engine {escape(first.scored_by)}; weights '
        f"by {escape(first.weights_by)}.</p>",
    ]
    return document(verdict(shown), body, f"{svg.STYLE}\n{STYLE}")


def verdict(shown: Sequence[Shown]) -> str:
    """What the page is about, in one sentence."""
    if len(shown) == 1:
        return f"Image {shown[0].name}: similarity {shown[0].explanation.similarity:.4f}"
    high, low = sorted(shown, key=lambda one: -one.explanation.logit)
    gap = high.explanation.logit - low.explanation.logit
    return f"Image {high.name} stands above {low.name}, by {gap:.3f} of the logit"


def score_text(one: Shown) -> str:
    """An image's similarity and logits, the ensemble's and the members'."""
    found = one.explanation
    members = ", ".join(f"{name} {each.logit:+.3f}" for name, each in found.members.items())
    return f"{one.name}: similarity {found.similarity:.4f}, logit {found.logit:+.3f} ({members})"


def caption_text(explanation: Explanation) -> str:
    """The caption as HTML, its unknown words marked."""
    caption = explanation.caption
    if caption is None:
        return escape(" ".join(token.text for token in explanation.tokens))
    parts, place = [], 0
    for token in explanation.tokens:
        if token.span is not None and not token.known:
            first, last = token.span
            parts += [escape(caption[place:first]), _unknown(caption[first:last])]
            place = last
    return f"“{''.join(parts)}{escape(caption[place:])}”"


def _unknown(word: str) -> str:
    told = "not in the vocabulary: read as &lt;unk&gt;"
    return f'<span class="unknown" title="{told}">{escape(word)}</span>'


def _pictures(shown: Sequence[Shown]) -> Iterator[str]:
    """The photographs, once each, for all drawings that lie on them."""
    symbols = [
        f'<symbol id="picture-{index}" viewBox="0 0 {one.picture.width} {one.picture.height}">'
        f'<image href="{one.picture.uri}" width="{one.picture.width}" '
        f'height="{one.picture.height}"/></symbol>'
        for index, one in enumerate(shown)
        if one.picture is not None
    ]
    if symbols:
        yield f'<svg width="0" height="0" class="hidden">{"".join(symbols)}</svg>'


def _words_table(shown: Sequence[Shown]) -> str:
    """A row for the whole and for each token; columns for each image, and in it each member."""
    names = [f"<th>{escape(title)}</th>" for one in shown for title in _titles(one.explanation)]
    head = f"<tr><th>word</th>{''.join(names)}</tr>"
    if len(shown) > 1:
        spans = [
            f'<th colspan="{len(_titles(one.explanation))}">{escape(one.name)}</th>'
            for one in shown
        ]
        head = f"<tr><th></th>{''.join(spans)}</tr>{head}"
    scales, rows = Scales.of([one.explanation for one in shown]), []
    for node, text in enumerate(shown[0].explanation.nodes):
        known = node == 0 or shown[0].explanation.tokens[node - 1].known
        label = escape(text) if known else _unknown(text)
        cells = [
            cell
            for index, one in enumerate(shown)
            for cell in _cells(one.explanation, node, scales, (one.layout, _use(one, index)))
        ]
        rows.append(f"<tr><td>{label}</td>{''.join(cells)}</tr>")
    return f"<table>{head}{''.join(rows)}</table>"


def _titles(explanation: Explanation) -> list[str]:
    titles = ["without it"]
    for name, member in explanation.members.items():
        if member.kept is not None:
            titles += [f"{name} weight", f"{name} summand"]
    return [*titles, *(f"{name} attention" for name in explanation.members)]


@dataclass(frozen=True)
class Scales:
    """The largest values of all images that are shown, so that their drawings can be compared."""

    change: float
    kept: float
    attention: float

    @classmethod
    def of(cls, explanations: Sequence[Explanation]) -> Scales:
        """The scales of explanations that stand side by side."""
        members = [member for each in explanations for member in each.members.values()]
        changes = np.concatenate([each.without_word for each in explanations])
        kept = [float(member.kept.max()) for member in members if member.kept is not None]
        attention = max(float(member.attention.max()) for member in members)
        return cls(
            float(np.nanmax(np.abs(changes), initial=0.0)), max(kept, default=0.0), attention
        )


def _cells(
    found: Explanation, node: int, scales: Scales, place: tuple[RegionLayout, str | None]
) -> Iterator[str]:
    """The cells of one node in one image's columns, as `_titles` names them."""
    change = np.nan if node == 0 else float(found.without_word[node - 1])
    yield f"<td>{change_bar(change, scales.change)}</td>"
    for member in found.members.values():
        if member.kept is None or member.contribution is None:
            continue
        kept, summand = float(member.kept[node]), float(member.contribution[node])
        flat = is_uniform(member.kept_entropy or 0.0)
        bar = f"{kept:.3f}" if flat else weight_bar(kept, scales.kept)
        flat_text = f' <span class="soft">{UNIFORM_TEXT}</span>' if flat and node == 0 else ""
        yield f"<td>{bar}{flat_text}</td>"
        yield f'<td class="number">{summand:+.3f}</td>'
    for member in found.members.values():
        if node == 0:
            yield "<td></td>"
        elif is_uniform(float(member.attention_entropy[node - 1])):
            yield f'<td class="soft">{UNIFORM_TEXT}</td>'
        else:
            row = member.attention[node - 1]
            yield f"<td>{heat(row, scales.attention, *place)}</td>"


def _use(one: Shown, index: int) -> str | None:
    return None if one.picture is None else f"picture-{index}"


def _regions_figure(one: Shown, index: int) -> str:
    """What replacing each region by the image's mean region changes."""
    if one.explanation.region_changes is None:
        return "<p>The image was given encoded: its regions cannot be replaced.</p>"
    changes = one.explanation.without_region
    return changed_regions(one.name, changes, one.layout, _use(one, index))
