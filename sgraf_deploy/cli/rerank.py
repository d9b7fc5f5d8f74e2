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
from sgraf_deploy.cli.photos import LeftOut, check_beside, on_error_option
from sgraf_deploy.cli.rerank_gallery import Stored, gallery_options, rerank_gallery
from sgraf_deploy.cli.rerank_query import Query, photo_regions, query_options, read_caption
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

    @property
    def given(self) -> dict[str, object]:
        """The options that name a split, by name; None for one that is not given."""
        return {"--data": self.data, "--split": self.split, "--limit-images": self.limit_images}

    def open(self, bundle: Bundle, *, captions: bool) -> PrecompSplit:
        """Open the split, with or without its captions; InputError if it is not named."""
        from sgraf_deploy.data.precomp import open_images, open_precomp

        folder, name = self._named()
        return (open_precomp if captions else open_images)(
            folder,
            name,
            captions_per_image=self.captions_per_image,
            model=dimensions(bundle),
            limit_images=self.limit_images,
        )

    def captions(self) -> list[str]:
        """The split's captions, of which there may be some without images."""
        from sgraf_deploy.data.captions import read_captions
        from sgraf_deploy.data.split_files import CAPTIONS, find_split

        (file,) = find_split(*self._named(), (CAPTIONS,), None)
        captions = read_captions(file)
        limit = self.limit_images
        return captions if limit is None else captions[: limit * self.captions_per_image]

    def _named(self) -> tuple[Path, str]:
        from sgraf_deploy.errors import InputError

        if self.data is None or self.split is None:
            expected = "--gallery GALLERY, --data DIR and --split NAME, or --images DIR"
            got = "--split alone" if self.split else "--data alone" if self.data else "neither"
            raise InputError("candidates", expected=expected, got=got)
        return self.data, self.split


@click.command(short_help="Rank images for a caption, or captions for an image.")
@BUNDLE
@query_options
@gallery_options
@on_error_option("", "nothing is ranked", beside="a folder of photographs, --images")
@split_options(required=False)
@scorer_options
@NO_PRUNE
@gathered(Query, "query")
@gathered(Stored, "stored")
@gathered(Split, "split")
def rerank(
    *,
    bundle: Path | str,
    query: Query,
    stored: Stored,
    split: Split,
    on_error: str | None,
    **scorer_arguments: Any,
) -> None:
    """Rank images for one caption, or captions for one image.

    They are those of a gallery, which `sgraf-deploy index` wrote: --gallery. Or they are those of a
    split, which are encoded first: --data and --split. Or they are photographs: --images. Exactly
    one of --caption, --image, --regions and --photo must be given.
    """
    from sgraf_deploy.bundle.bundle import Bundle

    query.check()
    _check_source(query, stored, split)
    folder = None if stored.gallery is not None else stored.images
    check_beside({"--on-error": on_error}, "--images DIR, without --gallery,", folder)
    beside = "--photo FILE, or --images DIR without --gallery,"
    check_beside({"--max-pixels": query.max_pixels}, beside, query.photo or folder)
    left_out = LeftOut(on_error, query.max_pixels)
    opened = Bundle.open(bundle)
    if stored.gallery is not None:
        with load_scorer(opened, **scorer_arguments) as scorer:
            rerank_gallery(scorer, stored.gallery, query, stored)
        return
    if stored.images is not None or query.photo is not None:
        with load_scorer(opened, **scorer_arguments) as scorer, progress_bars() as bars:
            echo(describe_scorer(scorer))
            for line in _of_photos(scorer, query, stored.images, split, left_out, bars):
                echo(line)
        left_out.end()
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
        if stored.images is not None:
            _check_photos(query, split)
    else:
        unfit = split.given
        expected = "none together with --gallery"
    for option, value in unfit.items():
        if value is not None:
            raise InputError(option, expected=expected, got=value)


def _check_photos(query: Query, split: Split) -> None:
    """Raise InputError for what does not go with a folder of photographs."""
    from sgraf_deploy.errors import InputError

    if query.caption is None:
        hint = "beside --gallery, a gallery of captions, --images is the gallery of --image"
        raise InputError("--images", expected="--caption TEXT", got=query.option, hint=hint)
    for option, value in split.given.items():
        if value is not None:
            raise InputError(option, expected="none together with --images", got=value)


def _of_photos(
    scorer: Scorer,
    query: Query,
    folder: Path | None,
    split: Split,
    left_out: LeftOut,
    stage: Stage,
) -> list[str]:
    """Photographs ranked for the caption, or the split's captions for the photograph."""
    from sgraf_deploy.features.paths import find_photos
    from sgraf_deploy.features.photographs import no_photograph

    if folder is None:
        return _captions_of_photo(scorer, query, split.captions(), stage)
    found = find_photos([folder]).photos
    token_ids, repeated = read_caption(scorer, query.caption or "")
    images = scorer.encode_photos(
        [photo.path for photo in found],
        progress=stage("encoding photographs"),
        unread=left_out.of([photo.id for photo in found]),
        max_pixels=left_out.max_pixels,
    )
    photos = [photo for row, photo in enumerate(found) if row not in left_out.rows]
    if not photos:
        raise no_photograph(left_out.skipped)
    result = scorer.rerank(token_ids, images, query.top_k)
    names = [photos[row].id for row in result.indices]
    return [
        repeated,
        f"the best {len(result)} of {count(len(photos), 'photograph')}",
        *_ranking(result, {"image": names}),
    ]


def _captions_of_photo(scorer: Scorer, query: Query, texts: list[str], stage: Stage) -> list[str]:
    regions = photo_regions(scorer, query)
    token_ids, _ = encoded_texts(scorer, texts)
    captions = scorer.encode_captions(token_ids, progress=stage("encoding captions"))
    result = scorer.rerank(regions, captions, query.top_k)
    return [
        f"photograph: {query.photo}",
        f"the best {len(result)} of {count(len(texts), 'caption')}",
        *_ranking(result, {"caption": [texts[row] for row in result.indices]}),
    ]


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
