"""`sgraf-deploy index`: encodes a split's images, or its captions, into a gallery on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    CAPTION_COUNT,
    LIMIT_IMAGES,
    PATH,
    count,
    describe_scorer,
    gathered,
    load_scorer,
    megabytes,
    scorer_options,
    show_finding,
)
from sgraf_deploy.cli.option_types import byte_count
from sgraf_deploy.cli.photos import (
    MAX_PIXELS_OPTION,
    PHOTOS,
    LeftOut,
    check_beside,
    on_error_option,
    photo_items,
)
from sgraf_deploy.cli.ray_options import (
    ACTORS,
    RAY,
    SharingOptions,
    bundle_address,
    scorer_settings,
)
from sgraf_deploy.cli.terminal import echo, progress_bars

if TYPE_CHECKING:
    from sgraf_deploy.distributed.parts import ScorerSettings
    from sgraf_deploy.gallery.indexing import Indexed, Items
    from sgraf_deploy.gallery.sources import SplitToIndex
    from sgraf_deploy.runtime.encoding import Kind
    from sgraf_deploy.runtime.scorer import Scorer


@dataclass(frozen=True)
class Target:
    """The gallery that is written; `dtype` and `max_size` are those of a new one."""

    path: Path
    dtype: Any
    max_size: int | None
    replace: bool


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
@MAX_PIXELS_OPTION
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
@click.option(
    "--replace",
    is_flag=True,
    help="Encode anew what the gallery has with another content, in place of an error: a folder "
    "or a split that grows and changes is brought up to date. What it lacks now stays.",
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
@click.option(
    "--shards",
    type=click.IntRange(min=1),
    metavar="N",
    help="Write a folder of N galleries, GALLERY/part-0.gallery and so on, as `serve --ray` takes "
    "them: the hash of its id says where an image is. --ray needs it. Default: one gallery.",
)
@RAY
@ACTORS
@scorer_options
@gathered(Target, "target")
def index(
    *,
    bundle: Path | str,
    data: Path | None,
    split: str | None,
    limit_images: int | None,
    captions_per_image: int,
    photos: Path | None,
    on_error: str | None,
    max_pixels: int | None,
    captions: bool,
    caption_ids: Path | None,
    from_npz: Path | None,
    ids: Path | None,
    shards: int | None,
    ray: str | None,
    actors: int | None,
    target: Target,
    **scorer_arguments: Any,
) -> None:
    """Encode a split's images, or its captions, into a gallery on disk, by their ids.

    The images' ids are the names in SPLIT_ids.txt, or else the rows' numbers, counted from 0.
    SPLIT_boxes.npy and SPLIT_sizes.npy are kept with the images where they exist.
    """
    from sgraf_deploy.gallery.sources import SplitToIndex

    given = {"--photos": photos, "--from-npz": from_npz, "--data": data, "--split": split}
    check_sources(given, ids, caption_ids, captions=captions)
    check_beside({"--on-error": on_error, "--max-pixels": max_pixels}, "--photos DIR", photos)
    sharing = SharingOptions(ray, actors, None)
    sharing.check_actors()
    left_out = LeftOut(on_error, max_pixels)
    kind: Kind = "captions" if captions else "images"
    names = caption_ids if captions else ids
    source = SplitToIndex(
        data or Path(), split or "", kind, captions_per_image, limit_images, caption_ids
    )
    if shards is None and ray is None:
        with load_scorer(bundle, **scorer_arguments) as scorer, progress_bars() as bars:
            echo(describe_scorer(scorer))
            items: Items
            if photos is not None:
                items = photo_items(scorer, photos, limit_images, left_out)
            elif from_npz is not None:
                items = saved_items(scorer, from_npz, kind, names)
            else:
                items = source.open(scorer, show_finding)
            _index_here(scorer, items, kind, target, bars)
        left_out.end()
        return
    _check_shards(shards, {"--photos": photos, "--from-npz": from_npz})
    settings = scorer_settings(sharing, **scorer_arguments)
    _index_shards(sharing, (bundle_address(bundle), source, settings), shards or 1, target)


def _index_here(scorer: Scorer, items: Items, kind: Kind, target: Target, bars: Any) -> None:
    """Write one gallery in this process."""
    from sgraf_deploy.gallery.indexing import add
    from sgraf_deploy.gallery.sources import open_or_create

    path = target.path
    with open_or_create(path, scorer, kind, target.dtype, target.max_size) as gallery:
        done = add(gallery, items, bars(f"indexing {kind}"), replace=target.replace)
        size = f"{count(len(gallery), _one(kind))}, {megabytes(gallery.stats().file_bytes)}"
        echo(f"gallery {path}: {_counts(done, kind)}; it has {size}")


def _one(kind: Kind) -> str:
    return kind.removesuffix("s")


def _counts(done: Indexed, kind: Kind) -> str:
    anew = f", {done.replaced:,} written anew" if done.replaced else ""
    added = count(done.written - done.replaced, _one(kind))
    return f"{added} added{anew}, {done.present:,} were there already"


def _index_shards(
    sharing: SharingOptions,
    what: tuple[str, SplitToIndex, ScorerSettings],
    shards: int,
    target: Target,
) -> None:
    """Write a gallery of shards; `what` are the bundle, the source, and the scorers' settings."""
    from sgraf_deploy.distributed.indexing import IndexRequest, IndexWorker, index_shards

    bundle, source, settings = what
    request = IndexRequest(
        bundle,
        source.absolute(),
        target.path.absolute(),
        shards,
        settings,
        target.dtype,
        target.max_size,
        target.replace,
    )
    worker = partial(IndexWorker, request)
    with sharing.open(worker, settings.options) as runner, progress_bars() as bars:
        found = index_shards(runner, request, show_finding, bars(f"indexing {source.kind}"))
    for each in found:
        counts = _counts(each.done, source.kind)
        echo(f"gallery {request.path(each.shard)} on {each.host}: {counts}")


def _check_shards(shards: int | None, others: Mapping[str, Path | None]) -> None:
    """Raise InputError for what goes with one gallery alone."""
    from sgraf_deploy.errors import InputError

    if shards is None:
        hint = "at least as many as there are actors, each of which writes one at a time"
        raise InputError("--ray", expected="--shards N together with it", hint=hint)
    for option, value in others.items():
        if value is not None:
            raise InputError("--shards", expected="--data DIR and --split NAME", got=option)


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
