"""`sgraf-deploy doctor`."""

from __future__ import annotations

import click

from sgraf_deploy.cli.common import table


@click.command(short_help="Which engines work here, and what mends the others.")
def doctor() -> None:
    """Say which engines work here, which do not, why, and the command that mends it."""
    from sgraf_deploy.errors import UnavailableError
    from sgraf_deploy.runtime.engine import ENGINES, choose_engine, unavailable_reason
    from sgraf_deploy.runtime.tensorrt import find_tensorrt
    from sgraf_deploy.versions import tool_versions

    click.echo(", ".join(f"{name} {number}" for name, number in tool_versions().items()))
    reasons = {name: unavailable_reason(name) for name in ENGINES}
    rows = [
        [name, "yes" if reasons[name] is None else "no", reasons[name] or entry.purpose]
        for name, entry in ENGINES.items()
    ]
    click.echo(table(rows, ["engine", "works here", "what it is, or why it does not work"]))
    for name, reason in reasons.items():
        if reason is not None:
            click.echo(f"to have {name}: {ENGINES[name].install}")
    try:
        click.echo(f"--engine auto takes {choose_engine()}")
    except UnavailableError as error:
        click.echo(f"--engine auto finds nothing: {error}")
    try:
        click.echo(f"compile works, with {find_tensorrt()}")
    except UnavailableError as error:
        click.echo(f"compile does not work: {error}")
    if reasons["torch"] is None:
        click.echo("export works")
    else:
        click.echo(f"export does not work: {reasons['torch']}; {ENGINES['torch'].install}")
