"""What sharing a job out among actors of Ray gains, and what it takes of driver and object store.

    python benchmarks/distributed.py speed f8k.sgraf --data f8k_precomp --split dev \\
        --json benchmarks/results/distributed_speed.json
    python benchmarks/distributed.py whole f8k.sgraf --data f8k_precomp --split dev \\
        --expected expected.json --json benchmarks/results/distributed_whole.json
    python benchmarks/distributed.py memory sgraf-demo/demo.sgraf --data sgraf-demo/scenes \\
        --split test --json benchmarks/results/distributed_memory.json

`speed` compares two actors of one thread with one, on an idle machine. The clock runs while pieces
are scored: actors are up, and have loaded the scorer and what it scores. `whole` counts the ranks
of a whole split and compares them with figures of the authors' code, in whose sort a tied ground
truth falls anywhere among its ties: R@K and median ranks must be equal, and a mean rank must lie
between those of ties ranked first and ranked last. `memory` has an own process drive a job and then
one of twice the images and captions, a matrix of four times the size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from sgraf_deploy.bench.measure import ResidentPeak, resident
from sgraf_deploy.bench.run import processor
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import Direction
from sgraf_deploy.distributed.actors import LocalRunner, RayRunner, ray_runner
from sgraf_deploy.distributed.cluster import connected
from sgraf_deploy.distributed.offline import Hooks, count_ranks, evaluate_job, run_pieces
from sgraf_deploy.distributed.parts import Job, Piece, Request, ScorerSettings, SplitSource
from sgraf_deploy.distributed.worker import Done, JobWorker
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.ranks import RankCounts
from sgraf_deploy.evaluation.candidates import DIRECTIONS
from sgraf_deploy.evaluation.evaluate import ranks_by_model
from sgraf_deploy.files.disk import link_or_copy
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.versions import tool_versions

WANTED, SECONDS = 1.7, 30.0
"""How much faster two actors are than one at least, and how long one works at least."""
WARM = 4
"""Parts that are scored before the clock starts, so that every actor has loaded its inputs."""
TOLERANCE = 1e-9

SUBJECT = (
    click.argument("bundle", type=click.Path(path_type=Path)),
    click.option("--data", type=click.Path(path_type=Path), required=True),
    click.option("--split", required=True),
    click.option("--json", "json_file", type=click.Path(path_type=Path)),
)


def subject(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name what is scored."""
    for option in reversed(SUBJECT):
        command = option(command)
    return command


@click.group()
def main() -> None:
    """Measure jobs on Ray."""


