"""`sgraf-deploy doctor`."""

from __future__ import annotations

import click

from sgraf_deploy.cli.common import table


@click.command()
def doctor() -> None:
    """Say which engines work here, which do not, why, and what mends it."""
    from sgraf_deploy.errors import UnavailableError
    from sgraf_deploy.runtime.engine import ENGINES, choose_engine, unavailable_reason
    from sgraf_deploy.versions import tool_versions

    click.echo(", ".join(f"{name} {number}" for name, number in tool_versions().items()))
    rows = []
    for name, entry in ENGINES.items():
        reason = unavailable_reason(name)
        state = "works" if reason is None else "does not work"
        rows.append(
            [
                name,
                state,
                entry.purpose if reason is None else reason,
                "" if reason is None else entry.install,
            ]
        )
    click.echo(table(rows, ["engine", "here", "what or why", "to mend it"]))
    try:
        click.echo(f"--engine auto takes {choose_engine()}")
    except UnavailableError as error:
        click.echo(str(error))
    export = unavailable_reason("torch")
    click.echo("export works" if export is None else f"export does not: {export}")
