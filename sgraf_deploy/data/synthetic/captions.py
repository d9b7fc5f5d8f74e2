"""Captions of synthetic scenes: templates with paraphrases, true and never complete."""

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
"""Captions per scene."""

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
"""Templates over two objects: what a is to b, or on which side of a stands b."""

TRIPLES = (
    "{a} , {b} and {c}",
    "{a} {relation} {b} and also {c}",
    "there are {a} , {b} and {c}",
    "{c} beside {a} that is {relation} {b}",
)
"""Templates over three; of the third no place is told."""

_TELLS_SIZE, _TELLS_MATERIAL, _TELLS_COLOUR = 30, 20, 70
"""Percent of the noun phrases."""


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
        "relation": _one_of(RELATIONS[relation], rng),
        "side": _one_of(SIDES[relation], rng),
        "inverse_side": _one_of(SIDES[INVERSE[relation]], rng),
    }
    return template.format(**words).replace(" ,", ",")


def _noun_phrase(one: SceneObject, rng: np.random.Generator) -> str:
    """`a small red ball`: some of the attributes, all of them true."""
    words = []
    tells = rng.integers(0, 100, 3).tolist()
    if tells[0] < _TELLS_SIZE:
        words.append(_one_of(ADJECTIVES[SIZES[one.size]], rng))
    if tells[1] < _TELLS_COLOUR:
        words.append(COLOURS[one.colour])
    if tells[2] < _TELLS_MATERIAL:
        words.append(_one_of(ADJECTIVES[MATERIALS[one.material]], rng))
    words.append(_one_of(NOUNS[SHAPES[one.shape]], rng))
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join((article, *words))


def _one_of(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(0, len(choices)))]
