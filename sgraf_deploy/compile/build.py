"""Compile a bundle's graphs to TensorRT engines: parse, profile, build."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx
from google.protobuf.message import DecodeError

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.compile.accumulation import SUMS_IN_FP32, count_products, sum_in_fp32
from sgraf_deploy.compile.profiles import GIB, Sizes, Use, check_scratch, profile, uses
from sgraf_deploy.config import GRAPHS, GraphName, Precision
from sgraf_deploy.engines.gpu import find_driver
from sgraf_deploy.engines.trt.library import SILENT, TensorRT, check_capability
from sgraf_deploy.engines.trt.plans import PORTABLE, Profile, Sidecar, replace_file
from sgraf_deploy.engines.trt.rtx import INSTEAD, RTX, plan_capabilities
from sgraf_deploy.errors import BundleError, GateError, SgrafDeployError
from sgraf_deploy.progress import Progress

if TYPE_CHECKING:
    import tensorrt as api

_KNOWN: dict[str, tuple[str, str | None]] = {
    "BuildCanceled": ("the build was cancelled", None),
    "no optimization profile has been defined": ("an input has no profile", None),
    "FP32 GEMM is not supported": (
        "it has no float32 products for this GPU, and every precision needs some",
        INSTEAD,
    ),
    "HW-specific datatypes": (
        "this GPU has no FP8, which needs compute capability 8.9",
        "take --precision fp16",
    ),
}
"""What TensorRT says, what that means, and what puts it right."""


@dataclass(frozen=True)
class CompileOptions:
    """What to build, for which shapes, in how much memory."""

    precision: Precision = "fp16"
    graphs: tuple[GraphName, ...] = GRAPHS
    sizes: Sizes = field(default_factory=Sizes)
    workspace_bytes: int = 4 * GIB
    engine_dir: Path | None = None


@dataclass(frozen=True)
class Planned:
    """A graph to be built, with the scratch memory of each use."""

    member: str
    graph: GraphName
    onnx: Path
    uses: tuple[Use, ...]
    profiles: tuple[Profile, ...]
    scratch: tuple[int, ...]

    @property
    def name(self) -> str:
        """MEMBER GRAPH."""
        return f"{self.member} {self.graph}"


def plan_builds(bundle: Bundle, options: CompileOptions) -> list[Planned]:
    """What will be built, checked before anything is.

    Raises BundleError for a graph that the bundle lacks or that is damaged, InputError for
    profiles that take too much memory.
    """
    planned = []
    for member, entry in bundle.manifest.members.items():
        for graph in options.graphs:
            onnx = bundle.graph_path(member, graph, options.precision)
            signature = bundle.graph(member, graph, options.precision).signature
            chosen = uses(graph, options.sizes)
            scratch = tuple(
                check_scratch(graph, use, entry.config, options.workspace_bytes) for use in chosen
            )
            profiles = tuple(profile(signature, use) for use in chosen)
            planned.append(Planned(member, graph, onnx, chosen, profiles, scratch))
    return planned


def compile_graph(
    planned: Planned,
    tensorrt: TensorRT,
    options: CompileOptions,
    timing: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Sidecar, bytes]:
    """Build one engine: its sidecar and its plan, which nobody has run yet.

    `timing` is TensorRT's timing cache, read and written where it has one. Raises BundleError for
    a graph that TensorRT cannot parse or build, with node and reason, GateError for one whose
    products are not in the precision that was asked for, UnavailableError for a GPU without it.
    """
    built_for = target(tensorrt)
    if built_for != PORTABLE:
        check_capability(options.precision, built_for)
    content = planned.onnx.read_bytes()
    plan, layers = build(content, planned, tensorrt, options.workspace_bytes, timing, progress)
    check_precision(planned, options.precision, layers)
    digest = hashlib.sha256(plan).hexdigest()
    return Sidecar(
        member=planned.member,
        graph=planned.graph,
        precision=options.precision,
        onnx_sha256=hashlib.sha256(content).hexdigest(),
        plan_sha256=digest,
        plan_bytes=len(plan),
        flavour=tensorrt.flavour,
        version=tensorrt.version,
        compute_capabilities=plan_capabilities(plan) if built_for == PORTABLE else (built_for,),
        profiles=planned.profiles,
        workspace_bytes=options.workspace_bytes,
        layers=layers,
    ), plan


def target(tensorrt: TensorRT) -> str:
    """The compute capability that is built for; TensorRT for RTX builds for all that it knows.

    Raises UnavailableError where TensorRT needs a GPU and there is none.
    """
    if tensorrt.flavour == RTX:
        return PORTABLE
    return find_driver().gpus[0].compute_capability


def build(
    content: bytes,
    planned: Planned,
    tensorrt: TensorRT,
    workspace: int,
    timing: Path | None = None,
    progress: Progress | None = None,
) -> tuple[bytes, dict[str, int]]:
    """The plan of a file's ONNX graph, and its matrix products by data type.

    Its float16 products sum in float32, whether the graph says so or not.
    """
    trt, logger = tensorrt.module, tensorrt.logger()
    builder: api.Builder = trt.Builder(logger)
    # TensorRT 10 must be told; 11 and RTX know nothing else.
    flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flag)
    parser: api.OnnxParser = trt.OnnxParser(network, logger)
    graph = _graph(planned, content).SerializeToString()
    if not parser.parse(graph) or network.num_layers == 0:
        raise _unparsed(planned, parser, logger.lines)
    config = _config(trt, builder, workspace)
    inputs = {network.get_input(index).name for index in range(network.num_inputs)}
    _add_profiles(builder, config, planned, inputs, logger)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    layers = count_products(trt, network)
    if tensorrt.flavour == RTX:
        timing = None  # It measures nothing while it builds.
    if timing is not None:
        _read_timing(config, timing)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _unbuilt(planned, "nothing was built", logger.lines)
    if timing is not None:
        _write_timing(config, timing)
    return bytes(plan), layers


def _config(trt: Any, builder: api.Builder, workspace: int) -> api.IBuilderConfig:
    """How to build, beside the profiles."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.clear_flag(trt.BuilderFlag.TF32)  # Its products have ten bits, and fp32 is promised.
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # TensorRT for RTX cannot be captured without: it might allocate while it runs.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    return config


