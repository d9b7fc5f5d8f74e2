"""Peak memory of a large matrix scored into a memory map, at small dimensions.

RssAnon is what the process itself holds: pages of the memory map are the system's to drop. Its peak
less its value after `load` must stay within encoded inputs + one tile per thread + 10 %.

    python benchmarks/memory.py --json benchmarks/results/memory.json
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from sgraf_deploy.bench.measure import ResidentPeak, resident
from sgraf_deploy.bench.random_model import export_random, model_config, random_checkpoint
from sgraf_deploy.bench.run import processor
from sgraf_deploy.config import MODULES, Module
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.runtime.scorer import load
from sgraf_deploy.versions import tool_versions

MACHINE = {"processor": processor(), "versions": tool_versions()}


@click.command()
@click.option("--module", type=click.Choice(MODULES), default="SGR", show_default=True)
@click.option("--images", default=5000, show_default=True)
@click.option("--captions", default=25000, show_default=True)
@click.option("--embed", default=32, show_default=True)
@click.option("--sim-dim", default=16, show_default=True)
@click.option("--threads", default=1, show_default=True, help="Each holds a tile of its own.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    *,
    module: Module,
    images: int,
    captions: int,
    embed: int,
    sim_dim: int,
    threads: int,
    json_file: Path | None,
) -> None:
    """Score a matrix into a memory map and report the memory that it took."""
    config = model_config(module, img_dim=64, embed=embed, sim_dim=sim_dim, word_dim=24)
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 21, captions)
    token_ids = [rng.integers(4, config.vocab_size, n).astype(np.int32) for n in lengths]
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_random(random_checkpoint(config), Path(folder))
        np.save(
            Path(folder) / "regions.npy",
            rng.standard_normal((images, config.regions, config.img_dim), dtype=np.float32),
        )
        regions = np.load(Path(folder) / "regions.npy", mmap_mode="r")
        result = np.lib.format.open_memmap(
            Path(folder) / "similarities.npy", "w+", np.float32, (images, captions)
        )
        with load(bundle, engine="ort", options=EngineOptions(threads=threads)) as scorer:
            before = resident()
            with ResidentPeak() as peak:
                encoded = scorer.encode_images(regions), scorer.encode_captions(token_ids)
                tiling = scorer.tiling(*encoded)
                scorer.score(*encoded, out=result)
    report = summary(
        before, peak.values, sum(side.nbytes for side in encoded), threads * tiling.tile_bytes
    )
    report |= {
        "command": f"python benchmarks/memory.py --module {module} --images {images} "
        f"--captions {captions} --embed {embed} --sim-dim {sim_dim} --threads {threads}",
        "machine": MACHINE,
        "result_bytes": tiling.result_bytes,
    }
    click.echo(json.dumps(report, indent=1))
    if json_file is not None:
        write_json(json_file, report)
    raise SystemExit(0 if report["within_bound"] else 1)


def summary(
    before: dict[str, int], peak: dict[str, int], encoded: int, tile: int
) -> dict[str, Any]:
    """The growth beside its bound, in bytes."""
    growth = peak["RssAnon"] - before["RssAnon"]
    bound = int(1.1 * (encoded + tile))
    return {
        "rss_anon_after_load": before["RssAnon"],
        "rss_anon_peak": peak["RssAnon"],
        "rss_anon_growth": growth,
        "encoded_bytes": encoded,
        "tiles_bytes": tile,
        "bound": bound,
        "within_bound": growth <= bound,
        "rss_after_load": before["VmRSS"],
        "rss_peak": peak["VmRSS"],
    }


if __name__ == "__main__":
    main()
