"""`sgraf-deploy package`: what other programs need to run a bundle's graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import (
    ALLOW_UNVERIFIED,
    BUNDLE,
    CAPTION_COUNT,
    CAPTION_WORDS,
    ENGINE_DIR,
    LIMIT_IMAGES,
    PATH,
    check_regions_fit,
    count,
    dimensions,
    megabytes,
    show_finding,
)
from sgraf_deploy.cli.terminal import echo, progress_bars
from sgraf_deploy.config import PRECISIONS, Precision

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.package.contents import Contents
    from sgraf_deploy.package.triton import Platform, TritonOptions
    from sgraf_deploy.package.web import PageOptions


@click.command(short_help="Write a web page or a Triton repository that runs a bundle's graphs.")
@BUNDLE
@click.option(
    "--web",
    type=PATH,
    metavar="DIR",
    help="Folder to write a static page to, which ranks the images of --data in the browser.",
)
@click.option(
    "--runtime",
    type=PATH,
    metavar="DIR",
    help="For --web: the node_modules folder into which npm installed onnxruntime-web.",
)
@click.option(
    "--data",
    type=PATH,
    metavar="DIR",
    help="For --web: folder of precomp data, with SPLIT_ims.npy. Captions of SPLIT_caps.txt, if it "
    "is there, are offered as examples.",
)
@click.option("--split", metavar="NAME", help="For --web: split of --data to show.")
@LIMIT_IMAGES
@CAPTION_COUNT
@CAPTION_WORDS
@click.option("--title", metavar="TEXT", help="For --web: title of the page.")
@click.option(
    "--triton",
    type=PATH,
    metavar="DIR",
    help="Folder to write a model repository for Triton Inference Server to.",
)
@click.option(
    "--platform",
    type=click.Choice(["onnxruntime", "tensorrt"]),
    help="For --triton: backend that runs the graphs. By default onnxruntime; tensorrt takes the "
    "compiled plans.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="For --triton: precision of the graphs. By default fp32; with --platform tensorrt fp16, "
    "or what the bundle has.",
)
@ENGINE_DIR
@ALLOW_UNVERIFIED
@click.option("--force", is_flag=True, help="Replace an existing package in one step.")
def package(
    *,
    bundle: Path,
    web: Path | None,
    runtime: Path | None,
    data: Path | None,
    split: str | None,
    limit_images: int | None,
    captions_per_image: int,
    max_caption_words: int | None,
    title: str | None,
    triton: Path | None,
    platform: Platform | None,
    precision: Precision | None,
    engine_dir: Path | None,
    allow_unverified: bool,
    force: bool,
) -> None:
    """Write what another program needs to run the graphs of a BUNDLE: --web or --triton.

    --web writes a page of static files: any file server shows it, and the browser does the rest.
    --triton writes a model repository: one model for every member's graph.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.package.triton import TritonOptions
    from sgraf_deploy.package.web import TITLE, PageOptions

    if (web is None) == (triton is None):
        got = "neither" if web is None else "both"
        raise InputError("package", expected="--web DIR or --triton DIR", got=got)
    for_web = {"--runtime": runtime, "--data": data, "--split": split}
    for_triton = {
        "--platform": platform,
        "--precision": precision,
        "--engine-dir": engine_dir,
        "--allow-unverified": allow_unverified or None,
    }
    opened = Bundle.open(bundle)
    if triton is not None:
        _refuse("--triton", for_web | {"--limit-images": limit_images, "--title": title})
        options = TritonOptions(
            platform or "onnxruntime", precision, engine_dir, allow_unverified, force
        )
        _write_repository(opened, triton, options)
        return
    _refuse("--web", for_triton)
    if web is None or runtime is None or data is None or split is None:
        missing = [name for name, value in for_web.items() if value is None]
        raise InputError("--web", expected=f"{' and '.join(missing)} beside it", got="none")
    page = PageOptions(runtime, title or TITLE, max_caption_words, force)
    _write_page(
        opened, _open_split(opened, data, split, limit_images, captions_per_image), web, page
    )


def _refuse(option: str, others: Mapping[str, object]) -> None:
    """Raise InputError for options that are given and do not go with another one."""
    from sgraf_deploy.errors import InputError

    given = [name for name, value in others.items() if value is not None]
    if given:
        raise InputError(option, expected=f"no {given[0]} beside it", got=" and ".join(given))


def _open_split(
    bundle: Bundle, data: Path, split: str, limit_images: int | None, captions_per_image: int
) -> PrecompSplit:
    """The images of a split, with their captions if there are any."""
    from sgraf_deploy.data.precomp import list_splits, open_images, open_precomp

    captions = split in list_splits(data)
    if not captions:
        echo(f"note: {data} has no captions of split {split}: the page offers no examples")
    return (open_precomp if captions else open_images)(
        data,
        split,
        captions_per_image=captions_per_image,
        model=dimensions(bundle),
        limit_images=limit_images,
    )


def _write_page(bundle: Bundle, split: PrecompSplit, target: Path, options: PageOptions) -> None:
    from sgraf_deploy.package.web import write_page

    for finding in split.findings:
        show_finding(finding)
    check_regions_fit(bundle, split.regions, f"regions of split {split.name}")
    with progress_bars() as bars:
        contents = write_page(bundle, split, target, options, stage=bars)
    _show(target, contents, f"the page, with {count(split.images, 'image')}")
    echo(f"to see it: cd {target} && python -m http.server, and open http://localhost:8000")


def _write_repository(bundle: Bundle, target: Path, options: TritonOptions) -> None:
    from sgraf_deploy.package.triton import write_repository

    contents = write_repository(bundle, target, options)
    _show(target, contents, f"a repository for Triton's backend {options.platform}")
    echo(f"to run it: tritonserver --model-repository={target}")


def _show(target: Path, contents: Contents, what: str) -> None:
    files = count(len(contents.files), "file")
    echo(f"wrote {what} to {target}: {files}, {megabytes(contents.bytes)}")
