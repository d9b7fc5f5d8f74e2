"""`sgraf-deploy card`."""

from __future__ import annotations

from pathlib import Path

import click

from sgraf_deploy.cli.common import PATH
from sgraf_deploy.cli.terminal import echo


@click.command(short_help="Write a bundle's model card, README.md, with its measured R@K.")
@click.argument("bundle", type=PATH)
@click.option(
    "--eval-json",
    "files",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Report that `eval --json` wrote of this bundle. Repeat it for other splits or engines.",
)
@click.option(
    "--license",
    "licence",
    metavar="ID",
    help="Licence of the checkpoint as the Hub spells it, such as apache-2.0. Default: none is "
    "said.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="Dataset on the Hub that the reports were measured on. Default: none is said.",
)
@click.option("--force", is_flag=True, help="Replace a card that was edited.")
def card(
    *,
    bundle: Path,
    files: tuple[Path, ...],
    licence: str | None,
    dataset: str | None,
    force: bool,
) -> None:
    """Write README.md into a BUNDLE's folder: the page that the Hub shows of it.

    It says what the bundle is, how it was checked, and how well it ranks. The bundle's hash does
    not cover it, so that you may edit it; a card that was edited is replaced with --force alone.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.bundle.card import write_card
    from sgraf_deploy.bundle.hub import is_address
    from sgraf_deploy.cards.card import CardOptions, card_text
    from sgraf_deploy.cards.reports import read_report
    from sgraf_deploy.errors import InputError

    if is_address(bundle):
        hint = "fetch it with `hf download OWNER/NAME --local-dir DIR`"
        raise InputError("BUNDLE", expected="a folder of your own", got=bundle, hint=hint)
    options = CardOptions(licence, dataset)
    opened = Bundle.open(bundle)
    reports = [read_report(path, opened) for path in files]
    text = card_text(opened, opened.path.name, reports, options)
    echo(f"wrote {write_card(opened.path, text, force=force)}")
    if licence is None:
        echo("it names no licence: say it with --license, or in the file")
