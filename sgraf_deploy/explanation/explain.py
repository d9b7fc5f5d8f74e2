"""Explains one score; see `explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.ensemble import Logits, ensemble_logits, similarities
from sgraf_deploy.errors import InputError
from sgraf_deploy.explanation.internals import compute_internals
from sgraf_deploy.explanation.tokens import Caption, Token, read_caption
from sgraf_deploy.explanation.values import Explanation, MemberExplanation
from sgraf_deploy.runtime.encode import check_regions_layout
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.scorer import Scorer


def explain(scorer: Scorer, image: NDArray[Any] | EncodedImages, caption: Caption) -> Explanation:
    """Explain the score of an image and a caption: the models' weights, and what parts change.

    Weights come from every member's graph `explain`, effects from two ordinary calls of the scorer:
    one for the caption with each word left out, one for the image with each region replaced by its
    mean region. These are at most 2 + words + regions scored pairs.

    Args:
        scorer: A loaded scorer, on any engine. Weights are float32: engines `native`, `ort`,
            `torch` and `torch-reference` compute them themselves, for others `ort` does on the CPU.
        image: An image's regions (regions, img_dim) float32 or float16, such as a row of a split,
            or one encoded image, which has no `without_region`.
        caption: A string, or token ids (words,) with `<start>` and `<end>`.

    Raises:
        InputError: more than one image, or an encoded caption.
        DataError: regions or a caption that do not fit the bundle.
        BundleError: a string without a vocabulary, or a bundle that has neither the graph `explain`
            nor its original weights.
        UnavailableError: neither ONNX Runtime nor PyTorch, whichever is needed, is installed.

    Example:
        >>> explanation = sgraf_deploy.explain(scorer, regions[0], "two dogs play in the snow")
        >>> explanation.tokens[2].text, explanation.tokens[2].span
        ('dogs', (4, 8))
        >>> explanation.without_word.shape, explanation.without_region.shape
        ((8,), (7,))
    """
    tokens, ids = read_caption(scorer.bundle, caption, scorer.max_words)
    removable = _removable(tokens)
    images = _images(scorer, image)
    captions = scorer.encode_captions([ids, *(np.delete(ids, place) for place in removable)])
    scored = scorer.logits_pairs(images[:1], captions, [0] * len(captions), range(len(captions)))
    logits = ensemble_logits(scored)
    words = np.full(len(ids), np.nan, dtype=np.float32)
    words[removable] = logits[1:] - logits[0]
    regions = None
    if not isinstance(image, EncodedImages):
        changed = range(1, len(images))
        found = scorer.logits_pairs(images, captions[:1], changed, [0] * len(changed))
        regions = ensemble_logits(found) - logits[0]
    members, weights_by = _members(scorer, scored, images[:1], captions[:1])
    return Explanation(
        caption if isinstance(caption, str) else None,
        tokens,
        members,
        float(logits[0]),
        float(similarities(logits[:1])[0]),
        words,
        scored_by=f"{scorer.engine_name}, {scorer.executed} on {scorer.device}",
        weights_by=weights_by,
        region_changes=regions,
    )


def _members(
    scorer: Scorer, scored: Mapping[str, Logits], image: EncodedImages, caption: EncodedCaptions
) -> tuple[dict[str, MemberExplanation], str]:
    """Every member's weights beside its logit, the first of `scored`; and what computed them."""
    internals, engine = compute_internals(scorer.bundle, image, caption)
    members = {
        name: MemberExplanation(
            scorer.bundle.member(name).config.module,
            float(scored[name][0]),
            **{key: value for key, value in found.items() if key != "logits"},
        )
        for name, found in internals.items()
    }
    return members, f"{engine}, fp32"


def _removable(tokens: tuple[Token, ...]) -> list[int]:
    """The places of the tokens that may be left out: something has to remain."""
    return [place for place, token in enumerate(tokens) if not token.marker and len(tokens) > 1]


def _images(scorer: Scorer, image: NDArray[Any] | EncodedImages) -> EncodedImages:
    """The image and, if it is given as regions, the same with each region become their mean."""
    if isinstance(image, EncodedImages):
        if len(image) != 1:
            raise InputError("the image to explain", expected="one", got=f"{len(image)} images")
        return image
    config = next(iter(scorer.bundle.manifest.members.values())).config
    given = np.asarray(image)
    if given.ndim != 2:
        raise InputError(
            "the image to explain",
            expected=f"one image's regions ({config.regions}, {config.img_dim})",
            got=f"shape {given.shape}",
            hint="explain one image at a time: regions[row]",
        )
    checked = check_regions_layout(given[None], config)[0]
    changed = np.repeat(checked[None], len(checked) + 1, axis=0)
    with np.errstate(all="ignore"):  # Values that are not finite are refused when encoded.
        mean = checked.mean(axis=0, dtype=np.float64)
        for region in range(len(checked)):
            changed[region + 1, region] = mean
    return scorer.encode_images(changed)
