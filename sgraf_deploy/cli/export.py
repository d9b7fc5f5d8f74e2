"""`sgraf-deploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sgraf_deploy.cli.common import PATH, megabytes, table
from sgraf_deploy.config import PRECISIONS, Precision

_STEPS = {
    "graphs": "writing graphs",
    "reference": "running the literal reference in float64",
    "gate": "gate: every graph against the reference",
    "manifest": "gate passed",
}


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, metavar="DIR", help="The bundle; NAME.sgraf if absent.")
@click.option(
    "--vocab",
    "vocabulary",
    type=PATH,
    metavar="FILE",
    help="The vocabulary JSON; without it the bundle works on token ids.",
)
@click.option(
    "--tokenizer",
    default="nltk-untrained-punkt",
    show_default=True,
    metavar="NAME",
    help="nltk-punkt uses NLTK's trained punkt data, which must be installed.",
)
@click.option(
    "--precision",
    type=click.Choice([*PRECISIONS, "both"]),
    default="both",
    show_default=True,
    help="fp32 leaves FP16 out.",
)
@click.option(
    "--gate-data",
    type=PATH,
    metavar="DIR",
    help="A precomp folder to run the gate on, with bounds for trained weights.",
)
@click.option("--gate-split", metavar="NAME", help="The split of --gate-data; dev if absent.")
@click.option("--no-reference", is_flag=True, help="Leave the original weights out of the bundle.")
@click.option("--force", is_flag=True, help="Replace an existing bundle, in one step.")
def export(
    *,
    checkpoints: tuple[Path, ...],
    output: Path | None,
    vocabulary: Path | None,
    tokenizer: str,
    precision: str,
    gate_data: Path | None,
    gate_split: str | None,
    no_reference: bool,
    force: bool,
) -> None:
    """Export one CHECKPOINT (SGR or SAF), or two for the SGRAF ensemble, to a verified bundle."""
    from sgraf_deploy.errors import UnavailableError

    try:
        from sgraf_deploy.export.exporter import ExportOptions, default_target, export_bundle
    except ImportError as error:
        raise UnavailableError(
            f"export needs {error.name}", mend="pip install 'sgraf-deploy[torch,cpu]'"
        ) from error
    precisions: tuple[Precision, ...] = PRECISIONS
    if precision != "both":
        precisions = tuple(p for p in PRECISIONS if p == precision)
    options = ExportOptions(
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        precisions=precisions,
        gate_data=gate_data,
        gate_split=gate_split,
        keep_reference=not no_reference,
        force=force,
    )
    target = output or default_target(checkpoints)
    result = export_bundle(checkpoints, target, options, step=_say)
    for note in result.notes:
        click.echo(f"note: {note}")
    manifest = result.bundle.manifest
    click.echo(parity_table(manifest.parity))
    size = megabytes(sum(ref.bytes for ref in manifest.files))
    click.echo(f"wrote {target}: {manifest.module}, {' + '.join(manifest.precisions)}, {size}")
    if manifest.vocabulary is None:
        click.echo("no --vocab was given: this bundle scores token ids, not captions in words")
    else:
        click.echo(f"next: sgraf-deploy eval {target} --data DIR --split dev")


def parity_table(parity: dict[str, Any]) -> str:
    """The gate's largest differences beside their bounds."""
    rows = []
    for member, precisions in parity["members"].items():
        for precision, report in precisions.items():
            cells = [
                f"{report[name]['value']:.1e} ≤ {report[name]['bound']:.1e}"
                for name in ("embeddings", "logits", "similarities")
            ]
            rows.append([f"{member} {precision}", report["executor"], *cells])
    headers = ["gate", "executed by", "embeddings", "logits", "similarities"]
    return f"gate on {parity['source']}\n{table(rows, headers)}"


def _say(step: str) -> None:
    if step in _STEPS:
        click.echo(_STEPS[step], err=True)
