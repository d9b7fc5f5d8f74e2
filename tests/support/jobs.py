"""Jobs on a small split that has ties, and a process that is killed while it drives one.

Run as a script, `jobs.py BUNDLE DATA MODELS FOLDER STEP [ADDRESS]` counts the ranks of `all`
models, or of the `ensemble` alone, in pieces, by itself or on the cluster at an address, and is
killed at a step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from support.cli_world import captions_of, write_precomp
from support.small_models import SGR, random_regions

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.distributed.actors import LocalRunner, RayRunner, ray_runner
from sgraf_deploy.distributed.offline import Hooks, JobRunner, Progressed, run_pieces
from sgraf_deploy.distributed.parts import Job, Piece, Request, ScorerSettings, SplitSource
from sgraf_deploy.distributed.worker import Done, JobWorker
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.ranks import RankCounts
from sgraf_deploy.runtime import TileShape

IMAGES, TILE = 40, TileShape(8, 25)
PATHS = Path(sgraf_deploy.__file__).parents[1], Path(__file__).parents[1]


def write_tied(folder: Path) -> Path:
    """A folder with the split `dev`, in which several images and several captions are the same."""
    regions = random_regions(SGR, IMAGES)
    regions[[3, 17, 30]] = regions[[2, 16, 16]]
    captions = captions_of(IMAGES)
    for row in range(0, len(captions), 7):
        captions[row] = captions[row % 21]
    return write_precomp(folder, regions, captions)


def request(bundle: Path, data: Path, k: int | None = None, **settings: Any) -> Request:
    """A request for all ranks, or the best `k`, of a split of that folder."""
    defaults = {"engine": "native", "options": EngineOptions(1), "tile": TILE}
    chosen = ScorerSettings(**{**defaults, **settings})
    return Request(str(bundle), SplitSource(data, "dev", 5), chosen, k)


@contextmanager
def shared(
    wanted: Request, folder: Path, actors: int, address: str = "auto"
) -> Iterator[RayRunner[Piece, Done]]:
    """A runner with actors on a cluster, which end with the block."""
    worker, options = partial(JobWorker, wanted, folder), wanted.settings.options
    with ray_runner(worker, options, address=address, actors=actors) as runner:
        yield runner


@contextmanager
def local(wanted: Request, folder: Path) -> Iterator[LocalRunner[Piece, Done]]:
    """A runner in this process, closed after the block."""
    with LocalRunner(JobWorker(wanted, folder)) as runner:
        yield runner


def drive(
    wanted: Request, folder: Path, step: Callable[[str], None] = lambda name: None
) -> Progressed:
    """Run a job in this process, to its end."""
    with local(wanted, folder) as runner:
        return drive_with(runner, folder, step)


def drive_with(
    runner: JobRunner, folder: Path, step: Callable[[str], None] = lambda name: None
) -> Progressed:
    """Run a job to its end."""
    job = Job(folder)
    with job.only_driver():
        return run_pieces(runner, job, Hooks(step=step))


def of_one_process(wanted: Request) -> dict[str, RankCounts]:
    """The ranks that one scorer counts."""
    with wanted.settings.load(Bundle.open(wanted.bundle)) as scorer:
        split = wanted.source.open(scorer.bundle)
        only = wanted.ensemble_only
        return scorer.count_ranks(split.regions, split.captions, ensemble_only=only)


def check_equal(found: Mapping[str, RankCounts], expected: Mapping[str, RankCounts]) -> None:
    """Every count and every level of every model is the same."""
    assert list(found) == list(expected)
    for model, counts in expected.items():
        for name, array in vars(counts).items():
            assert np.array_equal(getattr(found[model], name), array), (model, name)


def files_of(folder: Path) -> dict[str, int]:
    """When each file of a folder was written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npz")}


def run_killed(wanted: Request, folder: Path, step: str, *address: str) -> int:
    """Run this file as a script; its exit status."""
    models = "ensemble" if wanted.ensemble_only else "all"
    given = (wanted.bundle, str(wanted.source.folder), models, str(folder), step, *address)
    command = [sys.executable, __file__, *given]
    path = os.pathsep.join(map(str, PATHS))
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def _die(last: str, name: str) -> None:
    if name == last:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _bundle, _data, _folder = map(Path, (*sys.argv[1:3], sys.argv[4]))
    _wanted = replace(request(_bundle, _data), ensemble_only=sys.argv[3] == "ensemble")
    _kill, _address = partial(_die, sys.argv[5]), sys.argv[6:]
    if not _address:
        drive(_wanted, _folder, _kill)
    else:
        with shared(_wanted, _folder, 2, *_address) as _runner:
            drive_with(_runner, _folder, _kill)
