"""The scorer's time on ONNX Runtime by stage, measured with ONNX Runtime's profiler."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgraf_deploy.bench.measure import Clock, pair_flop, timed
from sgraf_deploy.bench.run import processor
from sgraf_deploy.bench.stages import MOVES, PRODUCTS, Stage, product_flop, stages_of
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GraphName, GraphSignature
from sgraf_deploy.engines.base import EngineOptions, Graph
from sgraf_deploy.engines.buffers import Buffer
from sgraf_deploy.engines.onnx_runtime import import_onnxruntime
from sgraf_deploy.engines.ort import PROVIDER, OrtEngine, session_options
from sgraf_deploy.errors import SgrafDeployError
from sgraf_deploy.evaluation.workload import Workload
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.scorer import Scorer, load
from sgraf_deploy.runtime.tiles import TileLimits
from sgraf_deploy.versions import tool_versions

KINDS = ("products", "other arithmetic", "moving data")
"""The kinds of nodes; the last kind computes nothing."""

_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class StageTime:
    """A stage's milliseconds of all threads by kind, and its products' operations."""

    member: str
    stage: Stage
    milliseconds: dict[str, float]
    flop: float

    @property
    def total(self) -> float:
        """Milliseconds of all kinds."""
        return sum(self.milliseconds.values())

    @property
    def gflop_per_second(self) -> float | None:
        """The rate of one thread in the stage's products; None if it has none."""
        spent = self.milliseconds["products"]
        return self.flop / spent / 1e6 if self.flop and spent else None

    def to_json(self) -> dict[str, Any]:
        """All fields and derived values as a JSON object."""
        return {
            "member": self.member,
            "stage": self.stage.label,
            "milliseconds": self.total,
            "milliseconds_by_kind": self.milliseconds,
            "product_flop": self.flop,
            "product_gflop_per_second": self.gflop_per_second,
        }


@dataclass(frozen=True)
class MemberProfile:
    """One member's stages; `inside` is its session's milliseconds, `runs` its number of tiles."""

    stages: tuple[StageTime, ...]
    inside: float
    runs: int

    @property
    def between(self) -> float:
        """Milliseconds that were spent in the session, but not in any node."""
        return self.inside - sum(stage.total for stage in self.stages)


@dataclass(frozen=True, eq=False)
class ProfileReport:
    """The milliseconds of all threads while a matrix was scored in `seconds` of wall time."""

    run: dict[str, Any]
    members: dict[str, MemberProfile]
    seconds: float
    unprofiled_seconds: float
    workers: int

    @property
    def total(self) -> float:
        """Milliseconds that were available to all threads."""
        return 1e3 * self.seconds * self.workers

    @property
    def stages(self) -> list[StageTime]:
        """The stages of every member."""
        return [stage for member in self.members.values() for stage in member.stages]

    def kinds(self) -> dict[str, float]:
        """Milliseconds by kind, then between nodes and outside the graphs; they sum to `total`."""
        kinds = {kind: sum(stage.milliseconds[kind] for stage in self.stages) for kind in KINDS}
        members = self.members.values()
        return kinds | {
            "between nodes": sum(member.between for member in members),
            "outside the graphs": self.total - sum(member.inside for member in members),
        }

    @property
    def not_arithmetic(self) -> float:
        """The share of the time that computes no value, 0 … 1."""
        arithmetic = sum(self.kinds()[kind] for kind in KINDS[:2])
        return 1 - arithmetic / self.total

    @property
    def slowdown(self) -> float:
        """The additional time of scoring with the profiler, as a share of that without."""
        return self.seconds / self.unprofiled_seconds - 1

    def to_json(self) -> dict[str, Any]:
        """The whole report as a JSON object."""
        return {
            "run": self.run,
            "seconds": self.seconds,
            "unprofiled_seconds": self.unprofiled_seconds,
            "workers": self.workers,
            "thread_milliseconds": self.total,
            "stages": [stage.to_json() for stage in self.stages],
            "tiles": {name: member.runs for name, member in self.members.items()},
            "milliseconds_by_kind": self.kinds(),
            "share_that_is_not_arithmetic": self.not_arithmetic,
        }


class ProfiledEngine(OrtEngine):
    """`ort` with ONNX Runtime's profiler enabled in the scorers; its files go into `folder`."""

    def __init__(self, bundle: Bundle, options: EngineOptions, folder: Path) -> None:
        super().__init__(bundle, "fp32", options)
        self.scorers = {
            member: _ProfiledScorer(
                bundle.graph_path(member, "scorer", "fp32"),
                bundle.graph(member, "scorer", "fp32").signature,
                folder / member,
            )
            for member in bundle.manifest.members
        }

    def open(self, member: str, graph: GraphName) -> Graph:
        """Like `OrtEngine.open`, but with profiled scorers."""
        return self.scorers[member] if graph == "scorer" else super().open(member, graph)


