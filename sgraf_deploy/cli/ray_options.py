"""The options of commands whose work several processes can share, on a cluster of Ray or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sgraf_deploy.cli.common import PATH, F, count
from sgraf_deploy.cli.terminal import echo

if TYPE_CHECKING:
    from sgraf_deploy.distributed.actors import Runner, Worker
    from sgraf_deploy.distributed.offline import JobRunner, Progressed
    from sgraf_deploy.distributed.parts import Job, Request, ScorerSettings
    from sgraf_deploy.engines.base import EngineOptions

P = TypeVar("P")
D = TypeVar("D")

HERE = "local"

RAY = click.option(
    "--ray",
    is_flag=False,
    flag_value=HERE,
    metavar="[ADDRESS]",
    help="Share the work among actors of the Ray cluster at ADDRESS, such as 10.0.0.5:6379, or "
    "auto for the one that this machine belongs to. Without a value one is started on this machine "
    "until the command ends; another option, or nothing, then follows.",
)
ACTORS = click.option(
    "--actors",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of actors, each with a scorer of its own on --threads threads, by default 1, or "
    "with --device cuda on one GPU. Default: as many as the cluster has room for.",
)
JOB = click.option(
    "--job",
    type=PATH,
    metavar="DIR",
    help="Folder where finished pieces of the work are kept, so that the same command goes on "
    "after it was killed. It holds all embeddings, is not removed, and must be on a file system "
    "that every worker sees. --ray needs it.",
)


@dataclass(frozen=True)
class SharingOptions:
    """How work is shared out: among actors of Ray, in pieces that are kept, or not at all."""

    ray: str | None
    actors: int | None
    job: Path | None

    def check_actors(self) -> None:
        """Raise InputError for --actors without --ray."""
        from sgraf_deploy.errors import InputError

        if self.ray is None and self.actors is not None:
            raise InputError("--actors", expected="--ray together with it")

    def check(self) -> None:
        """Raise InputError for options that need another one."""
        from sgraf_deploy.errors import InputError

        self.check_actors()
        if self.ray is not None and self.job is None:
            hint = "name a folder on a file system that every node of the cluster sees"
            raise InputError("--ray", expected="--job DIR together with it", hint=hint)

    @contextmanager
    def open_job(self, request: Request) -> Iterator[tuple[JobRunner, Job]]:
        """Yield who does a job's pieces, and its folder."""
        from sgraf_deploy.distributed.parts import Job
        from sgraf_deploy.distributed.worker import JobWorker

        folder = (self.job or Path()).absolute()
        worker = partial(JobWorker, request, folder)
        with self.open(worker, request.settings.options) as runner:
            yield runner, Job(folder)

    @contextmanager
    def open(
        self, worker: Callable[[], Worker[P, D]], options: EngineOptions
    ) -> Iterator[Runner[P, D]]:
        """Yield who does the work: actors, or a worker in this process."""
        from sgraf_deploy.distributed.actors import LocalRunner, ray_runner

        if self.ray is None:
            with LocalRunner(worker()) as runner:
                yield runner
        else:
            address = None if self.ray == HERE else self.ray
            with ray_runner(worker, options, address=address, actors=self.actors) as found:
                echo(f"{found.workers} actors")
                yield found


def sharing_options(command: F) -> F:
    """Add the options that `SharingOptions` holds."""
    for option in (JOB, ACTORS, RAY):
        command = option(command)
    return command


def scorer_settings(sharing: SharingOptions, **arguments: Any) -> ScorerSettings:
    """What `scorer_options` gave, for workers; one thread each, unless more were asked for."""
    from sgraf_deploy.distributed.parts import ScorerSettings
    from sgraf_deploy.engines.base import EngineOptions

    folder: Path | None = arguments["engine_dir"]
    threads: int | None = arguments["threads"]
    if sharing.ray is not None and threads is None:
        threads = 1
    options = EngineOptions(
        threads,
        arguments["device"],
        tuple(path.absolute() for path in arguments["checkpoints"]),
        None if folder is None else folder.absolute(),
        arguments["allow_unverified"],
    )
    return ScorerSettings(
        arguments["engine"],
        arguments["precision"],
        options,
        arguments["max_caption_words"],
        prune=not arguments.get("no_prune", False),
    )


def bundle_address(bundle: Path | str) -> str:
    """A bundle by a path that is valid in any folder, or its address on the Hub."""
    return str(bundle.absolute()) if isinstance(bundle, Path) else bundle


def show_progressed(progressed: Progressed, job: Job) -> None:
    """Print what a run did, and what it found done."""
    workers = count(len(progressed.workers()), "worker")
    echo(
        f"job {job.folder}: {progressed.done:,} pieces done by {workers}, "
        f"{progressed.found:,} were there already"
    )
