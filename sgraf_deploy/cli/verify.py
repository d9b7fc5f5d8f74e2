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
def verify(bundle: Path | str, checkpoints: tuple[Path, ...]) -> None:
    """Check every file of a BUNDLE against its hash, and run the export gate again.

    The gate compares every graph with the PyTorch reference's values that the bundle holds. If it
    was exported with --no-reference, --checkpoint supplies them.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.export.verify import verify_bundle

    opened = Bundle.open(bundle)
    extra = opened.verify_files()
    echo("every file is as the manifest says; running the gate …", err=True)
    parity = verify_bundle(opened, checkpoints)
    if extra:
        warn(f"files that do not belong to the bundle: {', '.join(extra)}")
    for line in parity_lines(parity):
        echo(line)
    echo(f"{bundle} is intact and within every bound")
