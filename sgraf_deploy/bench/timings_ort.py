"""Stages of the scorer on ONNX Runtime, from its own profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sgraf_deploy.bench.stages import MOVES, PRODUCTS, ScorerStage, product_flop, stages_of
from sgraf_deploy.bench.timings_report import KINDS, MemberTimings, StageTime
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GraphName, GraphSignature
from sgraf_deploy.engines.base import EngineOptions, Graph
from sgraf_deploy.engines.buffers import Buffer, Sizes
from sgraf_deploy.engines.onnx_runtime import import_onnxruntime
from sgraf_deploy.engines.ort import PROVIDER, OrtEngine, session_options

_SUFFIX = "_kernel_time"


class ProfiledOrt(OrtEngine):
    """`ort` with ONNX Runtime's profiler on in the scorers; its files go when it is closed."""

    between = "between nodes"

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Take the graphs of `bundle`, in fp32."""
        super().__init__(bundle, "fp32", options)
        self._folder = tempfile.TemporaryDirectory()
        self._scorers = {
            member: _ProfiledScorer(
                bundle.graph_path(member, "scorer", "fp32"),
                bundle.graph(member, "scorer", "fp32").signature,
                Path(self._folder.name) / member,
            )
            for member in bundle.manifest.members
        }

    def _open(self, member: str, graph: GraphName) -> Graph:
        return self._scorers[member] if graph == "scorer" else super()._open(member, graph)

    def profiles(self) -> dict[str, MemberTimings]:
        """What every member's scorer did; the profile ends here."""
        members = self._bundle.manifest.members
        return {
            name: member_timings(name, graph.events(), graph.stages(members[name].config.module))
            for name, graph in self._scorers.items()
        }

    def close(self) -> None:
        """As `OrtEngine.close`."""
        super().close()
        self._folder.cleanup()


class _ProfiledScorer(Graph):
    """One member's scorer, in a session like the engine's that writes down every node."""

    def __init__(self, path: Path, signature: GraphSignature, prefix: Path) -> None:
        super().__init__(signature)
        options = session_options(1, arena=True)
        options.enable_profiling = True
        options.profile_file_prefix = str(prefix)
        self._optimised = prefix.with_suffix(".onnx")
        options.optimized_model_filepath = str(self._optimised)
        self._session = import_onnxruntime().InferenceSession(
            str(path), options, providers=[PROVIDER]
        )

    def _run(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], sizes: Sizes
    ) -> dict[str, Buffer]:
        return self._named(self._session.run(None, dict(inputs)), outputs)

    def events(self) -> list[dict[str, Any]]:
        """What the profiler wrote; the profile ends here."""
        path = Path(self._session.end_profiling())
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def stages(self, module: str) -> dict[str, ScorerStage]:
        """The stage of every node that ONNX Runtime made of the graph."""
        import onnx

        graph = onnx.load(self._optimised, load_external_data=False).graph
        return stages_of(graph.node, module)


def member_timings(
    member: str, events: Iterable[Mapping[str, Any]], stages: Mapping[str, ScorerStage]
) -> MemberTimings:
    """Sum ONNX Runtime's events by stage; nodes that `stages` does not know are the rest."""
    spent: dict[ScorerStage, dict[str, float]] = defaultdict(lambda: dict.fromkeys(KINDS, 0.0))
    flop: dict[ScorerStage, float] = defaultdict(float)
    inside, runs = 0.0, 0
    for event in events:
        if event["cat"] == "Session" and event["name"] == "model_run":
            inside += event["dur"] / 1e3
            runs += 1
        if event["cat"] != "Node" or not event["name"].endswith(_SUFFIX):
            continue
        stage = stages.get(event["name"].removesuffix(_SUFFIX), ScorerStage.REST)
        op, shapes = event["args"]["op_name"], event["args"]
        spent[stage][_kind(op)] += event["dur"] / 1e3
        if op in PRODUCTS:
            first, output = (
                next(iter(shapes[key][0].values()))
                for key in ("input_type_shape", "output_type_shape")
            )
            flop[stage] += product_flop(first, output)
    order = [*(stage for stage in ScorerStage if stage != ScorerStage.REST), ScorerStage.REST]
    found = (StageTime(member, stage, spent[stage], flop[stage]) for stage in order)
    return MemberTimings(tuple(one for one in found if one.total), inside, runs)


def _kind(op: str) -> str:
    if op in PRODUCTS:
        return KINDS[0]
    return KINDS[2] if op in MOVES else KINDS[1]
