"""What reading from a gallery on disk costs, beside `np.take` from memory.

Rows of one member at the paper's dimensions, of random numbers. CPU seconds of this process, user
and system, medians of interleaved rounds; the file is in the system's cache. Every round opens the
gallery anew, so that its first read compares checksums, and reads other ids again.

    python benchmarks/gallery.py --json benchmarks/results/gallery.json
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.measure import ResidentPeak, resident
from sgraf_deploy.bench.run import processor
from sgraf_deploy.config import PAPER
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.gallery import Batch, Gallery
from sgraf_deploy.gallery.header import SCHEMA_VERSION, Header, RowSpec, StoredAs
from sgraf_deploy.gallery.store import make_folder
from sgraf_deploy.runtime.encoding import Encoding
from sgraf_deploy.versions import tool_versions

MOST = {"read": 3.0, "read_with_checksums": 4.0}
"""How many times the CPU of `np.take` reading may take."""
_BATCH = 250
_MEMORY_READS = 20


@click.command()
@click.option("--images", default=5000, show_default=True)
@click.option("--reads", default=1000, show_default=True, help="Random ids of one read.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(*, images: int, reads: int, rounds: int, json_file: Path | None) -> None:
    """Write galleries of random rows, measure reads, and compare them with the bounds."""
    report: dict[str, Any] = {
        "command": f"python benchmarks/gallery.py --images {images} --reads {reads} "
        f"--rounds {rounds}",
        "machine": {"processor": processor(), "versions": tool_versions()},
        "bounds": MOST,
        "galleries": {},
    }
    dtypes: tuple[StoredAs, ...] = ("stored", "float16")
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as folder:
            report["galleries"][dtype] = measure(Path(folder), dtype, images, reads, rounds)
    report["within_bounds"] = all(
        found["ratios"][name] <= most
        for found in report["galleries"].values()
        for name, most in MOST.items()
    )
    click.echo(json.dumps(report, indent=1))
    if json_file is not None:
        write_json(json_file, report)
    raise SystemExit(0 if report["within_bounds"] else 1)


def measure(folder: Path, dtype: StoredAs, images: int, reads: int, rounds: int) -> dict[str, Any]:
    """Write one gallery, and a fifth of it, and measure reads of both."""
    arrays = random_rows(dtype, images)
    path, small = folder / "all.gallery", folder / "fifth.gallery"
    writing = timed(partial(write, path, dtype, arrays))
    write(small, dtype, {name: array[: images // 5] for name, array in arrays.items()})
    seconds = cpu_seconds(path, arrays, reads, rounds)
    with Gallery.open(path) as gallery:
        stats = gallery.stats()
    row_bytes = sum(stats.row_bytes["sgr"].values())
    arrays.clear()  # what follows measures this process's memory
    return {
        "rows": {name: list(spec.shape) for name, spec in rows_of(dtype).items()},
        "bytes_of_rows": row_bytes,
        "bytes_each": stats.bytes_each,
        "file_bytes": stats.file_bytes,
        "write_cpu_seconds": writing,
        "cpu_milliseconds": {name: 1000 * value for name, value in seconds.items()},
        "ratios": {name: seconds[name] / seconds["take"] for name in MOST},
        "rss_anon_growth": {
            str(count): anon_growth(where, count, min(reads, count))
            for where, count in ((small, images // 5), (path, images))
        },
    }


def rows_of(dtype: StoredAs) -> dict[str, RowSpec]:
    """The rows of one member at the paper's dimensions."""
    config, stored = PAPER["SGR"], RowSpec((1,), "float32" if dtype == "stored" else "float16")
    return {
        "region_embeddings": RowSpec((config.regions, config.embed), stored.dtype),
        "image_global": RowSpec((config.embed,), stored.dtype),
        "region_gram": RowSpec((config.regions, config.regions), "float32"),
    }


def random_rows(dtype: StoredAs, images: int) -> dict[str, NDArray[Any]]:
    """Random rows, made a few at a time."""
    rng = np.random.default_rng(0)
    found = {}
    for name, spec in rows_of(dtype).items():
        array = found[name] = np.empty((images, *spec.shape), spec.dtype)
        for start in range(0, images, _BATCH):
            part = array[start : start + _BATCH]
            part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    return found


def write(path: Path, dtype: StoredAs, arrays: dict[str, NDArray[Any]]) -> None:
    """Make a gallery of these rows; the ids are row numbers."""
    encoding = Encoding("images", "fp32", "fp32", {"sgr": {"fingerprint": "random"}})
    header = Header(SCHEMA_VERSION, dtype, encoding, {"sgr": rows_of(dtype)}, 10**12, "data.mdb")
    make_folder(path, header)
    count = len(arrays["image_global"])
    with Gallery.open(path) as gallery:
        for start in range(0, count, _BATCH):
            rows = {name: array[start : start + _BATCH] for name, array in arrays.items()}
            ids = [str(row) for row in range(start, start + len(rows["image_global"]))]
            wide = {
                name: array if name == "region_gram" else array.astype(np.float32, copy=False)
                for name, array in rows.items()
            }
            gallery.write(Batch(ids, encoding, {"sgr": wide}))


def timed(work: Callable[[], object]) -> float:
    """The CPU seconds of this process that work takes."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def cpu_seconds(
    path: Path, arrays: dict[str, NDArray[Any]], reads: int, rounds: int
) -> dict[str, float]:
    """Medians of taking rows from memory, of a first read with checksums, and of a later one."""
    rng = np.random.default_rng(1)
    count = len(arrays["image_global"])
    found: dict[str, list[float]] = {"take": [], "read_with_checksums": [], "read": []}
    for _ in range(rounds + 1):
        rows = rng.choice(count, reads, replace=False)
        ids = [str(row) for row in rows]
        with Gallery.open(path) as gallery:
            found["take"].append(timed(partial(take, arrays, rows)))
            found["read_with_checksums"].append(timed(partial(gallery.read, ids)))
            found["read"].append(timed(partial(gallery.read, ids)))
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def take(arrays: dict[str, NDArray[Any]], rows: NDArray[Any]) -> list[NDArray[Any]]:
    """The same rows from memory."""
    return [np.take(array, rows, axis=0) for array in arrays.values()]


def anon_growth(path: Path, images: int, reads: int) -> int:
    """By how many bytes RssAnon peaks above its value before, while ids are read again and again.

    One read's result alone is held at a time.
    """
    rng = np.random.default_rng(2)
    before = resident()["RssAnon"]
    with Gallery.open(path) as gallery, ResidentPeak() as peak:
        for _ in range(_MEMORY_READS):
            gallery.read([str(row) for row in rng.choice(images, reads, replace=False)])
    return peak.values["RssAnon"] - before


if __name__ == "__main__":
    main()
