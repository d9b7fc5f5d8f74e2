"""Timings by stage: stages by dataflow, sums of ONNX Runtime's events, a whole run's arithmetic."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from itertools import accumulate, repeat
from typing import Any

import onnx
import pytest
from support.random_weights import random_weights
from support.refusals import naming, refused
from support.small_models import SAF, SGR

from sgraf_deploy.bench.measure import pair_flop
from sgraf_deploy.bench.run import random_workload
from sgraf_deploy.bench.stages import PRODUCTS, Stage, product_flop, stages_of
from sgraf_deploy.bench.timings import MemberTimings, TimingsReport, measure_timings, member_timings
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import ModelConfig, Precision
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.errors import SgrafDeployError
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.model.folding import fold

ONE_THREAD = EngineOptions(threads=1)
ALIGNED = {
    *(Stage.ATTENTION, Stage.CONTEXT_NORM, Stage.CONTEXT, Stage.LOCAL, Stage.GLOBAL, Stage.HEAD)
}


def scorer_graph(config: ModelConfig, precision: Precision = "fp32") -> onnx.GraphProto:
    weights = fold(config, random_weights(config, 3))
    return build_graph(weights, "scorer", precision).graph


@pytest.mark.parametrize("embed", [32, 1100], ids=["one-block", "blocks"])
@pytest.mark.parametrize("config", [SGR, SAF], ids=["SGR", "SAF"])
def test_every_product_has_its_stage(config: ModelConfig, embed: int) -> None:
    graph = scorer_graph(replace(config, embed=embed))
    stages = stages_of(graph.node, config.module)

    products = {stages[node.name] for node in graph.node if node.op_type in PRODUCTS}
    assert products == ALIGNED | {Stage[config.module]}
    by_stage = defaultdict(list)
    for node in graph.node:
        by_stage[stages.get(node.name, Stage.REST)].append(node.op_type)
    assert {"LeakyRelu", "Softmax", "Sqrt", "Div"} <= set(by_stage[Stage.WORD_ATTENTION])
    assert {"Sqrt", "Div"} <= set(by_stage[Stage.CONTEXT_NORM])
    assert set(by_stage[Stage.DIFFERENCE]) == {"Sub", "Mul", "Reshape"}
    assert "Sqrt" in by_stage[Stage.LOCAL]
    assert ("Sigmoid" if config.module == "SAF" else "Softmax") in by_stage[Stage[config.module]]
    other = Stage.SGR if config.module == "SAF" else Stage.SAF
    assert by_stage[other] == []


def test_names_of_nodes_do_not_matter() -> None:
    graph = scorer_graph(SGR)
    expected = [stages_of(graph.node, "SGR").get(node.name) for node in graph.node if node.name]
    for index, node in enumerate(graph.node):
        node.name = f"renamed {index}" if node.name else ""
    again = [stages_of(graph.node, "SGR").get(node.name) for node in graph.node if node.name]
    assert again == expected


def test_half_precision_has_stages_too() -> None:
    graph = scorer_graph(SGR, "fp16")
    stages = stages_of(graph.node, "SGR")
    products = {stages[node.name] for node in graph.node if node.op_type in PRODUCTS}
    assert products == (ALIGNED | {Stage.SGR}) - {Stage.CONTEXT_NORM}


def test_the_work_of_a_product() -> None:
    assert product_flop([8, 36, 64], [8, 36, 60]) == 2 * 8 * 36 * 60 * 64
    assert product_flop([480, 64], [480, 32]) == 2 * 480 * 32 * 64


def node_event(name: str, op: str, microseconds: int, *shapes: list[int]) -> dict[str, Any]:
    keys = ("input_type_shape", "output_type_shape")
    found = {key: [{"float": shape}] for key, shape in zip(keys, shapes, strict=False)}
    args = {"op_name": op} | found
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": args}


EVENTS = [
    {"cat": "Session", "name": "session_initialization", "dur": 10**6},
    node_event("a", "FusedMatMul", 2000, [2, 3, 4], [2, 3, 5]),
    node_event("b", "Softmax", 500),
    node_event("c", "Transpose", 250),
    node_event("unknown", "Split", 125),
    {"cat": "Session", "name": "SequentialExecutor::Execute", "dur": 2990},
    {"cat": "Session", "name": "model_run", "dur": 3000},
]
STAGES = {"a": Stage.ATTENTION, "b": Stage.WORD_ATTENTION, "c": Stage.WORD_ATTENTION}


def test_events_are_summed_by_stage_and_kind() -> None:
    timings = member_timings("sgr", [*EVENTS, *EVENTS], STAGES)

    assert [one.stage for one in timings.stages] == [
        Stage.ATTENTION,
        Stage.WORD_ATTENTION,
        Stage.REST,
    ]
    assert [one.total for one in timings.stages] == [4.0, 1.5, 0.25]
    assert timings.stages[1].milliseconds == {
        "products": 0.0,
        "other arithmetic": 1.0,
        "moving data": 0.5,
    }
    rate = timings.stages[0].gflop_per_second
    assert rate == pytest.approx(2 * 2 * 2 * 3 * 4 * 5 / 4e-3 / 1e9)
    assert timings.stages[1].gflop_per_second is None
    assert (timings.runs, timings.inside, timings.between) == (2, 6.0, 0.25)


def test_what_is_not_arithmetic() -> None:
    """Of 10 ms on two threads: 4 products, 1 softmax; moves, gaps and Python are the rest."""
    members = {"sgr": member_timings("sgr", [*EVENTS, *EVENTS], STAGES)}
    report = TimingsReport({}, members, 5e-3, 4e-3, workers=2)
    assert report.kinds() == {
        "products": 4.0,
        "other arithmetic": 1.0,
        "moving data": 0.75,
        "between nodes": 0.25,
        "outside the graphs": 4.0,
    }
    assert sum(report.kinds().values()) == report.total
    assert report.not_arithmetic == pytest.approx(0.5)
    assert report.slowdown == pytest.approx(0.25)


def test_real_timings_show_the_models_arithmetic(exported: Bundle) -> None:
    """The products of all stages are those of `pair_flop`, and the few that it leaves out."""
    workload = random_workload(exported, 12, 30)
    ticks = accumulate(repeat(1.0))
    report = measure_timings(exported, workload, ONE_THREAD, clock=lambda: next(ticks))

    assert list(report.members) == ["sgr", "saf"]
    assert (report.seconds, report.unprofiled_seconds, report.workers) == (1.0, 1.0, 1)
    for name, member in report.members.items():
        config = exported.manifest.members[name].config
        flop = {stage.stage: stage.flop for stage in member.stages}
        attended = flop[Stage.ATTENTION] + flop[Stage.CONTEXT]
        assert attended >= 12 * 30 * pair_flop(replace(config, sim_dim=0), 14) * 0.9
        assert attended <= 12 * 30 * pair_flop(replace(config, sim_dim=0), 20)
        assert flop[Stage.LOCAL] / flop[Stage.ATTENTION] == pytest.approx(
            config.sim_dim / config.regions
        )
        assert flop[Stage.GLOBAL] == 12 * 30 * 2 * config.embed * config.sim_dim
        assert flop[Stage[config.module]] > 0
    assert json.loads(json.dumps(report.to_json()))["run"]["seed"] == 0


def test_timings_that_lost_runs_are_refused(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = MemberTimings((), 0.0, runs=1)
    monkeypatch.setattr("sgraf_deploy.bench.timings.member_timings", lambda *_: lost)
    with refused(SgrafDeployError, expected=naming(), got=1, hint="--images"):
        measure_timings(exported, random_workload(exported, 12, 30), ONE_THREAD)
