"""The profile: stages by dataflow, sums of ONNX Runtime's events, a whole run's arithmetic."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from itertools import accumulate, repeat
from typing import Any

import numpy as np
import onnx
import pytest
from support.random_weights import random_weights
from support.refusals import naming, refused
from support.small_models import SAF, SGR

from sgraf_deploy.bench import measure
from sgraf_deploy.bench.measure import pair_flop
from sgraf_deploy.bench.run import random_workload
from sgraf_deploy.bench.stages import PRODUCTS, ScorerStage, product_flop, stages_of
from sgraf_deploy.bench.timings import check_profiled, measure_timings
from sgraf_deploy.bench.timings_ort import member_timings
from sgraf_deploy.bench.timings_report import MemberTimings, ProductSpeed, TimingsReport
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import ModelConfig, Precision
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.native.library import LIBRARY
from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.model.folding import fold

compiled = pytest.mark.skipif(not LIBRARY.exists(), reason="engine native was not compiled")

ONE_THREAD = EngineOptions(threads=1)
PRODUCT_SPEED = ProductSpeed(4e9, "PyTorch", 2)
ALIGNED = {
    *(
        ScorerStage.ATTENTION,
        ScorerStage.CONTEXT_NORM,
        ScorerStage.CONTEXT,
        ScorerStage.LOCAL,
        ScorerStage.GLOBAL,
        ScorerStage.HEAD,
    )
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
    assert products == ALIGNED | {ScorerStage[config.module]}
    by_stage = defaultdict(list)
    for node in graph.node:
        by_stage[stages.get(node.name, ScorerStage.REST)].append(node.op_type)
    assert {"LeakyRelu", "Softmax", "Sqrt", "Div"} <= set(by_stage[ScorerStage.WORD_ATTENTION])
    assert {"Sqrt", "Div"} <= set(by_stage[ScorerStage.CONTEXT_NORM])
    assert set(by_stage[ScorerStage.DIFFERENCE]) == {"Sub", "Mul", "Reshape"}
    assert "Sqrt" in by_stage[ScorerStage.LOCAL]
    assert ("Sigmoid" if config.module == "SAF" else "Softmax") in by_stage[
        ScorerStage[config.module]
    ]
    other = ScorerStage.SGR if config.module == "SAF" else ScorerStage.SAF
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
    assert products == (ALIGNED | {ScorerStage.SGR}) - {ScorerStage.CONTEXT_NORM}


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
STAGES = {
    "a": ScorerStage.ATTENTION,
    "b": ScorerStage.WORD_ATTENTION,
    "c": ScorerStage.WORD_ATTENTION,
}


def test_events_are_summed_by_stage_and_kind() -> None:
    profile = member_timings("sgr", [*EVENTS, *EVENTS], STAGES)

    assert [one.stage for one in profile.stages] == [
        ScorerStage.ATTENTION,
        ScorerStage.WORD_ATTENTION,
        ScorerStage.REST,
    ]
    assert [one.total for one in profile.stages] == [4.0, 1.5, 0.25]
    assert profile.stages[1].milliseconds == {
        "products": 0.0,
        "other arithmetic": 1.0,
        "moving data": 0.5,
    }
    rate = profile.stages[0].gflop_per_second
    assert rate == pytest.approx(2 * 2 * 2 * 3 * 4 * 5 / 4e-3 / 1e9)
    assert profile.stages[1].gflop_per_second is None
    assert (profile.runs, profile.inside, profile.between) == (2, 6.0, 0.25)


def test_what_is_not_arithmetic() -> None:
    """Of 10 ms on two threads: 4 products, 1 softmax; moves, gaps and Python are the rest."""
    members = {"sgr": member_timings("sgr", [*EVENTS, *EVENTS], STAGES)}
    report = TimingsReport({}, members, 5e-3, 4e-3, 2, PRODUCT_SPEED)
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


def test_a_rate_stands_beside_the_machines_on_as_many_threads() -> None:
    """A stage without products has no rate; one machine's rate on other threads is none here."""
    members = {"sgr": member_timings("sgr", [*EVENTS, *EVENTS], STAGES)}
    attention, softmax, _ = members["sgr"].stages
    rate = attention.gflop_per_second
    assert rate is not None
    for threads, expected in ((2, 2 * rate / 4), (1, None), (None, None)):
        speed = replace(PRODUCT_SPEED, threads=threads)
        report = TimingsReport({}, members, 5e-3, 4e-3, 2, speed)
        assert report.of_product_rate(attention) == expected
        assert report.of_product_rate(softmax) is None


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's rate does not matter here."""
    monkeypatch.setattr(measure, "PRODUCTS", ((8, 8, 8),))


