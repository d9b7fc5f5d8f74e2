"""Triton's model repository, compared with the graphs; no Triton has run it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from support.refusals import naming, refused
from support.sidecars import PLAN, SIDECAR
from support.triton_config import parse

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.compile.profiles import Sizes, profile, uses
from sgraf_deploy.config import GRAPHS, GraphName, Precision
from sgraf_deploy.engines.trt.plan_list import Listed
from sgraf_deploy.engines.trt.plans import Sidecar, plan_folder, write_plan
from sgraf_deploy.errors import BundleError, GateError, InputError
from sgraf_deploy.files.folders import list_files
from sgraf_deploy.package import triton
from sgraf_deploy.package.contents import CONTENTS
from sgraf_deploy.package.triton import TritonOptions, write_repository

TYPES = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.INT32: "TYPE_INT32",
}
SIZES = Sizes(images=4, captions=3, words=20, candidates=7)


def tensors(values: Any) -> list[tuple[str, str, list[int]]]:
    """Name, Triton's type and dims of a graph's inputs or outputs, read from the ONNX file."""
    return [
        (
            value.name,
            TYPES[value.type.tensor_type.elem_type],
            [-1 if axis.dim_param else axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


def configured(config: Any, field: str) -> list[tuple[str, str, list[int]]]:
    """The same as a configuration says it."""
    found = []
    for tensor in getattr(config, field):
        number = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
        found.append((tensor.name, number[tensor.data_type].name, list(tensor.dims)))
    return found


def models(folder: Path) -> Iterator[tuple[Path, Any]]:
    """The folder and the configuration of every model."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield path, parse((path / "config.pbtxt").read_text(encoding="utf-8"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_graph_is_a_model_with_its_own_interface(
    exported: Bundle, tmp_path: Path, precision: Precision
) -> None:
    target = tmp_path / "repository"

    contents = write_repository(exported, target, TritonOptions(precision=precision))

    found = dict(models(target))
    expected = {f"{member}_{graph}" for member in ("sgr", "saf") for graph in GRAPHS}
    assert {path.name for path in found} == expected
    assert sorted([CONTENTS, *(ref.file for ref in contents.files)]) == list_files(target)
    for path, config in found.items():
        assert config.name == path.name
        assert (config.backend, config.platform) == ("onnxruntime", "")
        assert config.default_model_filename == "model.onnx"
        assert config.max_batch_size == 0
        graph = onnx.load(path / "1" / "model.onnx").graph
        assert configured(config, "input") == tensors(graph.input)
        assert configured(config, "output") == tensors(graph.output)
        assert len(graph.input) >= 1
        (group,) = config.instance_group
        assert (group.kind, group.count, list(group.profile)) == (0, 1, [])
        member, _, name = path.name.partition("_")
        original = exported.graph_path(member, name, precision)  # type: ignore[arg-type]
        assert (path / "1" / "model.onnx").read_bytes() == original.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_all_members_in_one_graph_are_a_model(
    combined: Bundle, tmp_path: Path, precision: Precision
) -> None:
    write_repository(combined, tmp_path / "repository", TritonOptions(precision=precision))

    found = {path.name: (path, config) for path, config in models(tmp_path / "repository")}
    assert {name.partition("_")[0] for name in found} == {"sgr", "sgr-2", "saf", "combined"}
    path, config = found["combined"]
    content = (path / "1" / "model.onnx").read_bytes()
    assert content == combined.combined_path(precision).read_bytes()
    graph = onnx.ModelProto.FromString(content).graph
    assert configured(config, "input") == tensors(graph.input)
    assert configured(config, "output") == tensors(graph.output)
    assert [name for name, *_ in tensors(graph.output)] == ["logits", "similarities"]


def test_members_of_one_module_have_names_of_their_own(three: Bundle, tmp_path: Path) -> None:
    write_repository(three, tmp_path / "repository", TritonOptions())

    names = {path.name.partition("_")[0] for path, _ in models(tmp_path / "repository")}
    assert names == {"sgr", "sgr-2", "saf"}


def test_no_plan_is_compiled_of_all_members(combined: Bundle, tmp_path: Path) -> None:
    sidecars = plans(combined, tmp_path / "plans")

    write_repository(combined, tmp_path / "repository", tensorrt(tmp_path / "plans"))

    assert {path.name for path, _ in models(tmp_path / "repository")} == set(sidecars)


def test_the_parser_is_as_strict_as_tritons() -> None:
    for wrong in ("names: 'a'", "max_batch_size: many", "input { data_type: FP32 }", "input {"):
        with pytest.raises(text_format.ParseError):
            parse(wrong)


def plans(bundle: Bundle, engine_dir: Path, **changes: Any) -> dict[str, Sidecar]:
    """A plan for every fp16 graph of a bundle, which no TensorRT has built."""
    written = {}
    for member in bundle.manifest.members:
        for graph in GRAPHS:
            file = bundle.graph(member, graph, "fp16")
            content = PLAN + f"{member} {graph}".encode()
            sidecar = replace(
                SIDECAR,
                member=member,
                graph=graph,
                onnx_sha256=file.ref.sha256,
                plan_sha256=hashlib.sha256(content).hexdigest(),
                plan_bytes=len(content),
                flavour="tensorrt",
                profiles=tuple(profile(file.signature, use) for use in uses(graph, SIZES)),
            )
            sidecar = replace(sidecar, **changes)
            write_plan(plan_folder(bundle, engine_dir), content, sidecar)
            written[f"{member}_{graph}"] = sidecar
    return written


