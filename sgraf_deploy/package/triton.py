"""A model repository for Triton Inference Server: one model for every member's graph.

    MEMBER_GRAPH/config.pbtxt      names, types and shapes of the graph, and how Triton runs it
    MEMBER_GRAPH/1/model.onnx      the graph (backend onnxruntime), or
    MEMBER_GRAPH/1/model.plan      the plan that was compiled of it (backend tensorrt)
    combined/…                     the same of the graph of all members, if the bundle has it
    contents.json                  every file with its hash

No Triton has run these repositories: the configurations are checked against the graphs alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import GraphFile
from sgraf_deploy.config import COMBINED, GRAPHS, GraphName, GraphSignature, Precision, TensorSpec
from sgraf_deploy.engines.policy import default_precision
from sgraf_deploy.engines.trt.plan_list import list_plans
from sgraf_deploy.engines.trt.plans import Sidecar, largest_sizes, load_plan, plan_folder
from sgraf_deploy.errors import BundleError
from sgraf_deploy.package.contents import Contents, read_contents, staged_package

Platform = Literal["onnxruntime", "tensorrt"]

TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "int32": "TYPE_INT32"}
"""Triton's names of the types of inputs and outputs."""

COMPILE = "compile it with TensorRT, on the server's kind of GPU: `sgraf-deploy compile`"


@dataclass(frozen=True)
class TritonOptions:
    """Which graphs Triton runs, and on what.

    `precision` is None for fp32 on ONNX Runtime, and for what engine trt prefers on TensorRT, whose
    plans lie in `engine_dir` or, if that is None, in the bundle. `allow_unverified` takes plans
    that this program did not compare with the reference here; Triton cannot do that either.
    """

    platform: Platform = "onnxruntime"
    precision: Precision | None = None
    engine_dir: Path | None = None
    allow_unverified: bool = False
    force: bool = False


@dataclass(frozen=True)
class _Model:
    """One model of the repository: its file, and what its configuration says."""

    name: str
    file: str
    content: bytes
    signature: GraphSignature
    about: tuple[str, ...]
    """Sentences for the comment at the top."""
    instances: tuple[str, ...]
    """The fields of the instance group."""


def model_name(member: str, graph: GraphName) -> str:
    """The name of a member's graph in a repository; that of all members is called COMBINED."""
    return f"{member}_{graph}"


def write_repository(bundle: Bundle, target: Path, options: TritonOptions) -> Contents:
    """Write the model repository for a bundle into the folder `target`.

    Raises BundleError for a precision that the bundle lacks, and for a plan that is missing,
    damaged, of TensorRT for RTX, or was not verified; GateError for a graph whose inputs or outputs
    are not those of the manifest; and what `staged_package` raises.

    Example:
        >>> contents = write_repository(bundle, Path("repository"), TritonOptions())
        >>> (Path("repository") / "sgr_scorer" / "1" / "model.onnx").exists()
        True
    """
    with staged_package(target, "triton", bundle, force=options.force) as package:
        for model in _models(bundle, options):
            package.put(f"{model.name}/1/{model.file}", model.content)
            package.put(f"{model.name}/config.pbtxt", _config(model, options.platform))
    return read_contents(target)


def _models(bundle: Bundle, options: TritonOptions) -> Iterator[_Model]:
    manifest = bundle.manifest
    precision = options.precision or _precision(bundle, options.platform)
    for member in manifest.members:
        for graph in GRAPHS:
            if options.platform == "tensorrt":
                yield _plan_model(bundle, member, graph, precision, options)
            else:
                file = bundle.graph(member, graph, precision)
                about = f"The graph {graph} of member {member}"
                yield _onnx_model(bundle, model_name(member, graph), file, f"{about}, {precision}")
    # No plan is compiled of the combined graph.
    if options.platform == "onnxruntime" and precision in manifest.combined:
        about = f"All members in one graph, {precision}"
        yield _onnx_model(bundle, COMBINED, manifest.combined[precision], about)


def _precision(bundle: Bundle, platform: Platform) -> Precision:
    if platform == "onnxruntime":
        return "fp32"
    return default_precision("trt", bundle.manifest.precisions) or "fp16"


