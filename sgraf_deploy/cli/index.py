"""`sgraf-deploy index`: encodes a split's images, or its captions, into a gallery on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    CAPTION_COUNT,
    LIMIT_IMAGES,
    PATH,
    byte_count,
    check_regions_fit,
    count,
    describe_scorer,
    dimensions,
    encoded_texts,
    load_scorer,
    megabytes,
    scorer_options,
    show_finding,
)
from sgraf_deploy.cli.photos import PHOTOS, LeftOut, check_on_error, on_error_option, photo_items
from sgraf_deploy.cli.terminal import echo, progress_bars

if TYPE_CHECKING:
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.gallery.indexing import Items
    from sgraf_deploy.gallery.store import Gallery
    from sgraf_deploy.runtime.encoding import Kind
    from sgraf_deploy.runtime.scorer import Scorer


@click.command(short_help="Encode a split's images or captions into a gallery on disk.")
@BUNDLE
@click.option(
    "--data",
    type=PATH,
    metavar="DIR",
    help="Folder of precomp data, with SPLIT_ims.npy or, with --captions, SPLIT_caps.txt.",
)
@click.option("--split", metavar="NAME", help="Name of the split, such as dev, test or testall.")
@LIMIT_IMAGES
@CAPTION_COUNT
@PHOTOS
@on_error_option("", "what is written stays", beside="--photos")
@click.option(
    "-o",
    "--output",
    "path",
    type=PATH,
    required=True,
    metavar="GALLERY",
    help="Folder of the gallery. One that exists is added to: what it has of the split already is "
    "not encoded again, so that a run that was stopped goes on.",
)
@click.option("--captions", is_flag=True, help="Index the split's captions instead of its images.")
@click.option(
    "--caption-ids",
    type=PATH,
    metavar="FILE",
    help="Ids of the captions, one a line. Default: the numbers of their lines, from 1.",
)
@click.option(
    "--from-npz",
    type=PATH,
    metavar="FILE",
    help="Take the images, or with --captions the captions, from a file that save_encoded wrote, "
    "in place of --data and --split.",
)
@click.option(
    "--ids",
    type=PATH,
    metavar="FILE",
    help="Ids of the images of --from-npz, one a line. Default: their rows, from 0.",
)
@click.option(
    "--dtype",
    type=click.Choice(["stored", "float16"]),
    help="How a new gallery stores rows: as they are encoded, or rounded to float16, for half the "
    "bytes. Default: stored.",
)
@click.option(
    "--max-size",
    metavar="BYTES",
    callback=byte_count,
    help="The most that a new gallery may ever take, such as 200GB; disk space is taken only as it "
    "grows. Default: 1TB.",
)
@scorer_options
def index(
    *,
    bundle: Path | str,
    data: Path | None,
    split: str | None,
    limit_images: int | None,
    captions_per_image: int,
    photos: Path | None,
    on_error: str | None,
    path: Path,
    captions: bool,
    caption_ids: Path | None,
    from_npz: Path | None,
    ids: Path | None,
    dtype: Any,
    max_size: int | None,
    **scorer_arguments: Any,
) -> None:
    """Encode a split's images, or its captions, into a gallery on disk, by their ids.

    The images' ids are the names in SPLIT_ids.txt, or else the rows' numbers, counted from 0.
    SPLIT_boxes.npy and SPLIT_sizes.npy are kept with the images where they exist.
    """
    from sgraf_deploy.gallery.indexing import add

    given = {"--photos": photos, "--from-npz": from_npz, "--data": data, "--split": split}
    check_sources(given, ids, caption_ids, captions=captions)
    check_on_error(on_error, "--photos DIR", photos)
    left_out = LeftOut(on_error)
    kind: Kind = "captions" if captions else "images"
    with load_scorer(bundle, **scorer_arguments) as scorer, progress_bars() as bars:
        echo(describe_scorer(scorer))
        names = caption_ids if captions else ids
        items: Items
        if photos is not None:
            items = photo_items(scorer, photos, limit_images, left_out)
        elif from_npz is not None:
            items = saved_items(scorer, from_npz, kind, names)
        else:
            limits = (limit_images, captions_per_image)
            items = split_items(scorer, data or Path(), split or "", kind, names, limits)
        with open_or_create(path, scorer, kind, dtype, max_size) as gallery:
            done = add(gallery, items, bars(f"indexing {kind}"))
            one = kind.removesuffix("s")
            echo(
                f"gallery {path}: {count(done.written, one)} added, {done.present:,} were there "
                f"already; it has {count(len(gallery), one)}, "
                f"{megabytes(gallery.stats().file_bytes)}"
            )
    left_out.end()


def check_sources(
    given: Mapping[str, object], ids: Path | None, caption_ids: Path | None, *, captions: bool
) -> None:
    """Raise InputError unless the options name one source, and ids only where they are of use."""
    from sgraf_deploy.errors import InputError

    named = [option for option, value in given.items() if value is not None]
    if named in (["--data"], ["--split"]):
        (missing,) = {"--data", "--split"} - {*named}
        raise InputError(missing, expected="it together with the other of --data and --split")
    alone = {"--from-npz": "FILE", "--photos": "DIR"}
    if named not in (["--data", "--split"], *([option] for option in alone)):
        others = (f"{option} {kind}" for option, kind in alone.items() if option in given)
        expected = ", or ".join(["--data DIR and --split NAME", *others])
        got = " and ".join(named) or "none of them"
        raise InputError("what to index", expected=expected, got=got)
    if captions and named == ["--photos"]:
        raise InputError("--photos", expected="no --captions beside it", got="--captions")
    if ids is not None and (captions or named != ["--from-npz"]):
        hint = "an image of a split is named by the split's SPLIT_ids.txt"
        raise InputError("--ids", expected="images of --from-npz", hint=hint)
    if caption_ids is not None and not captions:
        raise InputError("--caption-ids", expected="--captions together with it")


def open_or_create(
    path: Path, scorer: Scorer, kind: Kind, dtype: Any, max_size: int | None
) -> Gallery:
    """The gallery at a path, which is made if it is not there; or InputError if it is another."""
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.gallery.header import DEFAULT_MAX_SIZE, encoding_of
    from sgraf_deploy.gallery.store import Gallery

    if not path.exists():
        size = max_size or DEFAULT_MAX_SIZE
        return Gallery.create(path, scorer, kind, dtype=dtype or "stored", max_size=size)
    gallery = Gallery.open(path)
    header = gallery.header
    encoding_of(scorer, kind).check(header.encoding, f"gallery {path}")
    for option, given, fixed in (
        ("--dtype", dtype, header.dtype),
        ("--max-size", max_size, header.max_size),
    ):
        if given not in (None, fixed):
            hint = "it is chosen when a gallery is made: leave it out, or make another gallery"
            raise InputError(f"{option} of gallery {path}", expected=fixed, got=given, hint=hint)
    return gallery


def split_items(
    scorer: Scorer,
    data: Path,
    split: str,
    kind: Kind,
    caption_ids: Path | None,
    limits: tuple[int | None, int],
) -> Items:
    """What a split has of images or captions, checked; `limits` are of images, and per image."""
    from sgraf_deploy.data.precomp import open_images

    limit, per_image = limits
    if kind == "captions":
        return _caption_items(scorer, data, split, caption_ids, limit, per_image)
    from sgraf_deploy.gallery.indexing import SplitImages
    from sgraf_deploy.gallery.splits import SplitDetails, image_ids

    def opened(limit: int | None) -> PrecompSplit:
        return open_images(
            data,
            split,
            captions_per_image=per_image,
            model=dimensions(scorer.bundle),
            limit_images=limit,
        )

    whole = opened(None)
    details = SplitDetails.open(data, whole)
    chosen = whole if limit is None else opened(limit)
    ids = image_ids(data, chosen)
    for finding in chosen.findings:
        show_finding(finding)
    check_regions_fit(scorer.bundle, chosen.regions, f"regions of split {split}")
    return SplitImages(scorer, ids, chosen.regions, details)


def _caption_items(
    scorer: Scorer,
    data: Path,
    split: str,
    caption_ids: Path | None,
    limit: int | None,
    per_image: int,
) -> Items:
    from sgraf_deploy.data.captions import read_captions
    from sgraf_deploy.data.split_files import CAPTIONS, find_split
    from sgraf_deploy.gallery.indexing import SplitCaptions
    from sgraf_deploy.gallery.splits import given_ids

    (file,) = find_split(data, split, (CAPTIONS,), None)
    texts = read_captions(file)
    ids = given_ids(caption_ids, len(texts), "caption ids", first=1)
    if limit is not None:
        texts, ids = texts[: limit * per_image], ids[: limit * per_image]
    token_ids, _ = encoded_texts(scorer, texts)
    return SplitCaptions(scorer, ids, texts, token_ids)


def saved_items(scorer: Scorer, file: Path, kind: Kind, ids: Path | None) -> Items:
    """What `save_encoded` wrote to a file; or InputError if that is not of this kind."""
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.gallery.indexing import SavedItems
    from sgraf_deploy.gallery.splits import given_ids

    saved = scorer.read_saved(file)
    if saved.encoding.kind != kind:
        hint = "leave --captions out" if kind == "captions" else "add --captions"
        raise InputError(f"--from-npz {file}", expected=kind, got=saved.encoding.kind, hint=hint)
    first = next(iter(saved.arrays.values()))
    rows = len(first["image_global" if kind == "images" else "text_global"])
    return SavedItems(given_ids(ids, rows, "ids", first=int(kind == "captions")), saved)
