"""Every engine refuses the same inputs of its graphs, on a GPU as on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_cuda import FakeCuda
from support.fake_onnxruntime import FakeOnnxRuntime
from support.refusals import holds, naming, refused
from support.trt_world import TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS, GraphName, GraphSignature, signature
from sgraf_deploy.engines.base import Engine, Graph
from sgraf_deploy.engines.buffers import InputCheck
from sgraf_deploy.engines.ort_cuda import OrtCudaEngine
from sgraf_deploy.engines.registry import open_engine
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import EngineOptions

Inputs = dict[str, Any]

SIZES = {"images": 3, "captions": 2, "words": 4, "pairs": 2}
ON_THE_CPU = ("native", "ort", "torch", "torch-reference", "fused")
ON_A_FAKE_GPU = ("trt", "ort-cuda")


@pytest.fixture(scope="module", params=[*ON_THE_CPU, *ON_A_FAKE_GPU])
def engine(
    request: pytest.FixtureRequest, exported: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with closing(opened(request.param, exported, tmp_path_factory.mktemp("engines"))) as found:
        assert found.name == request.param
        yield found


def opened(name: str, bundle: Bundle, folder: Path) -> Engine:
    if name == "trt":
        world = TrtWorld(bundle, folder)
        world.build("fp32", verified=False)
        return world.engine("fp32", allow_unverified=True)
    if name == "ort-cuda":
        cuda = FakeCuda()
        module = FakeOnnxRuntime(cuda)
        return OrtCudaEngine(bundle, "fp32", EngineOptions(), onnxruntime=module, cuda=cuda)
    return open_engine(name, bundle, "fp32", EngineOptions(device="cpu"))


def inputs_of(spec: GraphSignature) -> Inputs:
    """Arrays that a graph takes, in the sizes above."""
    rng = np.random.default_rng(0)
    found: Inputs = {}
    for each in spec.inputs:
        shape = tuple(axis if isinstance(axis, int) else SIZES[axis] for axis in each.axes)
        found[each.name] = rng.normal(size=shape).astype(np.float32)
        if each.dtype == "int32":
            found[each.name] = np.ones(shape, np.int32)
    return found


def narrower(array: Any) -> Any:
    return np.ascontiguousarray(array[..., :-1])


def wider(array: Any) -> Any:
    return np.concatenate([array, array[-1:]])


Change = Callable[[Any], Any]
REFUSED: dict[str, tuple[GraphName, str, Change]] = {
    "a rank too few": ("image_encoder", "regions", lambda x: x[0]),
    "a rank too many": ("image_encoder", "regions", lambda x: x[None]),
    "no rank": ("scorer", "lengths", lambda x: np.array(3, np.int32)),
    "float64": ("image_encoder", "regions", lambda x: x.astype(np.float64)),
    "float16": ("scorer", "word_embeddings", lambda x: x.astype(np.float16)),
    "int64": ("scorer", "lengths", lambda x: x.astype(np.int64)),
    "ids as floats": ("text_encoder", "token_ids", lambda x: x.astype(np.float32)),
    "a fixed axis": ("image_encoder", "regions", narrower),
    "fewer regions": ("scorer", "region_embeddings", lambda x: np.ascontiguousarray(x[:, :-1])),
    "more images": ("scorer", "image_global", wider),
    "more captions": ("scorer", "text_global", wider),
    "more lengths": ("text_encoder", "lengths", wider),
    "more pairs": ("pair_scorer", "caption_index", wider),
    "missing": ("scorer", "text_global", lambda x: None),
    "no words": ("scorer", "lengths", lambda x: x * 0),
    "longer than the words": ("scorer", "lengths", lambda x: x * 5),
    "longer than the ids": ("text_encoder", "lengths", lambda x: x * 5),
    "an image that is not there": ("pair_scorer", "image_index", lambda x: x * 3),
    "a caption that is not there": ("pair_scorer", "caption_index", lambda x: x * 2),
    "a caption before the first": ("pair_scorer", "caption_index", lambda x: -x),
}


@pytest.mark.parametrize(("graph", "name", "change"), REFUSED.values(), ids=REFUSED)
def test_unfit_inputs_are_refused(
    engine: Engine, graph: GraphName, name: str, change: Change
) -> None:
    found = engine.open("sgr", graph)
    arrays = inputs_of(found.signature)
    arrays[name] = change(arrays[name])
    given = {key: engine.put(array) for key, array in arrays.items() if array is not None}
    with refused(InputError, name, expected=naming(), got=naming()):
        found.run(given)


@pytest.mark.parametrize("graph", ["image_encoder", "text_encoder", "scorer", "pair_scorer"])
def test_what_fits_is_run(engine: Engine, graph: GraphName) -> None:
    found = engine.open("sgr", graph)
    given = {key: engine.put(array) for key, array in inputs_of(found.signature).items()}
    results = found.run(given)
    for spec in found.signature.outputs:
        shape = tuple(axis if isinstance(axis, int) else SIZES[axis] for axis in spec.axes)
        assert engine.fetch(results[spec.name]).shape == shape


@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph_is_run_through_the_one_check(engine: Engine, name: GraphName) -> None:
    graph = engine.open("sgr", name)
    assert isinstance(graph, Graph)
    assert type(graph).run is Graph.run


def test_an_unknown_input_is_refused(engine: Engine) -> None:
    found = engine.open("sgr", "image_encoder")
    given = {key: engine.put(array) for key, array in inputs_of(found.signature).items()}
    with refused(InputError, expected="regions", got=naming("more")):
        found.run(given | {"more": given["regions"]})


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("image_global", (4, 1), np.float32),
        ("image_global", (2, 1), np.float32),
        ("image_global", (1,), np.float32),
        ("image_global", (3, 1), np.float16),
        ("more", (3, 1), np.float32),
    ],
    ids=["more-rows", "fewer-rows", "rank", "dtype", "unknown"],
)
def test_unfit_outputs_are_refused(
    engine: Engine, name: str, shape: tuple[int, ...], dtype: Any
) -> None:
    """Torch would repeat what it copies, and a GPU write past the end."""
    found = engine.open("sgr", "image_encoder")
    given = {key: engine.put(array) for key, array in inputs_of(found.signature).items()}
    embed = found.signature.outputs[1].axes[1]
    assert isinstance(embed, int)
    room = engine.empty((*shape[:-1], embed * shape[-1]), np.dtype(dtype))
    with refused(InputError, expected=naming(), got=naming()) as caught:
        found.run(given, {name: room})
    assert holds(caught.error.reason, name)


@pytest.mark.parametrize("name", ["native", "ort"])
@pytest.mark.parametrize("layout", ["transposed", "reversed", "shifted"])
def test_arrays_of_the_host_are_contiguous(exported: Bundle, name: str, layout: str) -> None:
    engine = open_engine(name, exported, "fp32", EngineOptions())
    graph = engine.open("sgr", "scorer")
    inputs = inputs_of(graph.signature)
    whole = inputs["image_global"]
    memory = np.zeros(whole.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(whole.shape)
    inputs["image_global"] = {
        "transposed": np.asfortranarray(whole),
        "reversed": whole[::-1],
        "shifted": memory,
    }[layout]
    with refused(InputError, "image_global", got=naming(whole.shape)):
        graph.run(inputs)


def test_a_view_of_lengths_on_a_gpu_is_not_judged_by_the_rest(
    exported: Bundle, tmp_path: Path
) -> None:
    """What the host knows is of the whole array; a part of it may well be in range."""
    engine = opened("ort-cuda", exported, tmp_path)
    graph = engine.open("sgr", "text_encoder")
    lengths = engine.put(np.array([1, 2, 99], np.int32))
    ids = engine.put(np.ones((2, 4), np.int32))
    found = graph.run({"token_ids": ids, "lengths": engine.gather(lengths, slice(0, 2))})
    assert engine.fetch(found["text_global"]).shape[0] == 2


def test_no_rows_have_no_extremes(exported: Bundle) -> None:
    config = replace(exported.manifest.members["sgr"].config)
    check = InputCheck(signature("pair_scorer", config, "fp32"))
    inputs = inputs_of(signature("pair_scorer", config, "fp32"))
    inputs |= {name: inputs[name][:0] for name in ("image_index", "caption_index")}
    assert check.inputs(inputs) == {**SIZES, "pairs": 0}