def tensorrt(engine_dir: Path, *, allow: bool = True) -> TritonOptions:
    return TritonOptions("tensorrt", engine_dir=engine_dir, allow_unverified=allow)


def test_plans_are_models_with_all_of_their_profiles(exported: Bundle, tmp_path: Path) -> None:
    sidecars = plans(exported, tmp_path / "plans")

    write_repository(exported, tmp_path / "repository", tensorrt(tmp_path / "plans"))

    found = dict(models(tmp_path / "repository"))
    assert {path.name for path in found} == set(sidecars)
    for path, config in found.items():
        sidecar = sidecars[path.name]
        assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
        (group,) = config.instance_group
        assert (group.kind, group.count) == (1, 1)
        assert list(group.profile) == [str(row) for row in range(len(sidecar.profiles))]
        graph = onnx.load(exported.graph_path(sidecar.member, sidecar.graph, "fp16")).graph
        assert configured(config, "input") == tensors(graph.input)
        assert configured(config, "output") == tensors(graph.output)
        content = (path / "1" / "model.plan").read_bytes()
        assert hashlib.sha256(content).hexdigest() == sidecar.plan_sha256
        text = (path / "config.pbtxt").read_text(encoding="utf-8")
        assert sidecar.version in text
        assert "words ≤ 20" in text or sidecar.graph == "image_encoder"


def test_plans_that_were_verified_here_need_no_permission(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecars = plans(exported, tmp_path / "plans").values()
    verified = [Listed(sidecar.name, "verified", sidecar) for sidecar in sidecars]
    monkeypatch.setattr(triton, "list_plans", lambda *_: verified)

    options = tensorrt(tmp_path / "plans", allow=False)
    contents = write_repository(exported, tmp_path / "repository", options)

    assert len(contents.files) == 2 * len(verified)


def test_plans_that_nobody_compared_are_refused(exported: Bundle, tmp_path: Path) -> None:
    plans(exported, tmp_path / "plans")

    with refused(BundleError, expected=naming(), got=naming(), hint="--allow-unverified"):
        options = tensorrt(tmp_path / "plans", allow=False)
        write_repository(exported, tmp_path / "repository", options)
    assert not (tmp_path / "repository").exists()


def test_plans_of_tensorrt_for_rtx_are_refused(exported: Bundle, tmp_path: Path) -> None:
    plans(exported, tmp_path / "plans", flavour="tensorrt-rtx")

    with refused(
        BundleError, "flavour", expected="tensorrt", got="tensorrt-rtx", hint="sgraf-deploy compile"
    ):
        write_repository(exported, tmp_path / "repository", tensorrt(tmp_path / "plans"))


def test_plans_of_other_graphs_are_refused(exported: Bundle, tmp_path: Path) -> None:
    plans(exported, tmp_path / "plans", onnx_sha256="cd" * 32)

    with refused(BundleError, "onnx sha256", got="cd" * 32, hint="sgraf-deploy compile"):
        write_repository(exported, tmp_path / "repository", tensorrt(tmp_path / "plans"))


def test_missing_plans_are_named(exported: Bundle, tmp_path: Path) -> None:
    sidecar = plan_folder(exported, tmp_path) / "sgr-fp16-image_encoder.json"
    with refused(BundleError, sidecar, hint="sgraf-deploy compile"):
        write_repository(exported, tmp_path / "repository", tensorrt(tmp_path))


def test_a_precision_that_the_bundle_lacks_is_refused(three: Bundle, tmp_path: Path) -> None:
    with refused(BundleError, "fp16", expected="fp32", got="fp16", hint="--precision fp32"):
        write_repository(three, tmp_path / "repository", TritonOptions(precision="fp16"))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_with_another_interface_than_the_manifests_is_refused(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Bundle.graph

    def renamed(self: Bundle, member: str, name: GraphName, precision: Precision) -> Any:
        found = graph(self, member, name, precision)
        if name != "pair_scorer":
            return found
        first, *others = found.signature.inputs
        inputs = (replace(first, name="images"), *others)
        return replace(found, signature=replace(found.signature, inputs=inputs))

    monkeypatch.setattr(Bundle, "graph", renamed)
    with refused(GateError, "sgr_pair_scorer", "inputs", expected=naming("images")):
        write_repository(exported, tmp_path / "repository", TritonOptions())
    assert not (tmp_path / "repository").exists()


def test_a_page_is_not_replaced_by_a_repository(exported: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "repository"
    write_repository(exported, target, TritonOptions())
    listed = (target / CONTENTS).read_text(encoding="utf-8")
    (target / CONTENTS).write_text(listed.replace('"triton"', '"web"'))

    with refused(InputError, target, expected="triton", got="web"):
        write_repository(exported, target, TritonOptions(force=True))
