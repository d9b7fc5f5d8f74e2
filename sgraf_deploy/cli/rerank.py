"""`sgraf-deploy rerank`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    data_options,
    describe_scorer,
    load_scorer,
    progress_bars,
    scorer_options,
    table,
)

if TYPE_CHECKING:
    from sgraf_deploy.data.precomp import PrecompSplit


@click.command()
@BUNDLE
@data_options
@click.option("--caption", metavar="TEXT", help="Rank the split's images for this caption.")
@click.option("--image", type=int, metavar="ROW", help="Rank the split's captions for this image.")
@click.option("--top-k", type=click.IntRange(min=1), default=10, show_default=True)
@scorer_options
def rerank(
    *,
    bundle: Path,
    data: Path,
    split: str,
    limit_images: int | None,
    caption: str | None,
    image: int | None,
    top_k: int,
    **scorer_arguments: Any,
) -> None:
    """Rank a split's images for one caption, or its captions for one image."""
    from sgraf_deploy.data.precomp import open_precomp
    from sgraf_deploy.data.regions import check_regions
    from sgraf_deploy.errors import InputError

    if (caption is None) == (image is None):
        raise InputError("query", expected="one of --caption TEXT and --image ROW")
    opened = open_precomp(data, split, limit_images=limit_images)
    if image is not None and not 0 <= image < opened.images:
        raise InputError("--image", expected=f"a row from 0 to {opened.images - 1}", got=image)
    with load_scorer(bundle, **scorer_arguments) as scorer, progress_bars() as bars:
        click.echo(describe_scorer(scorer))
        manifest = scorer.bundle.manifest
        check_regions(opened.regions, manifest.regions, manifest.img_dim, f"split {split}")
        if image is None:
            images = scorer.encode_images(opened.regions, progress=bars("encoding images"))
            result = scorer.rerank(caption or "", images, top_k)
            names = [_image_name(opened, int(row)) for row in result.indices]
        else:
            captions = scorer.encode_captions(opened.captions, progress=bars("encoding captions"))
            result = scorer.rerank(opened.regions[image], captions, top_k)
            names = [opened.captions[row] for row in result.indices]
            click.echo(f"query: {_image_name(opened, image)}")
    rows = [
        [place, f"{similarity:.4f}", f"{logit:+.3f}", int(row), name]
        for place, (similarity, logit, row, name) in enumerate(
            zip(result.similarities, result.logits, result.indices, names, strict=True), start=1
        )
    ]
    click.echo(
        table(rows, ["", "similarity", "logit", "row", "caption" if image is not None else "image"])
    )


def _image_name(split: PrecompSplit, row: int) -> str:
    return split.ids[row] if split.ids else f"image {row}"
