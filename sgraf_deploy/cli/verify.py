"""`sgraf-deploy verify`."""

from __future__ import annotations

from pathlib import Path

import click

from sgraf_deploy.cli.common import BUNDLE, CHECKPOINTS
from sgraf_deploy.cli.export import parity_lines
from sgraf_deploy.cli.terminal import echo, warn


@click.command(short_help="Check a bundle's files and run the export gate again.")
@BUNDLE
@CHECKPOINTS
def verify(bundle: Path, checkpoints: tuple[Path, ...]) -> None:
    """Check every file of a BUNDLE and run the export gate on it again."""
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.export.verify import verify_bundle

    opened = Bundle.open(bundle)
    strangers = opened.verify_files()
    echo("every file is as the manifest says; running the gate …", err=True)
    parity = verify_bundle(opened, checkpoints)
    if strangers:
        warn(f"files that are no part of the bundle: {', '.join(strangers)}")
    for line in parity_lines(parity):
        echo(line)
    echo(f"{bundle} is intact and within every bound")
