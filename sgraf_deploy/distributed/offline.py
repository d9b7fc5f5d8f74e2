"""Offline jobs: ranks counted, or the best candidates found, in pieces whose files survive a kill.

Whoever drives a job holds neither embeddings nor tiles: it hands out names of pieces, and merges
their files, which hold what they touched of N images and C captions, never of N x C pairs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.findings import Tell
from sgraf_deploy.distributed.actors import Runner
from sgraf_deploy.distributed.parts import Job, Kind, Piece, Plan
from sgraf_deploy.distributed.worker import Done
from sgraf_deploy.engines.ranks import RankCounts
from sgraf_deploy.evaluation.chance import chance_findings
from sgraf_deploy.evaluation.cost import Cost, Memory
from sgraf_deploy.evaluation.evaluate import (
    Announce,
    EvalOptions,
    Evaluation,
    describe_run,
    rank_reports,
    ranks_by_model,
    scored_shares,
)
from sgraf_deploy.progress import Stage
from sgraf_deploy.runtime.partial import PartialRanks
from sgraf_deploy.runtime.thresholds import RankThresholds
from sgraf_deploy.runtime.top_k import PartialTopK

STAGES: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("encoding", ("images", "captions")),
    ("scoring ground truths", ("truths",)),
    ("scoring", ("part",)),
)
"""What is done one after the other; the pieces of a stage need those of the stages before."""

AT_ONCE = 16
"""The parts that are held while they are merged."""

JobRunner = Runner[Piece, Done]

M = TypeVar("M", PartialRanks, PartialTopK)


@dataclass
class Progressed:
    """What a run of a job did: the pieces that it found finished, and who did the others."""

    found: int = 0
    by_worker: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    """The pieces of a kind that a worker did."""
    seconds: dict[str, float | None] = field(default_factory=dict)
    """Wall time by stage; None where an earlier run did a piece of it."""

    @property
    def done(self) -> int:
        """The pieces that this run did."""
        return self.by_worker.total()

    def took(self, *stages: str) -> float | None:
        """Wall time of stages together; None where an earlier run did a piece of them."""
        known = [found for stage in stages if (found := self.seconds[stage]) is not None]
        return sum(known) if len(known) == len(stages) else None

    def workers(self, kind: Kind | None = None) -> set[str]:
        """Who did pieces, or pieces of one kind."""
        return {worker for worker, done in self.by_worker if kind in (None, done)}


@dataclass(frozen=True)
class Hooks:
    """What a driver is told; `step` is called with the name of each thing that is done."""

    stage: Stage = lambda name: None
    tell: Tell = lambda finding: None
    announce: Announce = lambda cost: None
    step: Callable[[str], None] = lambda name: None
    clock: Callable[[], float] = time.perf_counter


def run_pieces(runner: JobRunner, job: Job, hooks: Hooks = Hooks()) -> Progressed:
    """Do all pieces of a job that are not finished; call it inside `Job.only_driver`.

    `hooks.step` is called with `planned`, with the name of each piece that was done, and with
    `finished`. Raises as `JobWorker`.
    """
    for finding in runner.prepare():
        hooks.tell(finding)
    plan = job.plan
    hooks.step("planned")
    hooks.announce(Cost(_memory(plan), None))
    progressed = Progressed()
    for name, kinds in STAGES:
        pieces = [piece for kind in kinds for piece in plan.pieces(kind)]
        missing = job.missing(pieces)
        progressed.found += len(pieces) - len(missing)
        start = hooks.clock()
        if missing:
            progress = hooks.stage(name) or (lambda done, total: None)
            for done, each in enumerate(runner.run(missing), 1):
                progressed.by_worker[each.worker, each.piece.kind] += 1
                hooks.step(each.piece.name)
                progress(done, len(missing))
        whole = len(missing) == len(pieces)
        progressed.seconds[name] = hooks.clock() - start if whole else None
    hooks.step("finished")
    return progressed


def count_ranks(job: Job) -> dict[str, RankCounts]:
    """Merge the parts of a finished job that counts ranks; raises as `merged_ranks`."""
    merged, thresholds = merged_ranks(job)
    return merged.counts(thresholds)


def merged_ranks(job: Job) -> tuple[PartialRanks, RankThresholds]:
    """All parts of a finished job that counts ranks, merged, and what they are counted against.

    Raises DataError for a file that is damaged, and InputError for one of another job.
    """
    truths = [RankThresholds.load(job.file(piece)) for piece in job.plan.pieces("truths")]
    merged = _merged(job, PartialRanks.load, PartialRanks.merge)
    return merged, RankThresholds.concatenate(truths)


def best_candidates(job: Job) -> PartialTopK:
    """Merge the parts of a finished job that finds the best candidates; raises as `count_ranks`."""
    return _merged(job, PartialTopK.load, PartialTopK.merge)


def _merged(job: Job, load: Callable[[Path], M], merge: Callable[[Sequence[M]], M]) -> M:
    """All parts merged, a few at a time."""
    files = [job.file(piece) for piece in job.plan.pieces("part")]
    merged = load(files[0])
    for start in range(1, len(files), AT_ONCE):
        held = [merged]
        held.extend(map(load, files[start : start + AT_ONCE]))
        merged = merge(held)
    return merged


def evaluate_job(
    runner: JobRunner, job: Job, bundle: Bundle, split_name: str, hooks: Hooks = Hooks()
) -> tuple[Evaluation, Progressed]:
    """Evaluate a bundle on a split as `evaluate_split` does, in pieces that a runner does.

    The shares of the pairs that members scored are those of all pieces, whoever did them.
    """
    with job.only_driver():
        progressed = run_pieces(runner, job, hooks)
        merged, thresholds = merged_ranks(job)
    ranks = ranks_by_model(merged.counts(thresholds))
    # Every member scores the ground truths besides.
    members, truths = bundle.manifest.members, thresholds.captions
    scored = {member: merged.scored[member] + truths for member in members}
    plan = job.plan
    identity, execution = plan.identity, plan.execution
    result = Evaluation(
        ranks=ranks,
        fold_reports={},
        words=plan.words,
        memory=_memory(plan),
        seconds={
            "encode": progressed.took("encoding"),
            "score": progressed.took("scoring ground truths", "scoring"),
        },
        logits={},
        run=describe_run(
            bundle,
            execution,
            plan.device,
            split_name,
            (identity.images, plan.words.captions, identity.captions_per_image),
        )
        | {
            "ranks_from": EvalOptions().ranks_from,
            "scored_share": scored_shares(scored),
            "workers": runner.workers,
        },
        of_the_data=plan.findings,
        of_the_ranks=chance_findings(rank_reports(ranks)),
    )
    return result, progressed


def find_best(
    runner: JobRunner, job: Job, hooks: Hooks = Hooks()
) -> tuple[PartialTopK, Progressed]:
    """Find the best candidates of every query, in pieces that a runner does."""
    with job.only_driver():
        progressed = run_pieces(runner, job, hooks)
        return best_candidates(job), progressed


def _memory(plan: Plan) -> Memory:
    """What one worker that has all images would hold."""
    return Memory(plan.encoded_bytes, plan.tile_bytes, 0)
