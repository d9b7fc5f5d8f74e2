"""`sgraf-deploy gallery`: what keeps a gallery on disk up to date and well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    PATH,
    count,
    describe_scorer,
    load_scorer,
    megabytes,
    scorer_options,
    show_finding,
    split_options,
)
from sgraf_deploy.cli.photos import (
    MAX_PIXELS_OPTION,
    PHOTOS,
    LeftOut,
    check_beside,
    on_error_option,
    photo_items,
)
from sgraf_deploy.cli.terminal import echo, echo_json, progress_bars, table, warn

if TYPE_CHECKING:
    from sgraf_deploy.gallery.indexing import Items
    from sgraf_deploy.gallery.maintenance import Statistics

GALLERY = click.argument("path", metavar="GALLERY", type=PATH)
IDS = click.argument("ids", metavar="[ID]...", nargs=-1)
IDS_FILE = click.option(
    "--ids", "ids_file", type=PATH, metavar="FILE", help="More ids, one a line."
)


@click.group(short_help="Update, delete from, verify or compact a gallery, or show its sizes.")
def gallery() -> None:
    """Keep a gallery, which `sgraf-deploy index` made, up to date and well."""


@gallery.command(short_help="Show what a gallery holds, and its bytes.")
@GALLERY
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def stats(*, path: Path, as_json: bool) -> None:
    """Show what a gallery holds, what encoded it, and the bytes of an image by member."""
    from sgraf_deploy.gallery.store import Gallery
    from sgraf_deploy.runtime.encoded import size_text

    with Gallery.open(path) as opened:
        found = opened.stats()
    if as_json:
        echo_json(_as_json(found))
        return
    header = found.header
    one = header.kind.removesuffix("s")
    executed = f"{header.encoding.precision}, executed as {header.encoding.executed}"
    echo(f"gallery {path}: {count(found.count, one)}, {executed}; rows {header.dtype}")
    echo(
        f"{size_text(found.used_bytes)} used, {size_text(found.file_bytes)} on the disk, at most "
        f"{size_text(header.max_size)}"
    )
    if found.bytes_each is not None:
        echo(f"{found.bytes_each:,.0f} bytes for each {one}, the index included")
    rows = [
        (member, name, f"{size:,}", "word" if name == "word_embeddings" else one)
        for member, named in found.row_bytes.items()
        for name, size in named.items()
    ]
    for line in table(rows, ["member", "rows", "bytes", "per"], right=["bytes"]):
        echo(line)


@gallery.command(short_help="Compare every record with its checksum.")
@GALLERY
def verify(*, path: Path) -> None:
    """Compare every record with its checksum; the exit code is 1 if one differs."""
    from sgraf_deploy.errors import GateError
    from sgraf_deploy.gallery.store import Gallery

    with Gallery.open(path) as opened, progress_bars() as bars:
        found = opened.verify(bars("verifying"))
    for reason in found.damaged.values():
        warn(reason)
    if found.damaged:
        raise GateError(
            f"gallery {path}",
            expected="records as they were written",
            got=f"{len(found.damaged):,} damaged, {found.records:,} as written",
            hint="write them again with `sgraf-deploy gallery update`, and check the disk",
        )
    echo(f"gallery {path}: {count(found.records, 'record')}, all as they were written")


@gallery.command(short_help="Give the room of deleted records back to the disk.")
@GALLERY
def compact(*, path: Path) -> None:
    """Write a gallery's file anew without the room of deleted and replaced records.

    Others may go on reading meanwhile, but not write. The disk must have room for a second file.
    """
    from sgraf_deploy.gallery.store import Gallery

    with Gallery.open(path) as opened:
        before, after = opened.compact()
    echo(f"gallery {path}: {megabytes(before)} before, {megabytes(after)} now")


@gallery.command(short_help="Delete images or captions from a gallery.")
@GALLERY
@IDS
@IDS_FILE
def delete(*, path: Path, ids: tuple[str, ...], ids_file: Path | None) -> None:
    """Delete images or captions by their ids, all of them or, if one is unknown, none.

    Later ones take their room; `sgraf-deploy gallery compact` gives it back to the disk.
    """
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.gallery.store import Gallery

    chosen = _chosen(ids, ids_file)
    if not chosen:
        raise InputError("what to delete", expected="an ID or --ids FILE", got="neither")
    with Gallery.open(path) as opened:
        one = opened.kind.removesuffix("s")
        opened.delete(chosen)
        left = count(len(opened), one)
    echo(f"gallery {path}: {count(len(dict.fromkeys(chosen)), one)} deleted, {left} left")


@gallery.command(short_help="Encode images or captions of a gallery anew.")
@GALLERY
@BUNDLE
@IDS
@IDS_FILE
@split_options(required=False)
@PHOTOS
@on_error_option("", "what is written stays", beside="--photos")
@MAX_PIXELS_OPTION
@click.option("--captions", is_flag=True, help="The gallery holds captions.")
@click.option(
    "--caption-ids",
    type=PATH,
    metavar="FILE",
    help="Ids of the split's captions, one a line. Default: the numbers of their lines, from 1.",
)
@scorer_options
def update(
    *,
    path: Path,
    bundle: Path | str,
    ids: tuple[str, ...],
    ids_file: Path | None,
    data: Path | None,
    split: str | None,
    photos: Path | None,
    on_error: str | None,
    max_pixels: int | None,
    limit_images: int | None,
    captions_per_image: int,
    captions: bool,
    caption_ids: Path | None,
    **scorer_arguments: Any,
) -> None:
    """Encode images or captions that are in a gallery anew, from a split's data or photographs.

    They are those of the given ids, or all of the split, or of the photographs. Every id must be in
    the gallery already, and keeps its place in the order.
    """
    from sgraf_deploy.cli.index import check_sources
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.gallery.indexing import update as write_anew
    from sgraf_deploy.gallery.sources import SplitToIndex, open_or_create
    from sgraf_deploy.runtime.encoding import Kind

    given = {"--photos": photos, "--data": data, "--split": split}
    check_sources(given, None, caption_ids, captions=captions)
    check_beside({"--on-error": on_error, "--max-pixels": max_pixels}, "--photos DIR", photos)
    left_out = LeftOut(on_error, max_pixels)
    if not path.exists():
        hint = "make one with `sgraf-deploy index`"
        raise InputError(f"gallery {path}", expected="a gallery", got="none", hint=hint)
    kind: Kind = "captions" if captions else "images"
    source = SplitToIndex(
        data or Path(), split or "", kind, captions_per_image, limit_images, caption_ids
    )
    with load_scorer(bundle, **scorer_arguments) as scorer, progress_bars() as bars:
        echo(describe_scorer(scorer))
        with open_or_create(path, scorer, kind, None, None) as opened:
            items: Items
            if photos is None:
                items = source.open(scorer, show_finding)
            else:
                items = photo_items(scorer, photos, limit_images, left_out)
            wanted = _chosen(ids, ids_file) or None
            done = write_anew(opened, items, wanted, bars(f"updating {kind}"))
    echo(f"gallery {path}: {count(done.written, kind.removesuffix('s'))} written anew")
    left_out.end()


def _chosen(ids: tuple[str, ...], file: Path | None) -> list[str]:
    from sgraf_deploy.data.files import read_lines

    return [*ids, *([] if file is None else read_lines(file, "ids"))]


def _as_json(found: Statistics) -> dict[str, Any]:
    from sgraf_deploy.schema import encode

    return {
        "kind": found.header.kind,
        "count": found.count,
        "dtype": found.header.dtype,
        "encoding": encode(found.header.encoding),
        "row_bytes": encode(found.row_bytes),
        "bytes_each": found.bytes_each,
        "used_bytes": found.used_bytes,
        "file_bytes": found.file_bytes,
        "max_size": found.header.max_size,
    }
