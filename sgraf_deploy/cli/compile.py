"""`sgraf-deploy compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import BUNDLE, PATH, megabytes, progress_bars, table
from sgraf_deploy.config import PRECISIONS, Precision

if TYPE_CHECKING:
    from sgraf_deploy.export.tensorrt import Planned

_COUNT = click.IntRange(min=1)


@click.command("compile", short_help="Build TensorRT engines of a bundle's graphs.")
@BUNDLE
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp16",
    show_default=True,
    help="Which of the bundle's graphs to build.",
)
@click.option(
    "--max-images", type=_COUNT, metavar="N", default=64, show_default=True, help="Of a tile."
)
@click.option(
    "--max-captions", type=_COUNT, metavar="N", default=64, show_default=True, help="Of a tile."
)
@click.option(
    "--max-words", type=_COUNT, metavar="N", default=40, show_default=True, help="Of a caption."
)
@click.option(
    "--max-candidates",
    type=_COUNT,
    metavar="N",
    default=1000,
    show_default=True,
    help="Of one query.",
)
@click.option(
    "--workspace-gb",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    metavar="X",
    show_default=True,
    help="Scratch memory that an engine may take.",
)
@click.option(
    "--engine-dir", type=PATH, metavar="DIR", help="Instead of engines/ inside the bundle."
)
def compile_(
    *,
    bundle: Path,
    precision: Precision,
    max_images: int,
    max_captions: int,
    max_words: int,
    max_candidates: int,
    workspace_gb: float,
    engine_dir: Path | None,
) -> None:
    """Build TensorRT engines of a BUNDLE, each with a sidecar that says what it was built from.

    A build needs no GPU with TensorRT for RTX. What is built is marked unverified until its
    values were compared with the reference's on a GPU.
    """
    from sgraf_deploy.bundle import Bundle
    from sgraf_deploy.export.profiles import GIB, Sizes
    from sgraf_deploy.export.tensorrt import (
        CompileOptions,
        compile_graph,
        engine_folder,
        plan_builds,
    )
    from sgraf_deploy.runtime.tensorrt import find_tensorrt

    tensorrt = find_tensorrt()
    opened = Bundle.open(bundle)
    sizes = Sizes(max_images, max_captions, max_words, max_candidates)
    options = CompileOptions(
        precision=precision,
        sizes=sizes,
        workspace_bytes=int(workspace_gb * GIB),
        engine_dir=engine_dir,
    )
    planned = plan_builds(opened, options)
    click.echo(f"{opened.path.name} ({opened.manifest.module}), {precision}, {tensorrt}")
    click.echo(_scratch_table(planned))
    rows = []
    with progress_bars() as bars:
        for one in planned:
            sidecar = compile_graph(opened, one, tensorrt, options, bars(one.name))
            layers = ", ".join(f"{count} {kind}" for kind, count in sidecar.layers.items())
            rows.append((one.name, megabytes(sidecar.plan_bytes), layers, "not verified"))
    click.echo(table(rows, ("engine", "size", "matrix products", "values"), ("size",)))
    click.echo(f"wrote {len(rows)} engines to {engine_folder(opened, engine_dir)}")
    click.echo("Nothing was run: they are compared with the reference where there is a GPU.")


def _scratch_table(planned: list[Planned]) -> str:
    """Before the build: each profile's largest sizes, and about what scratch memory it takes."""
    rows = []
    for one in planned:
        for use, scratch in zip(one.uses, one.scratch, strict=True):
            sizes = ", ".join(f"{axis} ≤ {size:,}" for axis, size in use.axes.items())
            rows.append((one.name, use.name, sizes, megabytes(scratch)))
    return table(rows, ("graph", "profile", "sizes", "scratch, about"), ("scratch, about",))
