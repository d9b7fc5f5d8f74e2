"""What TensorRT is given: float16 products that sum in float32, and the count of them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, parser
from support.closeness import assert_close, half_depth
from support.loops import all_of
from support.random_weights import random_weights
from support.small_models import VARIANTS, padded, random_captions, random_regions

from sgraf_deploy.bench.random_model import model_config
from sgraf_deploy.compile.accumulation import SUMS_IN_FP32, count_products, sum_in_fp32
from sgraf_deploy.compile.build import Build, build_plan, check_precision
from sgraf_deploy.compile.profiles import GIB, Sizes, profile, uses
from sgraf_deploy.config import GRAPHS, MODULES, PRECISIONS, GraphName, Module, Precision, signature
from sgraf_deploy.engines.trt.library import TensorRT, find_tensorrt
from sgraf_deploy.errors import GateError, UnavailableError
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.gate.executors import open_graph
from sgraf_deploy.model.folding import fold

SOME = ("sgr", "saf", "saf-2-layers", "sgr-odd-sizes")

DEFAULT_SUM = 0
"""How a plan of TensorRT for RTX 1.7 describes a product whose accumulator the builder chooses."""


@pytest.fixture(scope="session")
def tensorrt() -> TensorRT:
    try:
        return find_tensorrt()
    except UnavailableError as error:
        pytest.skip(f"needs a TensorRT that builds: {error}")


def built(variant: str, graph: GraphName, precision: Precision) -> onnx.ModelProto:
    config = VARIANTS[variant]
    return build_graph(fold(config, random_weights(config, 3)), graph, precision)


def kinds_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def products(model: onnx.ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == "MatMul"]


def readers(model: onnx.ModelProto, value: str) -> list[str]:
    return [node.op_type for node in model.graph.node if value in node.input]


@all_of(SOME, GRAPHS, PRECISIONS)
def test_every_half_product_stands_between_casts_of_its_own(
    variant: str, graph: GraphName, precision: Precision
) -> None:
    model = built(variant, graph, precision)
    before = model.SerializeToString()

    changed = sum_in_fp32(model)

    assert model.SerializeToString() == before
    onnx.checker.check_model(changed, full_check=True)
    kinds, makers = kinds_of(changed), {n.output[0]: n for n in changed.graph.node}
    half = [node.output[0] for node in products(model) if is_half(model, node)]
    for name in half:
        back = makers[name]
        (total,) = back.input
        operands = makers[total].input
        casts = [makers[value] for value in operands]
        assert [node.op_type for node in (back, makers[total], *casts)] == [
            *("Cast", "MatMul", "Cast", "Cast")
        ]
        assert kinds[name] == TensorProto.FLOAT16
        assert {kinds[value] for value in (total, *operands)} == {TensorProto.FLOAT}
        assert {kinds[cast.input[0]] for cast in casts} == {TensorProto.FLOAT16}
        # Shared casts are not fused, and it would be a product in float32.
        assert all(len(readers(changed, value)) == 1 for value in (total, *operands))
    assert len(changed.graph.node) == len(model.graph.node) + 3 * len(half)
    assert (len(half) > 0) == (precision != "fp32")


def is_half(model: onnx.ModelProto, node: NodeProto) -> bool:
    return {kinds_of(model)[value] for value in node.input} == {TensorProto.FLOAT16} and not any(
        value.startswith("dequantizelinear") for value in node.input
    )


@pytest.mark.parametrize("variant", ["sgr", "saf"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_values_are_those_of_the_graph(variant: str, graph: GraphName, tmp_path: Path) -> None:
    config = VARIANTS[variant]
    model = built(variant, graph, "fp16")
    found = []
    for each in (model, sum_in_fp32(model)):
        onnx.save(each, path := tmp_path / "graph.onnx")
        arrays = random_arrays(variant)
        inputs = {
            spec.name: arrays[spec.name].astype(spec.dtype)
            for spec in signature(graph, config, "fp16").inputs
        }
        found.append(open_graph(path, "fp16")(inputs))
    for name, values in found[0].items():
        assert_close(found[1][name], values, half_depth(config), np.float16)


def random_arrays(variant: str) -> dict[str, Any]:
    """Inputs of every graph."""
    config = VARIANTS[variant]
    regions = random_regions(config, 3)
    token_ids, lengths = padded(random_captions(config))
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> Any:
        values = rng.normal(size=shape)
        return values / np.linalg.norm(values, axis=-1, keepdims=True)

    captions, words = token_ids.shape
    return {
        "regions": regions,
        "token_ids": token_ids,
        "lengths": lengths,
        "region_embeddings": unit(len(regions), config.regions, config.embed),
        "image_global": unit(len(regions), config.embed),
        "word_embeddings": unit(captions, words, config.embed),
        "text_global": unit(captions, config.embed),
        "image_index": rng.integers(0, len(regions), 5),
        "caption_index": rng.integers(0, captions, 5),
    }


CAST_LEFT = "wide = Cast <to = 1> (a)\n"
CAST_RIGHT = "other = Cast <to = 1> (b)\n"
SUM = "sum = MatMul (wide, other)\n"
CAST_BACK = "c = Cast <to = 10> (sum)\n"
CAST_AROUND = CAST_LEFT + CAST_RIGHT + SUM + CAST_BACK
TURNED = "t = Cast <to = 1> (b)\n other = Transpose <perm = [1, 0]> (t)\n"

NETWORKS = {
    "as-it-should-be": (CAST_AROUND, {SUMS_IN_FP32: 1}),
    "bare": ("c = MatMul (a, b)", {"HALF": 1}),
    "shared-cast": (CAST_AROUND + "d = Relu (wide)", {"FLOAT": 1}),
    "no-cast-back": (CAST_LEFT + CAST_RIGHT + SUM + "d = Relu (sum)", {"FLOAT": 1}),
    "read-twice": (CAST_AROUND + "d = Relu (sum)", {"FLOAT": 1}),
    "turned-between": (CAST_LEFT + TURNED + SUM + CAST_BACK, {SUMS_IN_FP32: 1}),
    "shape-read": (CAST_AROUND + "s = Shape (wide)\n n = Cast <to = 1> (s)", {SUMS_IN_FP32: 1}),
    "float": ("d = MatMul (x, x)", {"FLOAT": 1}),
    "one-operand": (CAST_LEFT + "d = MatMul (wide, x)", {"FLOAT": 1}),
}
"""By name the nodes, and what they count as."""


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_counted(tensorrt: TensorRT, name: str) -> None:
    """Only what TensorRT fuses counts as a product of float16: all else runs in float32."""
    nodes, counts = NETWORKS[name]
    results = {"c": "float16[8,8]", "d": "float[8,8]", "n": "float[2]"}
    outputs = ", ".join(f"{kind} {x}" for x, kind in results.items() if f"{x} = " in nodes)
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
      g (float16[8,8] a, float16[8,8] b, float[8,8] x) => ({outputs}) {{ {nodes} }}"""
    content = parser.parse_model(text).SerializeToString()
    trt, logger = tensorrt.module, tensorrt.logger()
    flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = trt.Builder(logger).create_network(flag)
    reader = trt.OnnxParser(network, logger)
    assert reader.parse(content), logger.lines

    assert count_products(trt, network) == counts


