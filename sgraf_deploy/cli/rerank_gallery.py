"""`sgraf-deploy rerank` with a gallery: records of it, for one query."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    PATH,
    RESIDENT,
    F,
    check_regions_fit,
    check_result_file,
    count,
    describe_scorer,
    dimensions,
)
from sgraf_deploy.cli.rerank_query import Query, photo_regions, read_caption
from sgraf_deploy.cli.terminal import echo, table, warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sgraf_deploy.gallery.ranked import RankedRecord, Reranked
    from sgraf_deploy.gallery.resident import ResidentBytes
    from sgraf_deploy.gallery.store import Gallery
    from sgraf_deploy.runtime.scorer import Scorer

_NAMED = 5
"""The most missing ids that a warning names."""


@dataclass(frozen=True)
class Stored:
    """The options of a gallery: which one, which of its records, and where the result goes."""

    gallery: Path | None
    ids: Path | None
    images: Path | None
    skip_missing: bool
    resident: ResidentBytes
    json_file: Path | None

    @property
    def needing_gallery(self) -> dict[str, object]:
        """The options that are for a gallery alone, by name; None for one that is not given."""
        return {
            "--ids": self.ids,
            "--skip-missing": "the option" if self.skip_missing else None,
            "--resident": self.resident or None,
            "--json": self.json_file,
        }


def gallery_options(command: F) -> F:
    """Add the options of `Stored`."""
    for option in (
        click.option(
            "--json",
            "json_file",
            type=PATH,
            metavar="FILE",
            help="Also write a gallery's ranking to this file, as JSON.",
        ),
        RESIDENT,
        click.option(
            "--skip-missing",
            is_flag=True,
            help="Warn of ids that the gallery does not have, in place of an error.",
        ),
        click.option(
            "--images",
            type=PATH,
            metavar="DIR",
            help="Folder of photographs to rank for --caption, those in folders below it included; "
            "the bundle must have an extractor. Beside a --gallery of captions, the gallery of "
            "images in which --image is.",
        ),
        click.option(
            "--ids",
            type=PATH,
            metavar="FILE",
            help="File with the ids of the candidates in the gallery, one per line. Default: all "
            "of the gallery.",
        ),
        click.option(
            "--gallery",
            type=PATH,
            metavar="GALLERY",
            help="Gallery of images or captions to rank, which `sgraf-deploy index` wrote.",
        ),
    ):
        command = option(command)
    return command


def rerank_gallery(scorer: Scorer, path: Path, query: Query, stored: Stored) -> None:
    """Rank records of the gallery at `path`, and print and write the ranking."""
    from sgraf_deploy.data.files import read_lines
    from sgraf_deploy.gallery.reranker import Reranker
    from sgraf_deploy.gallery.store import Gallery

    check_result_file(stored.json_file, "--json")
    gallery = Gallery.open(path, resident=stored.resident)
    _check_fits(query, gallery, stored)
    images = None if stored.images is None else Gallery.open(stored.images)
    ids = None if stored.ids is None else read_lines(stored.ids, "--ids")
    skip = stored.skip_missing
    reranker = Reranker(scorer, gallery, images=images, missing="skip" if skip else "error")
    echo(describe_scorer(scorer))
    asked, repeated = _read(scorer, query)
    ranked = reranker.rerank(asked, ids, query.top_k)
    candidates = (len(gallery) if ids is None else len(ids)) - len(ranked.missing)
    if ranked.missing:
        named = ", ".join(ranked.missing[:_NAMED])
        more = ", …" if len(ranked.missing) > _NAMED else ""
        warn(f"{path} does not have {count(len(ranked.missing), 'id')}: {named}{more}")
    for line in (
        repeated,
        f"the best {len(ranked)} of {count(candidates, gallery.kind.removesuffix('s'))}",
        *_ranking(ranked),
    ):
        echo(line)
    if stored.json_file is not None:
        _write(stored.json_file, _report(scorer, path, query, ranked, candidates))


def _check_fits(query: Query, gallery: Gallery, stored: Stored) -> None:
    """Raise InputError for a query that the gallery cannot answer, or for an image without one."""
    from sgraf_deploy.errors import InputError

    if (query.option == "--caption") != (gallery.kind == "images"):
        of_images = "--image ID, --regions FILE or --photo FILE"
        expected = "--caption TEXT" if gallery.kind == "images" else of_images
        what = f"query of {stored.gallery}, a gallery of {gallery.kind}"
        raise InputError(what, expected=expected, got=query.option)
    if (query.option == "--image") != (stored.images is not None):
        expected = "both or neither, as the image is one of the gallery --images"
        got = f"{'--images' if stored.images else '--image'} alone"
        raise InputError("--image and --images", expected=expected, got=got)


def _read(scorer: Scorer, query: Query) -> tuple[Any, str]:
    """The query as a reranker takes it, and the line that repeats it."""
    if query.caption is not None:
        return read_caption(scorer, query.caption)
    if query.regions is not None:
        return _regions(scorer, query.regions), f"image: {query.regions}"
    if query.photo is not None:
        return photo_regions(scorer, query), f"photograph: {query.photo}"
    return query.image, f"image: {query.image}"


def _regions(scorer: Scorer, path: Path) -> NDArray[np.floating[Any]]:
    """The regions (regions, img_dim) of the only image in a file."""
    from sgraf_deploy.data.regions import open_regions, readable
    from sgraf_deploy.errors import DataError

    found = open_regions(path, dimensions(scorer.bundle))
    if len(found) != 1:
        raise DataError(f"--regions {path}", expected="one image", got=len(found))
    check_regions_fit(scorer.bundle, found, f"--regions {path}")
    return readable(found[0])


def _ranking(ranked: Reranked) -> list[str]:
    numbers = ["rank", "similarity", "logit"]
    about = [_about(item) for item in ranked]
    columns: list[list[Any]] = [
        list(range(1, len(ranked) + 1)),
        [f"{item.similarity:.4f}" for item in ranked],
        [f"{item.logit:+.3f}" for item in ranked],
        list(ranked.ids),
    ]
    headers = [*numbers, "id"]
    if any(about):
        columns.append(about)
        headers.append("caption" if ranked.direction == "image_to_text" else "metadata")
    return table(list(zip(*columns, strict=True)), headers, right=numbers)


def _about(item: RankedRecord) -> str:
    """A caption's text, where the gallery has nothing else of it, or else a record's metadata."""
    metadata = dict(item.metadata or {})
    if set(metadata) == {"caption"}:
        return str(metadata["caption"])
    return json.dumps(metadata, ensure_ascii=False) if metadata else ""


def _report(
    scorer: Scorer, path: Path, query: Query, ranked: Reranked, candidates: int
) -> dict[str, Any]:
    """The ranking with what it was made by, as JSON."""
    results = [
        {
            "rank": rank,
            "id": item.id,
            "similarity": item.similarity,
            "logit": item.logit,
            "metadata": item.metadata,
        }
        for rank, item in enumerate(ranked, start=1)
    ]
    return {
        "bundle": {"name": scorer.bundle.path.name, "sha256": scorer.bundle.sha256},
        "engine": scorer.engine_name,
        "executed": scorer.executed,
        "gallery": _shown(path),
        "direction": ranked.direction,
        "query": {query.option.removeprefix("--"): _shown(query.given)},
        "candidates": candidates,
        "missing": list(ranked.missing),
        "results": results,
    }


def _shown(path: Path | str) -> str:
    """A path for a file in UTF-8: bytes of a name that are none are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _write(path: Path, report: dict[str, Any]) -> None:
    from sgraf_deploy.files.writer import write_json

    write_json(path, report, what="--json")
    echo(f"wrote {path}")
