"""`sgraf-deploy rerank`: ranks images or captions, of a split or a gallery, for one query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    NO_PRUNE,
    check_regions_fit,
    count,
    describe_scorer,
    dimensions,
    encoded_texts,
    gathered,
    image_row,
    load_scorer,
    scorer_options,
    show_finding,
    split_options,
)
from sgraf_deploy.cli.rerank_gallery import Stored, gallery_options, rerank_gallery
from sgraf_deploy.cli.rerank_query import Query, query_options, read_caption
from sgraf_deploy.cli.terminal import echo, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.progress import Stage
    from sgraf_deploy.runtime.rerank import RerankResult
    from sgraf_deploy.runtime.scorer import Scorer


@dataclass(frozen=True)
class Split:
    """The options that name a split of a precomp folder."""

    data: Path | None
    split: str | None
    limit_images: int | None
    captions_per_image: int

    def open(self, bundle: Bundle, *, captions: bool) -> PrecompSplit:
        """Open the split, with or without its captions; InputError if it is not named."""
        from sgraf_deploy.data.precomp import open_images, open_precomp
        from sgraf_deploy.errors import InputError

        if self.data is None or self.split is None:
            expected = "--gallery GALLERY, or --data DIR and --split NAME"
            got = "--split alone" if self.split else "--data alone" if self.data else "neither"
            raise InputError("candidates", expected=expected, got=got)
        return (open_precomp if captions else open_images)(
            self.data,
            self.split,
            captions_per_image=self.captions_per_image,
            model=dimensions(bundle),
            limit_images=self.limit_images,
        )


@click.command(short_help="Rank images for a caption, or captions for an image.")
@BUNDLE
@query_options
@gallery_options
@split_options(required=False)
@scorer_options
@NO_PRUNE
@gathered(Query, "query")
@gathered(Stored, "stored")
@gathered(Split, "split")
def rerank(
    *, bundle: Path | str, query: Query, stored: Stored, split: Split, **scorer_arguments: Any
) -> None:
    """Rank images for one caption, or captions for one image.

    They are those of a gallery, which `sgraf-deploy index` wrote: --gallery. Or they are those of a
    split, which are encoded first: --data and --split. Exactly one of --caption, --image and
    --regions must be given.
    """
    from sgraf_deploy.bundle.bundle import Bundle

    query.check()
    _check_source(query, stored, split)
    opened = Bundle.open(bundle)
    if stored.gallery is not None:
        with load_scorer(opened, **scorer_arguments) as scorer:
            rerank_gallery(scorer, stored.gallery, query, stored)
        return
    chosen = split.open(opened, captions=query.caption is None)
    row = None if query.image is None else image_row(chosen, query.image, "--image")
    with load_scorer(opened, **scorer_arguments) as scorer, progress_bars() as bars:
        echo(describe_scorer(scorer))
        for finding in chosen.findings:
            show_finding(finding)
        if row is None:
            lines = _images_for(scorer, chosen, query, bars)
        else:
            lines = _captions_for(scorer, chosen, row, query.top_k, bars)
    for line in lines:
        echo(line)


def _check_source(query: Query, stored: Stored, split: Split) -> None:
    """Raise InputError for options of a gallery without one, and for those of a split beside it."""
    from sgraf_deploy.errors import InputError

    unfit: dict[str, object]
    if stored.gallery is None:
        unfit = {**stored.needing_gallery, "--regions": query.regions}
        expected = "--gallery GALLERY together with it"
    else:
        unfit = {"--data": split.data, "--split": split.split, "--limit-images": split.limit_images}
        expected = "none together with --gallery"
    for option, value in unfit.items():
        if value is not None:
            raise InputError(option, expected=expected, got=value)


def _images_for(scorer: Scorer, split: PrecompSplit, query: Query, stage: Stage) -> list[str]:
    token_ids, repeated = read_caption(scorer, query.caption or "")
    check_regions_fit(scorer.bundle, split.regions, f"regions of split {split.name}")
    images = scorer.encode_images(split.regions, progress=stage("encoding images"))
    result = scorer.rerank(token_ids, images, query.top_k)
    names = [split.image_name(int(row)) for row in result.indices]
    return [
        repeated,
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
