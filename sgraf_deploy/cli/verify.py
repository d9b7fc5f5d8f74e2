"""`sgraf-deploy verify`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import BUNDLE, CHECKPOINTS
from sgraf_deploy.cli.export import parity_lines
from sgraf_deploy.cli.option_types import FiniteRange
from sgraf_deploy.cli.terminal import echo, table, warn

if TYPE_CHECKING:
    from sgraf_deploy.gate.layers import LayerReport


@click.command(short_help="Check a bundle's files and run the export gate again.")
@BUNDLE
@CHECKPOINTS
@click.option(
    "--layers",
    is_flag=True,
    help="Also compare every graph below fp32 node by node with the same arithmetic in fp32.",
)
@click.option(
    "--layer-bound",
    type=FiniteRange(min=0),
    default=2.0,
    show_default=True,
    metavar="PERCENT",
    help="With --layers: name the first node that differs by more than this share of the standard "
    "deviation of its values.",
)
def verify(
    bundle: Path | str, checkpoints: tuple[Path, ...], *, layers: bool, layer_bound: float
) -> None:
    """Check every file of a BUNDLE against its hash, and run the export gate again.

    The gate compares every graph with the PyTorch reference's values that the bundle holds. If it
    was exported with --no-reference, --checkpoint supplies them. An extractor is run on the
    reference picture.

    --layers shows where reduced precision departs, and is no gate: the smoothing of the attention
    differs most in every bundle, and the bounds above hold nevertheless.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.export.verify import expected_values, verify_values
    from sgraf_deploy.features.spec import bundle_extractor
    from sgraf_deploy.gate.layers import compare_layers

    opened = Bundle.open(bundle)
    extra = opened.verify_files()
    echo("every file is as the manifest says; running the gate …", err=True)
    expected = expected_values(opened, checkpoints)
    if layers:  # First: a gate that fails is what they may explain.
        for report in compare_layers(opened, *expected):
            for line in layer_lines(report, layer_bound / 100):
                echo(line)
    parity = verify_values(opened, *expected)
    if opened.manifest.extractor is not None:
        bundle_extractor(opened).close()
        echo("extractor: it makes the regions of the reference picture that its recipe says")
    if extra:
        warn(f"files that do not belong to the bundle: {', '.join(extra)}")
    for line in parity_lines(parity):
        echo(line)
    echo(f"{bundle} is intact and within every bound")


def layer_lines(report: LayerReport, bound: float) -> Iterator[str]:
    """The first node of a graph beyond the bound, and the worst ones."""
    first = report.first(bound)
    found = "no node" if first is None else f"first {first.name}, node {first.place}"
    yield (
        f"{report.member} {report.precision} {report.graph}, {report.nodes} nodes: beyond "
        f"{100 * bound:g} % of a node's standard deviation: {found}"
    )
    columns = ("worst", "operator", "node", "of std", "largest", "std")
    rows = [
        (
            *(layer.name, layer.op, layer.place, f"{100 * layer.share:.3g} %"),
            *(f"{layer.largest:.1e}", f"{layer.deviation:.1e}"),
        )
        for layer in report.worst
    ]
    yield from table(rows, columns, columns[2:])
    yield ""
