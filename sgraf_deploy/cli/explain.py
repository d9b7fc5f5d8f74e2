"""`sgraf-deploy explain`: why an image and a caption have their score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    HTML,
    PATH,
    check_result_files,
    data_options,
    describe_scorer,
    dimensions,
    image_row,
    load_scorer,
    scorer_options,
    show_finding,
)
from sgraf_deploy.cli.explain_report import report_lines
from sgraf_deploy.cli.option_types import unicode_text
from sgraf_deploy.cli.terminal import echo

if TYPE_CHECKING:
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.explanation.page import Shown
    from sgraf_deploy.runtime.scorer import Scorer

REPORT_SCHEMA = 1


@click.command(short_help="Show why an image and a caption have their score.")
@BUNDLE
@data_options
@click.option(
    "--image",
    required=True,
    metavar="ID",
    help="Image to explain: its name in SPLIT_ids.txt, or its row, counted from 0.",
)
@click.option(
    "--caption",
    required=True,
    metavar="TEXT",
    callback=unicode_text,
    help="Caption to explain it with.",
)
@click.option("--against", metavar="ID", help="Second image, shown beside the first.")
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Also write all as JSON.")
@HTML
@click.option(
    "--picture",
    "pictures",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Photograph of the image for the page, JPEG or PNG. Repeat it for the second image.",
)
@click.option(
    "--grid",
    metavar="ROWSxCOLUMNS",
    help="The regions are the cells of a grid, row by row, such as 6x6. Default: the boxes in "
    "SPLIT_boxes.npy, or the regions' numbers where there are none.",
)
@scorer_options
def explain(
    *,
    bundle: Path,
    data: Path,
    split: str,
    limit_images: int | None,
    captions_per_image: int,
    image: str,
    caption: str,
    against: str | None,
    json_file: Path | None,
    html: Path | None,
    pictures: tuple[Path, ...],
    grid: str | None,
    **scorer_arguments: Any,
) -> None:
    """Show why an image of a split and a caption have their score, or two images one above another.

    Weights say what the models read, and effects what the score does when a word is left out or a
    region is replaced by the image's mean region.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.precomp import open_images
    from sgraf_deploy.errors import InputError

    check_result_files({"--json": json_file, "--html": html})
    if pictures and html is None:
        raise InputError("--picture", expected="--html FILE together with it", got="none")
    opened = Bundle.open(bundle)
    chosen = open_images(
        data,
        split,
        captions_per_image=captions_per_image,
        model=dimensions(opened),
        limit_images=limit_images,
    )
    rows = _rows(chosen, image, against)
    with load_scorer(opened, **scorer_arguments) as scorer:
        echo(describe_scorer(scorer))
        for finding in chosen.findings:
            show_finding(finding)
        shown = _explained(scorer, chosen, rows, caption, (data, pictures, grid))
    source = f"{opened.path.name} (sha256 {opened.sha256[:16]}…), split {split}"
    _write(shown, rows, source, json_file, html)
    for line in report_lines(shown):
        echo(line)
    for path in (json_file, html):
        if path is not None:
            echo(f"wrote {path}")


def _rows(split: PrecompSplit, image: str, against: str | None) -> list[int]:
    """The rows of the named images."""
    rows = [image_row(split, image, "--image")]
    if against is not None:
        rows.append(image_row(split, against, "--against"))
    return rows


def _explained(
    scorer: Scorer,
    split: PrecompSplit,
    rows: list[int],
    caption: str,
    places: tuple[Path, tuple[Path, ...], str | None],
) -> list[Shown]:
    """Each image with its explanation, its regions' places and its picture."""
    from sgraf_deploy.data.regions import readable
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.explanation.explain import explain as explained
    from sgraf_deploy.explanation.page import Shown
    from sgraf_deploy.explanation.picture import read_picture
    from sgraf_deploy.explanation.regions import region_layout

    data, pictures, grid = places
    if len(pictures) > len(rows):
        raise InputError("--picture", expected=f"at most {len(rows)}", got=len(pictures))
    shown = []
    for index, row in enumerate(rows):
        picture = read_picture(pictures[index]) if index < len(pictures) else None
        boxes = data / f"{split.name}_boxes.npy"
        size = None if picture is None else (picture.width, picture.height)
        layout = region_layout(boxes, row, (split.images, split.regions.shape[1]), grid, size)
        found = explained(scorer, readable(split.regions[row]), caption)
        shown.append(Shown(split.image_name(row), found, layout, picture))
    return shown


def _write(
    shown: list[Shown],
    rows: list[int],
    source: str,
    json_file: Path | None,
    html: Path | None,
) -> None:
    from sgraf_deploy.explanation.page import page
    from sgraf_deploy.files.writer import write_file, write_json

    if json_file is not None:
        images = [
            {"image": one.name, "row": row, "regions": list(one.layout.names)}
            | one.explanation.to_json()
            for one, row in zip(shown, rows, strict=True)
        ]
        value = {"schema_version": REPORT_SCHEMA, "source": source, "images": images}
        write_json(json_file, value, what="--json")
    if html is not None:
        write_file(html, page(shown, source), what="--html")
