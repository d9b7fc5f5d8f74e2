"""The graph of all members: its interface, its values, its weights, and what the gate catches."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from support.closeness import assert_close, assert_similar, condition_of, half_depth, logits_depth
from support.loops import all_of
from support.random_weights import random_weights
from support.refusals import naming, refused
from support.sabotage import negate
from support.small_models import VARIANTS, padded, random_captions, random_regions

from sgraf_deploy.bundle.bundle import Bundle, hash_file, write_manifest
from sgraf_deploy.bundle.manifest import GraphFile, Manifest
from sgraf_deploy.config import (
    DEFAULT_PRECISIONS,
    GRAPHS,
    PRECISIONS,
    GraphSignature,
    ModelConfig,
    Precision,
    TensorSpec,
    combined_signature,
)
from sgraf_deploy.engines.ensemble import combine_logits, similarities
from sgraf_deploy.errors import BundleError, GateError
from sgraf_deploy.export.exporter import STEPS, ExportOptions, export_bundle
from sgraf_deploy.export.graphs import build_combined
from sgraf_deploy.export.onnx_ops import OnnxOps
from sgraf_deploy.export.verify import verify_bundle
from sgraf_deploy.gate.executors import EVALUATOR
from sgraf_deploy.gate.graphs import check_interface
from sgraf_deploy.model.combined import combine
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import FoldedWeights, fold
from sgraf_deploy.model.torch_ops import TorchOps
from sgraf_deploy.runtime import load

ENSEMBLES: dict[str, tuple[str, ...]] = {
    "one": ("saf",),
    "both": ("sgr", "saf"),
    "of-other-sizes": ("sgr", "sgr-2-steps", "saf-2-layers"),
}
"""Variants of members, by the name of the ensemble."""

LENGTHS = (3, 14, 1, 8, 5)

EXTREME = (0.0, 1e-8, 0.5, -1.0, 3.0, -18.5, 40.0, -90.0, 90.0, -1e4, 1e4)
"""Logits whose sigmoids and exponentials overflow or saturate in float32."""


def config_of(variant: str) -> ModelConfig:
    return VARIANTS[variant]


@cache
def members_of(ensemble: str) -> dict[str, FoldedWeights]:
    return {
        f"m{place}": fold(config_of(variant), random_weights(config_of(variant), place))
        for place, variant in enumerate(ENSEMBLES[ensemble])
    }


@cache
def built(ensemble: str, precision: Precision) -> onnx.ModelProto:
    return build_combined(members_of(ensemble), precision)


def inputs_of(ensemble: str, images: int = 3) -> dict[str, NDArray[Any]]:
    config = config_of(ENSEMBLES[ensemble][0])
    token_ids, lengths = padded(random_captions(config, LENGTHS), extra=2)
    return {
        "regions": random_regions(config, images),
        "token_ids": token_ids,
        "lengths": lengths,
    }


def member_logits(ensemble: str, inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    """The logits of every member's folded model in PyTorch."""
    regions, ids, lengths = (torch.from_numpy(array) for array in inputs.values())
    found = []
    for weights in members_of(ensemble).values():
        model = FoldedModel(weights, TorchOps("fp32", torch.device("cpu")))
        encoded = Encoded.of(
            model.image_encoder(regions), model.text_encoder(ids, lengths), lengths
        )
        found.append(model.scorer(encoded).numpy())
    return found


