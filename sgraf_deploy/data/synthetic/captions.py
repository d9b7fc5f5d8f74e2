"""Captions of synthetic scenes, from templates with paraphrases: true, but never complete."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgraf_deploy.data.synthetic.scenes import (
    COLOURS,
    INVERSE,
    MATERIALS,
    SHAPES,
    SIZES,
    Relation,
    Scene,
    SceneObject,
)

CAPTIONS = 5
"""The number of captions per scene."""

NOUNS = {
    "ball": ("ball", "sphere"),
    "cube": ("cube", "box"),
    "cone": ("cone",),
    "cylinder": ("cylinder", "can"),
    "ring": ("ring", "hoop"),
    "star": ("star",),
    "pyramid": ("pyramid",),
    "cup": ("cup", "mug"),
}
ADJECTIVES = {
    "small": ("small", "little"),
    "large": ("large", "big"),
    "metal": ("metal", "shiny"),
    "wooden": ("wooden",),
    "rubber": ("rubber", "matte"),
}
RELATIONS: dict[Relation, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right side of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "lower than"),
}
SIDES: dict[Relation, tuple[str, ...]] = {
    "left": ("on its left", "to its left"),
    "right": ("on its right", "to its right"),
    "above": ("above it", "over it"),
    "below": ("below it", "under it"),
}

PAIRS = (
    "{a} {relation} {b}",
    "there is {a} {relation} {b}",
    "a picture of {a} {relation} {b}",
    "{a} is {relation} {b}",
    "{relation} {b} stands {a}",
    "{a} with {b} {inverse_side}",
    "{b} and {side} {a}",
    "we see {a} and {b}",
    "{a} can be seen {relation} {b}",
)
"""Templates over two objects: the relation of a to b, or the side of a on which b is."""

TRIPLES = (
    "{a} , {b} and {c}",
    "{a} {relation} {b} and also {c}",
    "there are {a} , {b} and {c}",
    "{c} beside {a} that is {relation} {b}",
)
"""Templates over three objects; they do not say where the third one is."""

_SIZE_PERCENT, _MATERIAL_PERCENT, _COLOUR_PERCENT = 30, 20, 70
"""Percentages of the noun phrases that name an attribute."""


def captions_of(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five captions of a scene, in lower case, each with its own template."""
    triples = TRIPLES if len(scene.objects) > 2 else ()
    templates = rng.permutation(len(PAIRS) + len(triples))[:CAPTIONS]
    return [_caption(scene, (*PAIRS, *triples)[template], rng) for template in templates.tolist()]


def _caption(scene: Scene, template: str, rng: np.random.Generator) -> str:
    chosen = [scene.objects[i] for i in rng.permutation(len(scene.objects)).tolist()]
    a, b = chosen[:2]
    relation = a.relation(b)
    words = {
        "a": _noun_phrase(a, rng),
        "b": _noun_phrase(b, rng),
        "c": _noun_phrase(chosen[2], rng) if len(chosen) > 2 else "",
        "relation": _choice(RELATIONS[relation], rng),
        "side": _choice(SIDES[relation], rng),
        "inverse_side": _choice(SIDES[INVERSE[relation]], rng),
    }
    return template.format(**words).replace(" ,", ",")


def _noun_phrase(item: SceneObject, rng: np.random.Generator) -> str:
    """A phrase such as `a small red ball`, with some of the object's attributes."""
    words = []
    percents = rng.integers(0, 100, 3).tolist()
    if percents[0] < _SIZE_PERCENT:
        words.append(_choice(ADJECTIVES[SIZES[item.size]], rng))
    if percents[1] < _COLOUR_PERCENT:
        words.append(COLOURS[item.colour])
    if percents[2] < _MATERIAL_PERCENT:
        words.append(_choice(ADJECTIVES[MATERIALS[item.material]], rng))
    words.append(_choice(NOUNS[SHAPES[item.shape]], rng))
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join((article, *words))


def _choice(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(0, len(choices)))]