class _ProfiledScorer:
    """One member's scorer, in a session like the engine's that records every node."""

    def __init__(self, path: Path, signature: GraphSignature, prefix: Path) -> None:
        options = session_options(1, arena=True)
        options.enable_profiling = True
        options.profile_file_prefix = str(prefix)
        self._optimised = prefix.with_suffix(".onnx")
        options.optimized_model_filepath = str(self._optimised)
        self.signature = signature
        self._session = import_onnxruntime().InferenceSession(
            str(path), options, providers=[PROVIDER]
        )

    def run(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer] | None = None
    ) -> dict[str, Buffer]:
        """See `Graph`; scorers are run without bound outputs."""
        names = [spec.name for spec in self.signature.outputs]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))

    def events(self) -> list[dict[str, Any]]:
        """End the profile, and return the events that the profiler wrote."""
        path = Path(self._session.end_profiling())
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return events

    def stages(self, module: str) -> dict[str, Stage]:
        """The stage of every node of the graph as ONNX Runtime optimised it."""
        import onnx

        graph = onnx.load(self._optimised, load_external_data=False).graph
        return stages_of(graph.node, module)


def measure_profile(
    bundle: Bundle,
    workload: Workload,
    options: EngineOptions,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> ProfileReport:
    """Score a workload once without and once with the profiler.

    Raises SgrafDeployError if the profiler, which keeps at most a million nodes, lost a run.
    """
    with load(bundle, "ort", "fp32", options=options) as scorer:
        unprofiled, _ = _score(scorer, workload, clock)
    limits = TileLimits()
    with tempfile.TemporaryDirectory() as folder:
        engine = ProfiledEngine(bundle, options, Path(folder))
        with Scorer(bundle, engine, precision="fp32", limits=limits) as scorer:
            seconds, tiles = _score(scorer, workload, clock, progress)
            members = {
                name: member_profile(
                    name, graph.events(), graph.stages(bundle.manifest.members[name].config.module)
                )
                for name, graph in engine.scorers.items()
            }
    for name, member in members.items():
        if member.runs != tiles:
            what = f"the profile of {name} is not complete"
            hint = "use fewer --images and --captions"
            raise SgrafDeployError(what, expected=f"{tiles} runs", got=member.runs, hint=hint)
    run = _describe(bundle, workload, options, engine.workers)
    return ProfileReport(run, members, seconds, unprofiled, engine.workers)


def member_profile(
    member: str, events: Iterable[Mapping[str, Any]], stages: Mapping[str, Stage]
) -> MemberProfile:
    """Sum ONNX Runtime's events by stage; nodes that `stages` does not have are `Stage.REST`."""
    spent: dict[Stage, dict[str, float]] = defaultdict(lambda: dict.fromkeys(KINDS, 0.0))
    flop: dict[Stage, float] = defaultdict(float)
    inside, runs = 0.0, 0
    for event in events:
        if event["cat"] == "Session" and event["name"] == "model_run":
            inside += event["dur"] / 1e3
            runs += 1
        if event["cat"] != "Node" or not event["name"].endswith(_SUFFIX):
            continue
        stage = stages.get(event["name"].removesuffix(_SUFFIX), Stage.REST)
        op, shapes = event["args"]["op_name"], event["args"]
        spent[stage][_kind(op)] += event["dur"] / 1e3
        if op in PRODUCTS:
            first, output = (
                next(iter(shapes[key][0].values()))
                for key in ("input_type_shape", "output_type_shape")
            )
            flop[stage] += product_flop(first, output)
    order = [*(stage for stage in Stage if stage != Stage.REST), Stage.REST]
    times = (StageTime(member, stage, spent[stage], flop[stage]) for stage in order)
    return MemberProfile(tuple(entry for entry in times if entry.total), inside, runs)


def _kind(op: str) -> str:
    if op in PRODUCTS:
        return KINDS[0]
    return KINDS[2] if op in MOVES else KINDS[1]


def _score(
    scorer: Scorer, workload: Workload, clock: Clock, progress: Progress | None = None
) -> tuple[float, int]:
    """Seconds of scoring the workload's matrix, and its number of tiles."""
    images = scorer.encode_images(workload.inputs.regions)
    captions = scorer.encode_captions(workload.inputs.token_ids)
    seconds = timed(lambda: scorer.score(images, captions, progress=progress), clock)
    return seconds, len(scorer.plan(images, captions))


def _describe(
    bundle: Bundle, workload: Workload, options: EngineOptions, workers: int
) -> dict[str, Any]:
    """The facts that are needed to compare two runs."""
    configs = {name: member.config for name, member in bundle.manifest.members.items()}
    inputs = workload.inputs
    return {
        "bundle_sha256": bundle.sha256,
        "module": bundle.manifest.module,
        "engine": "ort",
        "executed": "fp32",
        "device": "cpu",
        "processor": processor(),
        "threads": options.threads,
        "workers": workers,
        "workload": workload.name,
        "images": len(inputs.regions),
        "captions": len(inputs.token_ids),
        "mean_words": inputs.mean_words,
        "flop_per_pair": {n: pair_flop(config, inputs.mean_words) for n, config in configs.items()},
        "seed": workload.seed,
        "versions": tool_versions(),
    }