def run(model: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@all_of(ENSEMBLES, PRECISIONS)
def test_its_interface_is_the_same_in_every_precision(ensemble: str, precision: Precision) -> None:
    model = built(ensemble, precision)

    check_interface(model, combined_signature(config_of(ENSEMBLES[ensemble][0])), ensemble)

    onnx.checker.check_model(model, full_check=True)
    used = {value for node in model.graph.node for value in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    names = [node.name for node in model.graph.node]
    assert len(set(names) - {""}) == len(names) - names.count("")


@all_of(ENSEMBLES)
def test_it_gives_the_ensembles_logits_and_similarities(ensemble: str) -> None:
    inputs = inputs_of(ensemble)
    logits = member_logits(ensemble, inputs)
    expected = combine_logits(*logits)

    found = run(built(ensemble, "fp32"), inputs)

    configs = [config_of(variant) for variant in ENSEMBLES[ensemble]]
    depth = max(logits_depth(config, max(LENGTHS)) for config in configs)
    condition = max(condition_of(config) for config in configs)
    assert_close(found["logits"], expected, depth, condition=condition)
    assert_similar(found["similarities"], similarities(expected), depth, condition=condition)
    assert found["logits"].dtype == found["similarities"].dtype == np.float32


@all_of(ENSEMBLES)
def test_in_half_precision_it_computes_what_the_members_do(ensemble: str) -> None:
    """ONNX Runtime computes in float32 between roundings: this is about structure."""
    inputs = inputs_of(ensemble)
    expected = combine_logits(*member_logits(ensemble, inputs))

    found = run(built(ensemble, "fp16"), inputs)

    depth = max(half_depth(config_of(variant)) for variant in ENSEMBLES[ensemble])
    assert_close(found["logits"], expected, depth, np.float16)


def test_every_weight_bears_its_members_name() -> None:
    names = [tensor.name for tensor in built("both", "fp32").graph.initializer]
    weights = [name for name in names if name.endswith("weight")]

    assert {name.partition(".")[0] for name in weights} == {"m0", "m1"}
    assert sum(name.endswith("embedding.weight") for name in weights) == 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_ensembles_logit_neither_overflows_nor_cancels(count: int) -> None:
    rows = np.array(np.meshgrid(*[EXTREME] * count), dtype=np.float32).reshape(count, -1)
    exact = combine_logits(*rows)

    for found in (by_torch(rows), by_onnx(rows, evaluate=False), by_onnx(rows, evaluate=True)):
        logits, means = found
        np.testing.assert_allclose(logits, exact, rtol=1e-6, atol=1e-6 * count)
        np.testing.assert_allclose(means, similarities(exact), rtol=0, atol=1e-6)


def by_torch(rows: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
    ops = TorchOps("fp32", torch.device("cpu"))
    return [each.numpy() for each in combine(ops, [torch.from_numpy(row) for row in rows])]


def by_onnx(rows: NDArray[np.float32], *, evaluate: bool) -> Sequence[NDArray[np.float32]]:
    ops = OnnxOps("fp32")
    inputs = tuple(TensorSpec(f"x{row}", "float32", ("pairs",)) for row in range(len(rows)))
    # An input cannot be an output as well, which a single member's logits would be.
    values = [ops.mul(spec.name, ops.constant("one", np.ones((), np.float32))) for spec in inputs]
    outputs = tuple(TensorSpec(name, "float32", ("pairs",)) for name in ("logits", "similarities"))
    model = ops.model("combine", GraphSignature(inputs, outputs), [*combine(ops, values)])
    arrays = {spec.name: row for spec, row in zip(inputs, rows, strict=True)}
    if evaluate:
        with np.errstate(all="ignore"):  # in what its sigmoid then does not take
            found: Any = ReferenceEvaluator(model).run(None, arrays)
        return list(found)
    return list(run(model, arrays).values())


def test_a_bundle_has_one_in_every_precision(combined: Bundle) -> None:
    manifest = combined.manifest

    assert list(manifest.combined) == list(DEFAULT_PRECISIONS)
    for precision in DEFAULT_PRECISIONS:
        path = combined.combined_path(precision)
        assert path == combined.path / f"combined/{precision}/combined.onnx"
        report = manifest.parity["combined"][precision]
        for name in ("logits", "similarities"):
            assert 0 < report[name]["value"] <= 0.3 * report[name]["bound"]
        assert "combined 1×1+3" in report["shapes"]
    assert combined.verify_files() == ()
    assert verify_bundle(combined) == manifest.parity


def test_it_scores_as_the_scorer_does(combined: Bundle) -> None:
    config = next(iter(combined.manifest.members.values())).config
    regions, captions = random_regions(config, 4), random_captions(config, LENGTHS)
    ids, lengths = padded(captions)
    with load(combined, engine="ort") as scorer:
        expected = scorer.score(regions, captions)

    session = onnxruntime.InferenceSession(combined.combined_path("fp32"))
    inputs = {"regions": regions, "token_ids": ids, "lengths": lengths}
    (found,) = session.run(["similarities"], inputs)

    assert np.abs(found - expected).max() <= 1e-5


def test_in_fp8_it_is_held_to_what_rounds_alike(exported_fp8: Bundle) -> None:
    report = exported_fp8.manifest.parity["combined"]["fp8"]

    assert report["executor"] == EVALUATOR
    assert exported_fp8.manifest.combined["fp8"].opset == 19
    assert 0 < report["logits"]["value"] <= report["logits"]["bound"]


def test_without_it_a_bundle_says_how_to_have_it(exported: Bundle) -> None:
    assert exported.manifest.combined == {}
    assert "combined" not in exported.manifest.parity
    with refused(BundleError, exported.path, "fp32", hint="--combined"):
        exported.combined_path("fp32")


def test_its_step_follows_the_members(checkpoint_files: dict[str, Path], tmp_path: Path) -> None:
    told: list[str] = []
    options = ExportOptions(precisions=("fp32",), combined=True)

    made = export_bundle(
        [checkpoint_files["saf"]], tmp_path / "saf.sgraf", options, step=told.append
    )

    graphs, reference, gate, manifest = STEPS
    assert [step for step in told if step in {*STEPS, "combined"}] == [
        graphs,
        reference,
        "combined",
        gate,
        manifest,
    ]
    assert made.bundle.combined_path("fp32").is_file()


@pytest.mark.parametrize("weight", ["sgr.similarity.weight", "saf.image_encoder.projection.weight"])
def test_a_wrong_weight_of_any_member_is_caught(
    weight: str, combined: Bundle, tmp_path: Path
) -> None:
    bundle = edited(combined, tmp_path / "edited.sgraf", negate(weight))

    with refused(GateError, "combined", "fp32", hint=None):
        verify_bundle(bundle)


def test_another_interface_is_caught(combined: Bundle, tmp_path: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.output[1].type.tensor_type.shape.dim[0].dim_param = "pictures"

    bundle = edited(combined, tmp_path / "edited.sgraf", rename)

    with refused(GateError, "combined", "fp32", got=naming("pictures")):
        verify_bundle(bundle)


def test_similarities_of_their_own_are_caught(combined: Bundle, tmp_path: Path) -> None:
    bundle = edited(combined, tmp_path / "edited.sgraf", halve("one_over_members"))

    with refused(GateError, "combined", "fp32", "similarities"):
        verify_bundle(bundle)


def halve(name: str) -> Any:
    def edit(model: onnx.ModelProto) -> None:
        (tensor,) = (each for each in model.graph.initializer if each.name == name)
        array = onnx.numpy_helper.to_array(tensor) / 2
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))

    return edit


def edited(bundle: Bundle, folder: Path, edit: Any) -> Bundle:
    """A copy whose combined graph in fp32 is changed, and its hash with it."""
    shutil.copytree(bundle.path, folder)
    file = bundle.manifest.combined["fp32"]
    path = folder / file.ref.file
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    changed = GraphFile(hash_file(path, relative_to=folder), file.opset, file.signature)
    raw = Manifest(
        **{**vars(bundle.manifest), "combined": {**bundle.manifest.combined, "fp32": changed}}
    )
    write_manifest(folder, raw)
    return Bundle.open(folder)


def test_compiling_and_scoring_leave_it_alone(combined: Bundle) -> None:
    from sgraf_deploy.compile.build import CompileOptions, list_builds

    builds = list_builds(combined, CompileOptions(precision="fp32"))

    assert {(build.member, build.graph) for build in builds} == {
        (member, graph) for member in combined.manifest.members for graph in GRAPHS
    }
