"""`sgraf-deploy verify`."""

from __future__ import annotations

from pathlib import Path

import click

from sgraf_deploy.cli.common import BUNDLE, PATH
from sgraf_deploy.cli.export import parity_table


@click.command()
@BUNDLE
@click.option(
    "--checkpoint",
    "checkpoints",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Original weights, for a bundle exported with --no-reference; repeatable.",
)
def verify(bundle: Path, checkpoints: tuple[Path, ...]) -> None:
    """Check every file of a BUNDLE and run the export gate on it again."""
    from sgraf_deploy.bundle import Bundle
    from sgraf_deploy.export.verify import verify_bundle

    parity = verify_bundle(Bundle.open(bundle), checkpoints)
    click.echo(parity_table(parity))
    click.echo(f"{bundle} is intact and within every bound")