@pytest.mark.parametrize(
    ("precision", "layers", "right"),
    [
        ("fp16", {"FLOAT": 2, SUMS_IN_FP32: 3}, True),
        ("fp16", {"FLOAT": 2, "HALF": 3}, False),
        ("fp16", {"FLOAT": 2, "HALF": 1, SUMS_IN_FP32: 3}, False),
        ("fp16", {"FLOAT": 5}, False),
        ("fp32", {"FLOAT": 5}, True),
        ("fp32", {"HALF": 1}, False),
        ("fp32", {"FLOAT": 5, SUMS_IN_FP32: 1}, False),
        ("fp8", {"FLOAT": 2, "FP8": 1, SUMS_IN_FP32: 2}, True),
        ("fp8", {"FLOAT": 2, "FP8": 1, "HALF": 2}, False),
        ("fp8", {"FLOAT": 2, SUMS_IN_FP32: 3}, False),
    ],
)
def test_a_precision_that_was_not_reached_is_an_error(
    precision: Precision, layers: dict[str, int], right: bool
) -> None:
    one = build_of("scorer", VARIANTS["sgr"], precision)
    if right:
        check_precision(one, precision, layers)
    else:
        with pytest.raises(GateError) as caught:
            check_precision(one, precision, layers)
        assert str(layers) in str(caught.value.got)


def build_of(graph: GraphName, config: Any, precision: Precision) -> Build:
    chosen = uses(graph, Sizes())
    profiles = tuple(profile(signature(graph, config, precision), use) for use in chosen)
    return Build("sgr", graph, Path("a.onnx"), chosen, profiles, (0,) * len(chosen))


@pytest.mark.parametrize("module", MODULES)
def test_the_builder_fuses_the_casts_into_the_products(tensorrt: TensorRT, module: Module) -> None:
    """A plan of this version describes its products: operands, and what they are summed in."""
    if not tensorrt.version.startswith("1.7."):
        pytest.skip(f"nobody read a plan of {tensorrt}")
    config = model_config(module)
    model = build_graph(fold(config, random_weights(config, 1)), "pair_scorer", "fp16")
    one = build_of("pair_scorer", config, "fp16")

    plan, layers = build_plan(model.SerializeToString(), one, tensorrt, 8 * GIB)

    found = described_products(plan)
    half = {sum_kind: count for (kind, sum_kind), count in found.items() if kind == "half"}
    assert half
    assert DEFAULT_SUM not in half, "TensorRT chooses what it sums in"
    # Two products of the same operands may become one.
    assert sum(half.values()) > layers[SUMS_IN_FP32] / 2
    assert found["float", DEFAULT_SUM] == layers["FLOAT"], "no product fell back to float32"


def described_products(plan: bytes) -> Counter[tuple[str, int]]:
    """By operands' type and accumulator, the products of a plan."""
    kinds: dict[str, str] = {}
    found: Counter[tuple[str, int]] = Counter()
    tensor = r'tensor=\{[^\n]*?name="([^"]+)"[^\n]*? type=(\w+)'
    product = r'fully_connected=\{[^\n]*? input=\{"([^"]+)"[^\n]*? accumulation_type=(\d)'
    for match in re.finditer(f"{tensor}|{product}", plan.decode("latin-1")):
        name, kind, operand, accumulator = match.groups()
        if name is not None:
            kinds[name] = kind
        else:
            found[kinds[operand], int(accumulator)] += 1
    return found