def _add_profiles(
    builder: api.Builder,
    config: api.IBuilderConfig,
    planned: Planned,
    inputs: set[str],
    logger: Any,
) -> None:
    for use, shapes in zip(planned.uses, planned.profiles, strict=True):
        found = builder.create_optimization_profile()
        if set(shapes) != inputs:  # TensorRT ignores what it does not know, silently
            raise _unbuilt(planned, f"profile {use.name} is for {sorted(shapes)}", logger.lines)
        for name, (low, best, high) in shapes.items():
            found.set_shape(name, low, best, high)
        if config.add_optimization_profile(found) < 0:
            raise _unbuilt(planned, f"profile {use.name} was refused", logger.lines)


def _read_timing(config: api.IBuilderConfig, path: Path) -> None:
    """Give the builder what earlier builds measured; it takes nothing of another GPU's."""
    content = path.read_bytes() if path.is_file() else b""
    cache = cast("api.ITimingCache | None", config.create_timing_cache(content))
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timing(config: api.IBuilderConfig, path: Path) -> None:
    """Keep what was measured."""
    replace_file(path, bytes(config.get_timing_cache().serialize()))


def check_precision(planned: Planned, precision: Precision, layers: dict[str, int]) -> None:
    """Raise GateError where the network is not in the precision that was asked for.

    In float16 nothing may be left whose sums TensorRT would choose the precision of.
    """
    wanted = "FP8" if precision == "fp8" and "scorer" in planned.graph else SUMS_IN_FP32
    allowed = {"FLOAT", SUMS_IN_FP32, wanted}
    if precision == "fp32":
        wanted, allowed = "FLOAT", {"FLOAT"}
    if wanted not in layers or not allowed.issuperset(layers):
        raise GateError(
            f"engine {planned.name}: precision",
            expected=f"matrix products of {precision}: {' and '.join(sorted(allowed))}",
            got=f"{layers or 'none'} by data type",
        )


def _monitor(trt: Any, progress: Progress) -> api.IProgressMonitor:
    """A progress monitor over the outermost phase of a build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # of the module
        def __init__(self) -> None:
            super().__init__()
            self._outer: tuple[str, int] | None = None

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._outer = (name, steps)

        def step_complete(self, name: str, step: int) -> bool:
            if self._outer is not None and name == self._outer[0]:
                progress(min(step + 1, self._outer[1]), self._outer[1])
            return True  # False would cancel the build

        def phase_finish(self, name: str) -> None:
            if self._outer is not None and name == self._outer[0]:
                progress(self._outer[1], self._outer[1])

    return Monitor()


def _graph(planned: Planned, content: bytes) -> onnx.ModelProto:
    """A bundle's graph as TensorRT is given it; BundleError for what is none."""
    try:
        return sum_in_fp32(onnx.load_from_string(content))
    except (DecodeError, onnx.shape_inference.InferenceError) as error:
        raise _no_graph(planned, str(error)) from error


def _unparsed(planned: Planned, parser: api.OnnxParser, lines: Iterable[str]) -> BundleError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reasons = [
        f"{error.desc()} (node {error.node_name() or error.node()}, {error.node_operator()})"
        for error in errors
    ]
    if not reasons and not lines:
        reasons = ["it holds no graph"]  # what TensorRT makes of a file that is no ONNX
    return _no_graph(planned, "; ".join(reasons or lines))


def _no_graph(planned: Planned, why: str) -> BundleError:
    return BundleError(
        f"TensorRT cannot parse {planned.onnx}",
        got=why,
        hint="export the bundle again with `sgraf-deploy export --force`",
    )


def _unbuilt(planned: Planned, what: str, lines: Iterable[str]) -> SgrafDeployError:
    text = "; ".join(lines) or SILENT
    known = [entry for mark, entry in _KNOWN.items() if mark in text]
    got = "; ".join([*(meaning for meaning, _ in known), text])
    hint = next((each for _, each in known if each is not None), None)
    return BundleError(f"TensorRT cannot build {planned.name}: {what}", got=got, hint=hint)