@main.command()
@subject
@click.option("--limit-images", default=500, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def speed(
    *, bundle: Path, data: Path, split: str, json_file: Path | None, limit_images: int, rounds: int
) -> None:
    """Compare two actors with one, interleaved; the best round of each counts."""
    request = request_of(bundle, data, split, limit_images)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder, connected():
        prepared = Path(folder) / "prepared"
        with LocalRunner(JobWorker(request, prepared)) as runner, Job(prepared).only_driver():
            run_pieces(runner, Job(prepared))
        expected = count_ranks(Job(prepared))
        for number in range(rounds):
            for actors, found_seconds in seconds.items():
                target = Path(folder) / f"round{number}-{actors}"
                found_seconds.append(_seconds(request, prepared, target, actors))
                found = count_ranks(Job(target))
                for model, counts in expected.items():
                    for name, array in vars(counts).items():
                        if (vars(found[model])[name] != array).any():
                            raise click.ClickException(f"{model}.{name} differs")
        plan = Job(prepared).plan
    one, two = (min(seconds[actors]) for actors in (1, 2))
    pairs = plan.identity.images * plan.words.captions
    scored = pairs * (len(plan.tiles) - WARM) / len(plan.tiles)
    report = {
        "seconds": {str(actors): each for actors, each in seconds.items()},
        "ratio": one / two,
        "wanted": WANTED,
        "pairs": pairs,
        "parts": len(plan.tiles),
        "parts_timed": len(plan.tiles) - WARM,
        "pairs_per_second_and_core": scored / one,
        "long_enough": one >= SECONDS,
        "images": plan.identity.images,
        "bundle_sha256": plan.identity.bundle,
    }
    finish(report, json_file, failed=one / two < WANTED or one < SECONDS)


def _seconds(request: Request, prepared: Path, target: Path, actors: int) -> float:
    """How long actors take for all parts but a few, which make them ready."""
    target.mkdir()
    for file in prepared.iterdir():
        if not file.name.startswith(("part-", ".")):
            link_or_copy(file, target / file.name)
    parts = Job(target).plan.pieces("part")
    with on_ray(request, target, actors) as runner:
        runner.prepare()
        ready = {done.worker for done in runner.run(parts[:WARM])}
        if len(ready) != actors:
            raise click.ClickException(f"{len(ready)} of {actors} actors were ready")
        start = time.perf_counter()
        for _ in runner.run(parts[WARM:]):
            pass
        return time.perf_counter() - start


@main.command()
@subject
@click.option("--limit-images", type=int)
@click.option("--actors", default=2, show_default=True)
@click.option("--expected", type=click.Path(path_type=Path), required=True)
@click.option("--ensemble-only", is_flag=True, help="Leave members out where they change nothing.")
def whole(
    *,
    bundle: Path,
    data: Path,
    split: str,
    json_file: Path | None,
    limit_images: int | None,
    actors: int,
    expected: Path,
    ensemble_only: bool,
) -> None:
    """Count a split's ranks with actors, and compare them with figures of the authors' code."""
    request = replace(request_of(bundle, data, split, limit_images), ensemble_only=ensemble_only)
    with (
        tempfile.TemporaryDirectory() as folder,
        connected(),
        on_ray(request, Path(folder) / "job", actors) as runner,
    ):
        job = Job(Path(folder) / "job")
        found, progressed = evaluate_job(runner, job, Bundle.open(bundle), split)
        counts = {name.upper(): each for name, each in count_ranks(job).items()}
    wanted = json.loads(expected.read_text(encoding="utf-8"))["results"]
    reports = {name: report.to_json() for name, report in found.reports.items()}
    means: dict[str, Any] = {}
    different: list[str] = []
    for name, ours in reports.items():
        for direction in DIRECTIONS:
            what, theirs = f"{name} {direction}", wanted[name][direction]
            means[what] = mean_ranks(counts[name], direction) | {"expected": theirs["mean_rank"]}
            different += differences(what, ours[direction], theirs, means[what])
    report = {
        "reports": reports,
        "mean_ranks": means,
        "run": found.run,
        "seconds": found.seconds,
        "pieces_by_actor": sorted(
            sum(n for (each, _), n in progressed.by_worker.items() if each == worker)
            for worker in progressed.workers()
        ),
        "different": different,
    }
    finish(report, json_file, failed=bool(different))


def mean_ranks(counts: RankCounts, direction: Direction) -> dict[str, float]:
    """A direction's mean rank where tied ground truths rank first, and where they rank last."""
    last, level = getattr(counts, direction), getattr(counts, f"level_{direction}")
    return {"ties_first": float((last - level).mean()) + 1, "ties_last": float(last.mean()) + 1}


def differences(
    what: str, ours: dict[str, float], theirs: dict[str, float], means: dict[str, float]
) -> Iterator[str]:
    """Where figures are not those of the authors' code."""
    for key, value in theirs.items():
        if key == "mean_rank":
            least, most = means["ties_first"], means["ties_last"]
            if not least - TOLERANCE <= value <= most + TOLERANCE:
                yield f"{what} {key}: {least} to {most}, which leaves out {value}"
        elif abs(ours[key] - value) > TOLERANCE:
            yield f"{what} {key}: {ours[key]}, not {value}"


@main.command()
@subject
@click.option("--limit-images", default=250, show_default=True, help="Of the smaller matrix.")
def memory(
    *, bundle: Path, data: Path, split: str, json_file: Path | None, limit_images: int
) -> None:
    """Measure the driver's memory and the object store's for a matrix, and for four times it."""
    report: dict[str, Any] = {}
    for images in (limit_images, 2 * limit_images):
        command = [sys.executable, __file__, "drive", str(bundle), "--data", str(data)]
        command += ["--split", split, "--limit-images", str(images)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        report[str(images)] = json.loads(output.splitlines()[-1])
    report["bundle_sha256"] = Bundle.open(bundle).sha256
    finish(report, json_file, failed=False)


@main.command(hidden=True)
@subject
@click.option("--limit-images", type=int)
def drive(
    *, bundle: Path, data: Path, split: str, json_file: Path | None, limit_images: int
) -> None:
    """Drive one job, and print what it took as JSON."""
    request = request_of(bundle, data, split, limit_images)
    stored = [0]
    with (
        tempfile.TemporaryDirectory() as folder,
        connected(),
        on_ray(request, Path(folder) / "job", 2) as runner,
    ):
        before, job = resident(), Job(Path(folder) / "job")
        hooks = Hooks(step=lambda name: stored.append(object_store_bytes()))
        with ResidentPeak() as peak, job.only_driver():
            run_pieces(runner, job, hooks)
            ranks = ranks_by_model(count_ranks(job))
        identity, plan = job.plan.identity, job.plan
        report = {
            "pairs": identity.images * plan.words.captions,
            "matrix_bytes": 4 * identity.images * plan.words.captions,
            "encoded_bytes": plan.encoded_bytes,
            "result_bytes": sum(
                each.image_to_text.nbytes + each.text_to_image.nbytes for each in ranks.values()
            ),
            "driver_rss_anon_before": before["RssAnon"],
            "driver_rss_anon_peak": peak.values["RssAnon"],
            "object_store_peak": max(stored),
        }
    finish(report, json_file, failed=False)


def object_store_bytes() -> int:
    """What the cluster's object stores hold now."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    stats = get_memory_info_reply(state).store_stats
    return int(stats.object_store_bytes_used)


def request_of(bundle: Path, data: Path, split: str, limit_images: int | None) -> Request:
    """All ranks, by scorers of one thread."""
    source = SplitSource(data.absolute(), split, 5, limit_images)
    return Request(str(bundle.absolute()), source, ScorerSettings(options=EngineOptions(1)))


@contextmanager
def on_ray(request: Request, folder: Path, actors: int) -> Iterator[RayRunner[Piece, Done]]:
    """Actors that do a job's pieces."""
    worker, options = partial(JobWorker, request, folder), request.settings.options
    with ray_runner(worker, options, address="auto", actors=actors) as runner:
        yield runner


def finish(report: dict[str, Any], json_file: Path | None, *, failed: bool) -> None:
    """Print a report, and write it with the machine and the command."""
    machine = {"processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg()}
    report = {**report, "machine": machine, "versions": tool_versions(), "command": _command()}
    click.echo(json.dumps(report))
    if json_file is not None:
        write_json(json_file, report, what="--json")
    if failed:
        raise click.ClickException("the result is not what is wanted")


def _command() -> Sequence[str]:
    """How the report was made, with the names of files and folders, not where they are."""
    return [Path(word).name if os.sep in word else word for word in sys.argv]


if __name__ == "__main__":
    main()
