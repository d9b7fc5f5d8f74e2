"""`sgraf-deploy demo`: runs the main commands on embedded checkpoints."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from sgraf_deploy.cli.bench import bench
from sgraf_deploy.cli.common import PATH
from sgraf_deploy.cli.evaluate import evaluate
from sgraf_deploy.cli.export import export
from sgraf_deploy.cli.rerank import rerank
from sgraf_deploy.cli.terminal import echo

FOLDER = Path("sgraf-demo")

SUBSET = 200
"""The number of images that the slow literal loop and fp16-rounded are compared on."""

QUERY = 1
"""The row of the scene whose first caption is the query."""


@click.command(short_help="Run the main commands on embedded checkpoints, as an example.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=FOLDER,
    show_default=True,
    metavar="DIR",
    help="Folder to write the checkpoints, the data and the bundle to.",
)
@click.pass_context
def demo(context: click.Context, *, output: Path) -> None:
    """Run the main commands on two small checkpoints that come with the package.

    The checkpoints were trained on synthetic scenes; the demo runs export, eval, bench and rerank
    on scenes that they were not trained on.
    """
    from sgraf_deploy.demo.assets import BUNDLE, CHECKPOINTS, DATA, SPLIT, VOCABULARY, lay_out

    start = time.perf_counter()
    lay_out(output)
    bundle, data, split = output / BUNDLE, output / DATA, ("--split", SPLIT)
    echo(f"{output}: an SGR and a SAF checkpoint trained on synthetic scenes, and")
    echo("scenes that they were not trained on: 36 noisy regions and five captions each.")
    files = [output / name for name in CHECKPOINTS]
    gate = ("--gate-data", data, "--gate-split", SPLIT)
    words = ("--vocab", output / VOCABULARY)
    _run(context, export, *files, *words, *gate, "-o", bundle, "--force")
    _run(context, evaluate, bundle, "--data", data, *split)
    engines = ("--engine", "auto", "--engine", "torch:fp16")
    _run(context, bench, bundle, *engines, "--data", data, *split, "--limit-images", SUBSET)
    caption, scene = _query(data, SPLIT)
    _run(context, rerank, bundle, "--data", data, *split, "--caption", caption, "--top-k", 3)
    echo(f"the caption describes: {scene}")
    echo()
    echo(f"The demo took {time.perf_counter() - start:.0f} s. Next, on your own checkpoint:")
    echo("    sgraf-deploy export CHECKPOINT --vocab VOCAB.json -o NAME.sgraf")
    echo("    sgraf-deploy eval NAME.sgraf --data DIR --split test")
    echo("To train one: sgraf-deploy synth -o scenes, then sgraf-deploy train --help")


def _run(context: click.Context, command: click.Command, *arguments: object) -> None:
    """Print a command as a user would type it, and run it."""
    given = [str(argument) for argument in arguments]
    echo()
    echo(f"$ sgraf-deploy {shlex.join([command.name or '', *given])}")
    with command.make_context(command.name, given, parent=context) as inner:
        inner.command.invoke(inner)


def _query(data: Path, split: str) -> tuple[str, str]:
    """A caption of the split, and the scene that it belongs to."""
    captions = (data / f"{split}_caps.txt").read_text(encoding="utf-8").splitlines()
    scenes = (data / f"{split}_ids.txt").read_text(encoding="utf-8").splitlines()
    return captions[5 * QUERY], scenes[QUERY]