def measured(bundle: Bundle, engine: str, *, words: int | None = None) -> TimingsReport:
    """Of 12 images and 30 captions, by a clock that always takes a second."""
    workload = random_workload(bundle, 12, 30)
    if words is not None:
        ids = [(each * words)[:words] for each in map(list, workload.inputs.token_ids)]
        inputs = replace(workload.inputs, token_ids=[np.array(each, np.int32) for each in ids])
        workload = replace(workload, inputs=inputs)
    ticks = accumulate(repeat(1.0))
    return measure_timings(bundle, workload, engine, ONE_THREAD, clock=lambda: next(ticks))


@pytest.mark.usefixtures("small_products")
@pytest.mark.parametrize("engine", ["ort", pytest.param("native", marks=compiled)])
def test_a_real_profile_does_the_models_arithmetic(exported: Bundle, engine: str) -> None:
    """The products of all stages are those of `pair_flop`, and the few that it leaves out."""
    report = measured(exported, engine)

    assert list(report.members) == ["sgr", "saf"]
    assert (report.seconds, report.unprofiled_seconds, report.workers) == (1.0, 1.0, 1)
    for name, member in report.members.items():
        config = exported.manifest.members[name].config
        flop = {stage.stage: stage.flop for stage in member.stages}
        attended = flop[ScorerStage.ATTENTION] + flop[ScorerStage.CONTEXT]
        assert attended >= 12 * 30 * pair_flop(replace(config, sim_dim=0), 14) * 0.9
        assert attended <= 12 * 30 * pair_flop(replace(config, sim_dim=0), 20)
        assert flop[ScorerStage.LOCAL] / flop[ScorerStage.ATTENTION] == pytest.approx(
            config.sim_dim / config.regions
        )
        assert flop[ScorerStage.GLOBAL] == 12 * 30 * 2 * config.embed * config.sim_dim
        assert flop[ScorerStage[config.module]] > 0
    found = json.loads(json.dumps(report.to_json()))
    assert (found["run"]["seed"], found["run"]["engine"]) == (0, engine)
    assert found["product_rate"] == 2 * 8**3
    assert sum(found["milliseconds_by_kind"].values()) == pytest.approx(1e3)
    assert found["stage_milliseconds"] == sum(one["milliseconds"] for one in found["stages"])


@compiled
@pytest.mark.usefixtures("small_products")
def test_both_engines_have_the_same_products(exported: Bundle) -> None:
    """Where no caption is padded."""
    found = {}
    for engine in ("ort", "native"):
        stages = measured(exported, engine, words=9).stages
        found[engine] = {(one.member, one.stage): one.flop for one in stages if one.flop}
    assert found["ort"].keys() == found["native"].keys()
    assert found["ort"] == found["native"]


def test_an_engine_without_stages_is_refused(exported: Bundle) -> None:
    with refused(InputError, "torch", expected=naming("native", "ort"), got="torch"):
        check_profiled("torch")
    with refused(InputError, "torch", expected=naming("native", "ort"), got="torch"):
        measured(exported, "torch")


@pytest.mark.usefixtures("small_products")
def test_a_profile_that_lost_runs_is_refused(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = MemberTimings((), 0.0, runs=1)
    monkeypatch.setattr("sgraf_deploy.bench.timings_ort.member_timings", lambda *_: lost)
    with refused(SgrafDeployError, expected=naming(), got=1, hint="--images"):
        measured(exported, "ort")
