"""`sgraf-deploy rerank`: ranks a split's images or captions for one query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    check_regions_fit,
    count,
    data_options,
    describe_scorer,
    dimensions,
    encoded_texts,
    load_scorer,
    scorer_options,
    show_finding,
)
from sgraf_deploy.cli.terminal import echo, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.progress import Stage
    from sgraf_deploy.runtime.rerank import RerankResult
    from sgraf_deploy.runtime.scorer import Scorer


@click.command(short_help="Rank a split's images for a caption, or captions for an image.")
@BUNDLE
@data_options
@click.option("--caption", metavar="TEXT", help="Caption to rank the split's images for.")
@click.option(
    "--image",
    type=int,
    metavar="ROW",
    help="Row of the image, counted from 0, to rank the split's captions for.",
)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="K",
    help="Number of best candidates to show.",
)
@scorer_options
def rerank(
    *,
    bundle: Path | str,
    data: Path,
    split: str,
    limit_images: int | None,
    captions_per_image: int,
    caption: str | None,
    image: int | None,
    top_k: int,
    **scorer_arguments: Any,
) -> None:
    """Rank a split's images for one caption, or its captions for one image.

    Exactly one of --caption and --image must be given.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.precomp import open_images, open_precomp
    from sgraf_deploy.errors import InputError

    if caption is None and image is None:
        raise InputError("query", expected="--caption TEXT or --image ROW", got="neither")
    if caption is not None and image is not None:
        raise InputError(
            "query", expected="--caption TEXT or --image ROW", got="--caption and --image"
        )
    opened = Bundle.open(bundle)
    chosen = (open_precomp if caption is None else open_images)(
        data,
        split,
        captions_per_image=captions_per_image,
        model=dimensions(opened),
        limit_images=limit_images,
    )
    if image is not None and not 0 <= image < chosen.images:
        raise InputError("--image", expected=f"a row from 0 to {chosen.images - 1}", got=image)
    with load_scorer(opened, **scorer_arguments) as scorer, progress_bars() as bars:
        echo(describe_scorer(scorer))
        for finding in chosen.findings:
            show_finding(finding)
        if caption is not None:
            lines = _images_for(scorer, chosen, caption, top_k, bars)
        else:
            lines = _captions_for(scorer, chosen, image or 0, top_k, bars)
    for line in lines:
        echo(line)


def _images_for(
    scorer: Scorer, split: PrecompSplit, caption: str, top_k: int, stage: Stage
) -> list[str]:
    from sgraf_deploy.errors import InputError

    if not caption.strip():
        raise InputError("--caption", expected="at least one word", got=repr(caption))
    (query,), words = encoded_texts(scorer, [caption])
    check_regions_fit(scorer.bundle, split.regions, f"regions of split {split.name}")
    images = scorer.encode_images(split.regions, progress=stage("encoding images"))
    result = scorer.rerank(query, images, top_k)
    names = [split.image_name(int(row)) for row in result.indices]
    return [
        f"caption: {caption} ({words.unknown} of {count(words.tokens, 'word')} unknown)",
        f"the best {len(result)} of {count(split.images, 'image')}",
        *_ranking(result, {"image": names}),
    ]


def _captions_for(
    scorer: Scorer, split: PrecompSplit, image: int, top_k: int, stage: Stage
) -> list[str]:
    from sgraf_deploy.data.regions import readable

    query = split.regions[image]
    check_regions_fit(scorer.bundle, query[None], f"regions of --image {image}")
    token_ids, _ = encoded_texts(scorer, split.captions)
    captions = scorer.encode_captions(token_ids, progress=stage("encoding captions"))
    result = scorer.rerank(readable(query), captions, top_k)
    marks = ["*" if split.image_of_caption[row] == image else "" for row in result.indices]
    texts = [split.captions[row] for row in result.indices]
    return [
        f"image: row {image}, {split.image_name(image)}",
        f"the best {len(result)} of {count(len(split.captions), 'caption')}; * marks the image's "
        "own captions",
        *_ranking(result, {"*": marks, "caption": texts}),
    ]


def _ranking(result: RerankResult, more: dict[str, list[str]]) -> list[str]:
    numbers = ["rank", "similarity", "logit", "row"]
    columns = (
        [str(rank) for rank in range(1, len(result) + 1)],
        [f"{similarity:.4f}" for similarity in result.similarities],
        [f"{logit:+.3f}" for logit in result.logits],
        [str(row) for row in result.indices],
        *more.values(),
    )
    return table(list(zip(*columns, strict=True)), [*numbers, *more], right=numbers)
