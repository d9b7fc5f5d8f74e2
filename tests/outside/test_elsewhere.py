"""The same inputs in every program that runs the graphs: one table, in FP32."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from support.elsewhere import (
    MOST,
    PROGRAMS,
    Found,
    Program,
    Run,
    run_example,
    run_in_node,
    run_onnxruntime,
    run_openvino,
    table,
)

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.compile.build import Build, CompileOptions, build_plan, list_builds
from sgraf_deploy.compile.profiles import GIB, Sizes, profile, uses
from sgraf_deploy.config import GraphName
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.engines.ensemble import ensemble_logits
from sgraf_deploy.engines.trt.library import find_tensorrt
from sgraf_deploy.engines.trt.rtx import RTX
from sgraf_deploy.runtime.scorer import load
from sgraf_deploy.runtime.tokens import CaptionReader

pytestmark = pytest.mark.outside

IMAGES = 100
CAPTIONS = 8

Matrix = NDArray[np.float32]
"""Logits (images, captions) of the ensemble."""


@dataclass(frozen=True)
class Given:
    """What every program is given, and the yardstick: `Scorer`'s logits with engine `ort`."""

    bundle: Bundle
    regions: Matrix
    file: Path
    token_ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    logits: Matrix

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """Regions and padded captions, by name."""
        return {"regions": self.regions, "token_ids": self.token_ids, "lengths": self.lengths}


@pytest.fixture(scope="module")
def given(
    demo: Bundle, scenes: tuple[Path, PrecompSplit], tmp_path_factory: pytest.TempPathFactory
) -> Given:
    """Scenes of the demo, and captions of different lengths, one of each of the first scenes."""
    _, split = scenes
    regions = split.regions[:IMAGES].astype(np.float32)
    ids = CaptionReader(demo).token_ids(split.captions[: 5 * CAPTIONS : 5])
    lengths = np.array([len(each) for each in ids], np.int32)
    assert len(set(lengths)) > CAPTIONS // 2
    token_ids = np.zeros((CAPTIONS, lengths.max()), np.int32)
    for row, each in enumerate(ids):
        token_ids[row, : len(each)] = each
    with load(demo, "ort", "fp32") as scorer:
        logits = ensemble_logits(scorer.logits(regions, ids))
    gaps = np.diff(np.sort(logits, axis=0), axis=0)
    assert gaps.min() > 1e-5, "no ranks to compare: two images score alike"
    file = tmp_path_factory.mktemp("regions") / "regions.npy"
    np.save(file, regions)
    return Given(demo, regions, file, token_ids, lengths, logits)


def by_members(run: Run, given: Given) -> list[Matrix]:
    """The ensemble from the members' graphs, once by their scorers, once by their pair scorers."""
    matrices, pairs = {}, {}
    for member in given.bundle.manifest.members:

        def path(graph: GraphName, member: str = member) -> Path:
            return given.bundle.graph_path(member, graph, "fp32")

        images = run(path("image_encoder"), {"regions": given.regions})
        texts = {"token_ids": given.token_ids, "lengths": given.lengths}
        encoded = images | run(path("text_encoder"), texts) | {"lengths": given.lengths}
        matrices[member] = run(path("scorer"), encoded)["logits"]
        image, caption = np.indices((IMAGES, CAPTIONS), dtype=np.int32).reshape(2, -1)
        index = {"image_index": image, "caption_index": caption}
        found = run(path("pair_scorer"), encoded | index)["logits"]
        pairs[member] = found.reshape(IMAGES, CAPTIONS)
    return [ensemble_logits(matrices), ensemble_logits(pairs)]


def by_combined(run: Run, given: Given) -> list[Matrix]:
    """The ensemble from its one graph, whose similarities are those of its logits."""
    found = run(given.bundle.combined_path("fp32"), given.inputs)
    np.testing.assert_allclose(found["similarities"], 1 / (1 + np.exp(-found["logits"])), atol=1e-5)
    return [found["logits"]]


def by_example(program: Path, given: Given) -> list[Matrix]:
    """The C++ example's logits, caption by caption without padding; it ranks by them itself."""
    logits = np.empty_like(given.logits)
    for column, (ids, length) in enumerate(zip(given.token_ids, given.lengths, strict=True)):
        graph = given.bundle.combined_path("fp32")
        found = run_example(program, graph, given.file, ids[:length], IMAGES)
        logits[found.rows, column] = found.logits
        assert found.rows == ranking(logits)[:, column].tolist()
    return [logits]


def ranking(logits: Matrix) -> NDArray[np.int64]:
    """The images (images, captions) of every caption, the best first."""
    return np.argsort(-logits, axis=0, kind="stable")


def compared(matrices: list[Matrix], given: Given) -> Found:
    """The worst of some matrices beside the yardstick."""
    for matrix in matrices:
        assert matrix.shape == given.logits.shape
        assert np.isfinite(matrix).all()
    difference = max(float(np.abs(matrix - given.logits).max()) for matrix in matrices)
    ranks = all((ranking(matrix) == ranking(given.logits)).all() for matrix in matrices)
    return Found(difference, ranks)


def test_every_program_gives_the_same_logits_and_ranks(
    given: Given,
    example: Callable[[str], Path],
    node_modules: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs: Mapping[str, Run] = {
        "ONNX Runtime, Python": run_onnxruntime,
        "OpenVINO, Python": run_openvino,
        "ONNX Runtime, WebAssembly": run_in_node(node_modules, tmp_path),
    }
    examples = {"ONNX Runtime, C++": "onnxruntime", "OpenVINO, C++": "openvino"}
    found: dict[Program, Found] = {}
    for program in PROGRAMS:
        if program.why_not is not None:
            continue
        if program.name in examples:
            matrices = by_example(example(examples[program.name]), given)
        elif program.graphs == "combined":
            matrices = by_combined(runs[program.name], given)
        else:
            matrices = by_members(runs[program.name], given)
        found[program] = compared(matrices, given)

    lines = table(found)
    (tmp_path / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines, ""]))
    assert len(found) >= 8
    assert {program: one for program, one in found.items() if one.difference > MOST} == {}
    assert [program for program, one in found.items() if not one.ranks] == []


@pytest.mark.parametrize("fixed", [False, True])
def test_openvino_minds_lengths(fixed: bool, given: Given) -> None:
    """It ignores a GRU's where the captions' axes are open: no graph relies on those."""
    matrices = by_combined(partial(run_openvino, fixed=fixed), given)
    assert compared(matrices, given).difference <= MOST


def test_tensorrt_for_rtx_parses_and_builds_every_graph(demo: Bundle) -> None:
    tensorrt = find_tensorrt()
    assert tensorrt.flavour == RTX
    sizes = Sizes(images=16, captions=8, words=20, candidates=100)
    builds = list_builds(demo, CompileOptions("fp32", sizes=sizes))
    signature = demo.manifest.combined["fp32"].signature
    chosen = uses("scorer", sizes)
    profiles = tuple(profile(signature, use) for use in chosen)
    graph = cast("GraphName", "combined")  # no member's graph, and built for other programs alone
    path = demo.combined_path("fp32")
    combined = Build("all", graph, path, chosen, profiles, (0,) * len(chosen))

    assert len(builds) == 8
    for build in (*builds, combined):
        plan, layers = build_plan(build.onnx.read_bytes(), build, tensorrt, GIB)
        assert len(plan) > 10_000
        assert set(layers) == {"FLOAT"}