def _onnx_model(bundle: Bundle, name: str, file: GraphFile, about: str) -> _Model:
    import onnx

    from sgraf_deploy.gate.graphs import check_interface

    content = bundle.file(file.ref).read_bytes()
    check_interface(onnx.ModelProto.FromString(content), file.signature, name)
    comment = (
        f"{about}, of bundle {bundle.sha256[:16]}.",
        "KIND_AUTO takes the GPUs that Triton sees, or else the CPU; KIND_CPU keeps it there.",
    )
    return _Model(
        name, "model.onnx", content, file.signature, comment, ("kind: KIND_AUTO", "count: 1")
    )


def _plan_model(
    bundle: Bundle, member: str, graph: GraphName, precision: Precision, options: TritonOptions
) -> _Model:
    file = bundle.graph(member, graph, precision)
    expected = {
        "member": member,
        "precision": precision,
        "graph": graph,
        "onnx_sha256": file.ref.sha256,
        "flavour": "tensorrt",
    }
    folder = plan_folder(bundle, options.engine_dir)
    try:
        sidecar, content = load_plan(folder, expected, lambda _: True)  # It is copied, not opened.
    except BundleError as error:
        raise BundleError(
            error.what, expected=error.expected, got=error.got, hint=COMPILE
        ) from error
    if not options.allow_unverified:
        _check_verified(bundle, sidecar, folder, options.engine_dir)
    about = (
        f"The plan of graph {graph} of member {member}, {precision}, of bundle "
        f"{bundle.sha256[:16]}.",
        f"TensorRT {sidecar.version} built it for GPUs of compute capability "
        f"{', '.join(sidecar.compute_capabilities)}; no other opens it.",
        *_profiles(file.signature, sidecar),
    )
    profiles = ", ".join(f'"{row}"' for row in range(len(sidecar.profiles)))
    group = ("kind: KIND_GPU", "count: 1", f"profile: [ {profiles} ]")
    name = model_name(member, graph)
    return _Model(name, "model.plan", content, file.signature, about, group)


def _check_verified(
    bundle: Bundle, sidecar: Sidecar, folder: Path, engine_dir: Path | None
) -> None:
    """Raise BundleError unless this user compared the plan with the reference on a GPU here."""
    listed = {each.name: each.state for each in list_plans(bundle, engine_dir)}
    state = listed[sidecar.name]
    if state != "verified":
        raise BundleError(
            f"plan {folder / sidecar.plan}",
            expected="one that was compared with the reference by this user on this GPU",
            got=state,
            hint="if you trust who built it, take it with --allow-unverified: Triton runs it as "
            "it is",
        )


def _profiles(signature: GraphSignature, sidecar: Sidecar) -> Iterator[str]:
    """A sentence for every profile, with its largest sizes."""
    for row, sizes in enumerate(largest_sizes(signature, sidecar)):
        largest = ", ".join(f"{axis} ≤ {size:,}" for axis, size in sizes.items())
        yield f"Profile {row}: {largest}."


def _config(model: _Model, platform: Platform) -> str:
    """The text of `config.pbtxt`: Triton's ModelConfig in protobuf's text format."""
    lines = [f"# {sentence}" for sentence in model.about]
    lines += [
        f'name: "{model.name}"',
        f'backend: "{platform}"',
        f'default_model_filename: "{model.file}"',
        "# 0: the graph has other batch axes than one first axis that all inputs share.",
        "max_batch_size: 0",
    ]
    for field, specs in (("input", model.signature.inputs), ("output", model.signature.outputs)):
        lines += [line for spec in specs for line in _tensor(field, spec)]
    lines += ["instance_group {", *(f"  {field}" for field in model.instances), "}"]
    return "\n".join(lines) + "\n"


def _tensor(field: str, spec: TensorSpec) -> Iterator[str]:
    """An input or an output, whose axes of any size are -1 and are named in a comment."""
    dims = ", ".join("-1" if isinstance(axis, str) else str(axis) for axis in spec.axes)
    yield f"{field} {{"
    yield f'  name: "{spec.name}"'
    yield f"  data_type: {TYPES[spec.dtype]}"
    yield f"  dims: [ {dims} ]  # {', '.join(map(str, spec.axes))}"
    yield "}"
