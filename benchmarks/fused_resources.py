"""What engine fused's kernels take of a GPU of compute capability 9.0, which need not be there.

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

from sgraf_deploy.config import Module, Precision
from sgraf_deploy.files import write_json
from sgraf_deploy.model.fused.resources import CAPABILITY, PAPER, Resources, kernel_resources
from sgraf_deploy.versions import tool_versions

SHARED_BYTES = 227 * 1024
LENGTHS = {"captions of up to 63 words": 20, "a caption of 80 words": 80}


@click.command()
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def main(json_file: Path | None) -> None:
    """Compile every kernel at the paper's dimensions; report registers, spills, shared memory."""
    warnings.simplefilter("ignore")  # of Triton, about options
    rows = list(_rows())
    for row in rows:
        click.echo(
            "{precision}  {kernel:<18} {warps} warps {registers:>4} registers "
            "{spilled_bytes:>6} bytes spilled {shared_bytes:>7} bytes shared  {words}".format(**row)
        )
    half = [row for row in rows if row["precision"] == "fp16"]
    fits = all(row["spilled_bytes"] == 0 and row["shared_bytes"] <= SHARED_BYTES for row in half)
    report = {
        "command": "python benchmarks/fused_resources.py",
        "compute_capability": CAPABILITY,
        "ran_on_a_gpu": False,
        "dimensions": {"regions": 36, "embed": 1024, "sim_dim": 256, "sgr_steps": 3},
        "versions": {**tool_versions(), "triton": triton.__version__},
        "fp16_fits_without_spills": fits,
        "kernels": rows,
    }
    if json_file is not None:
        write_json(json_file, report)
    raise SystemExit(0 if fits else 1)


def _rows() -> Iterator[dict[str, Any]]:
    """One per kernel, precision and, where the kernel depends on it, length of captions."""
    modules: tuple[Module, ...] = ("SGR", "SAF")
    precisions: tuple[Precision, ...] = ("fp16", "fp32")
    seen: list[tuple[str, Resources]] = []
    for precision in precisions:
        for module in modules:
            for name, words in LENGTHS.items():
                for kernel in kernel_resources(PAPER[module], precision, words=words):
                    if (precision, kernel) not in seen:
                        seen.append((precision, kernel))
                        yield {"precision": precision, "words": name, **asdict(kernel)}


if __name__ == "__main__":
    main()
