"""One point of the scaling bench, measured in a process of its own.

`python -m sgraf_deploy.bench.point` reads a `Job` from standard input and writes the result of
`measure` to standard output, both as JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.measure import Clock, ResidentPeak, resident, timed
from sgraf_deploy.bench.random_ids import random_token_ids
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import Precision
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.errors import SgrafDeployError
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.scorer import Scorer, load

ENOUGH_PAIRS = 200_000
"""A smaller matrix is scored several times. Before the clock starts, about this many pairs are
scored once."""


@dataclass(frozen=True)
class Job:
    """Score images x captions of `fewest` to `most` words, counting `<start>` and `<end>`."""

    bundle: str
    images: int
    captions: int
    fewest: int
    most: int
    engine: str = "auto"
    precision: Precision = "fp32"
    threads: int | None = None
    device: str | None = None
    checkpoints: tuple[str, ...] = ()
    engine_dir: str | None = None
    allow_unverified: bool = False
    seed: int = 0

    @property
    def pairs(self) -> int:
        """Images x captions."""
        return self.images * self.captions

    def engine_options(self) -> EngineOptions:
        """The options that the engine is opened with."""
        return EngineOptions(
            self.threads,
            self.device,
            tuple(map(Path, self.checkpoints)),
            None if self.engine_dir is None else Path(self.engine_dir),
            self.allow_unverified,
        )


@dataclass(frozen=True)
class Clocks:
    """Clocks of wall seconds and of the CPU seconds of all threads of the process."""

    wall: Clock = time.perf_counter
    cpu: Clock = time.process_time


def random_inputs(job: Job, bundle: Bundle) -> tuple[NDArray[np.float32], list[NDArray[np.int32]]]:
    """Standard normal regions (images, regions, img_dim), and random ids of each caption.

    An image is a window on a table of rows and shares all but one of them with the next image. Many
    images then take little memory, and the values do not change the speed of scoring.
    """
    config = next(iter(bundle.manifest.members.values())).config
    rng = np.random.default_rng(job.seed)
    rows = job.images + config.regions - 1
    table = rng.standard_normal((rows, config.img_dim), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(table, config.regions, axis=0)
    lengths = rng.integers(job.fewest, job.most + 1, job.captions).tolist()
    regions = windows.transpose(0, 2, 1)  # (images, regions, img_dim)
    return regions, random_token_ids(bundle, lengths, rng)


def measure(job: Job, clocks: Clocks = Clocks()) -> dict[str, Any]:
    """Score the whole matrix and return the seconds of one run and the bytes that it took.

    `rss_anon` has the bytes after `load`, with the raw inputs, and at the peak, which includes
    encoding the inputs; each is null if the system does not report it.
    """
    with load(
        job.bundle, engine=job.engine, precision=job.precision, options=job.engine_options()
    ) as scorer:
        loaded = resident().get("RssAnon")
        regions, token_ids = random_inputs(job, scorer.bundle)
        start = resident().get("RssAnon")
        with ResidentPeak() as peak:
            images, captions = scorer.encode_images(regions), scorer.encode_captions(token_ids)
            timing = _time(scorer, images, captions, clocks)
        tiling = scorer.tiling(images, captions)
        return {
            "images": job.images,
            "captions": job.captions,
            "pairs": job.pairs,
            "mean_words": float(captions.lengths.mean()),
            "tiles": len(tiling),
            "padding": tiling.padding,
            "workers": tiling.workers,
            **timing,
            "encoded_bytes": images.nbytes + captions.nbytes,
            "result_bytes": tiling.result_bytes,
            "tile_bytes": tiling.tile_bytes,
            "rss_anon": {"loaded": loaded, "start": start, "peak": peak.values.get("RssAnon")},
            "engine": scorer.engine_name,
            "executed": scorer.executed,
            "device": scorer.device,
        }


def _time(
    scorer: Scorer, images: EncodedImages, captions: EncodedCaptions, clocks: Clocks
) -> dict[str, Any]:
    """The mean wall and CPU seconds of enough runs for a meaningful timing."""
    pairs = len(images) * len(captions)
    runs = math.ceil(ENOUGH_PAIRS / pairs)
    scorer.score(images[: max(1, ENOUGH_PAIRS // len(captions))], captions)

    def work() -> None:
        for _ in range(runs):
            scorer.score(images, captions)

    start = clocks.cpu()
    seconds = timed(work, clocks.wall)
    return {
        "runs": runs,
        "seconds": seconds / runs,
        "cpu_seconds": (clocks.cpu() - start) / runs,
    }


def main() -> int:
    """Measure the job on standard input; prints an expected error as one line to stderr."""
    fields = json.load(sys.stdin)
    job = Job(**fields | {"checkpoints": tuple(fields["checkpoints"])})
    try:
        result = measure(job)
    except SgrafDeployError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    json.dump(result, sys.stdout)
    return 0


def to_json(job: Job) -> str:
    """The JSON that `main` reads."""
    return json.dumps(asdict(job))


if __name__ == "__main__":
    sys.exit(main())
