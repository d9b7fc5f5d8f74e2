"""What engine fused's kernels take of GPUs that need not be there, as a table.

Run it without TRITON_INTERPRET: `python benchmarks/fused_resources.py --json FILE`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import triton

from sgraf_deploy.config import PAPER, Module, Precision
from sgraf_deploy.engines.fused.fit import KIB, choose_blocks
from sgraf_deploy.engines.fused.resources import GPUS, kernel_resources
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.versions import tool_versions

NAMES = {".".join(map(str, gpu.capability)): gpu for gpu in GPUS}
LENGTHS = {"captions of up to 63 words": 20, "a caption of 80 words": 80}


@click.command()
@click.option(
    "--gpu",
    "names",
    type=click.Choice(list(NAMES)),
    multiple=True,
    default=list(NAMES),
    help="A compute capability; may be given several times. By default all.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp16", "fp32"]),
    multiple=True,
    default=["fp16", "fp32"],
    help="May be given twice. By default both.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def main(names: tuple[str, ...], precisions: tuple[Precision, ...], json_file: Path | None) -> None:
    """Compile every kernel at the paper's dimensions; report registers, spills, shared memory."""
    warnings.simplefilter("ignore")  # of Triton, about options
    rows = [
        row | {"compute_capability": name, "fits": row["shared_bytes"] <= limit}
        for name in names
        for limit in [NAMES[name].shared_memory]
        for precision in precisions
        for row in _rows(name, precision)
    ]
    for precision in precisions:
        click.echo("\n".join(_table(precision, names, rows)))
    report = {
        "command": "python benchmarks/fused_resources.py",
        "ran_on_a_gpu": False,
        "dimensions": {"regions": 36, "embed": 1024, "sim_dim": 256, "sgr_steps": 3},
        "versions": {**tool_versions(), "triton": triton.__version__},
        "gpus": {name: {"shared_bytes": NAMES[name].shared_memory} for name in names},
        "blocks": {
            f"{name} {precision}": asdict(choose_blocks(PAPER["SGR"], precision, NAMES[name]))
            for name in names
            for precision in precisions
        },
        "kernels": rows,
    }
    if json_file is not None:
        write_json(json_file, report)
    raise SystemExit(0 if all(row["fits"] for row in rows) else 1)


def _rows(name: str, precision: Precision) -> Iterator[dict[str, Any]]:
    """One per kernel and, where the kernel depends on it, length of captions."""
    modules: tuple[Module, ...] = ("SGR", "SAF")
    seen = set()
    for module in modules:
        for length, words in LENGTHS.items():
            if module == "SAF" and words > min(LENGTHS.values()):
                continue  # Its kernels are the same for all lengths.
            for kernel in kernel_resources(PAPER[module], precision, NAMES[name], words=words):
                shown = kernel.kernel
                if shown == "reasoning_step":
                    shown += f", {length}"
                if shown not in seen:
                    seen.add(shown)
                    yield {"precision": precision, "shown": shown, **asdict(kernel)}


def _table(precision: Precision, names: tuple[str, ...], rows: list[dict[str, Any]]) -> list[str]:
    """In markdown: kernels x GPUs."""
    cells = {
        (row["shown"], row["compute_capability"]): "{}, {}, {:g}{}".format(
            row["registers"],
            row["spilled_bytes"],
            round(row["shared_bytes"] / KIB, 1),
            "" if row["fits"] else ": too much",
        )
        for row in rows
        if row["precision"] == precision
    }
    heads = [f"{name}, {NAMES[name].shared_memory // KIB} KiB" for name in names]
    lines = [f"| {precision} | {' | '.join(heads)} |", "|---" * (1 + len(names)) + "|"]
    for shown in dict.fromkeys(kernel for kernel, _ in cells):
        found = " | ".join(cells[shown, name] for name in names)
        kernel, *length = shown.split(", ")
        lines.append(f"| {', '.join([f'`{kernel}`', *length])} | {found} |")
    return lines


if __name__ == "__main__":
    main()
