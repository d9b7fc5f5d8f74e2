"""Compiles a bundle's graphs to TensorRT plans: parse, add profiles, build."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx
from google.protobuf.message import DecodeError

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import EXPORT_AGAIN
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
        "it has no float32 products for this GPU, and every precision needs them",
        INSTEAD,
    ),
    "HW-specific datatypes": (
        "this GPU has no FP8, which needs compute capability 8.9",
        "take --precision fp16",
    ),
}
"""A part of what TensorRT says, what it means, and the hint that puts it right."""


@dataclass(frozen=True)
class CompileOptions:
    """What to build, for which shapes, and in how much scratch memory.

    The plans go into `engine_dir`, or if that is None into the bundle.
    """

    precision: Precision = "fp16"
    graphs: tuple[GraphName, ...] = GRAPHS
    sizes: Sizes = field(default_factory=Sizes)
    workspace_bytes: int = 4 * GIB
    engine_dir: Path | None = None


@dataclass(frozen=True)
class Build:
    """A graph to compile: its ONNX file, and its profiles with the scratch bytes of each."""

    member: str
    graph: GraphName
    onnx: Path
    uses: tuple[Use, ...]
    profiles: tuple[Profile, ...]
    scratch: tuple[int, ...]

    @property
    def name(self) -> str:
        """How messages name it: MEMBER GRAPH."""
        return f"{self.member} {self.graph}"


def list_builds(bundle: Bundle, options: CompileOptions) -> list[Build]:
    """List what will be built, and check it before the first build.

    Raises BundleError for a graph that the bundle lacks or that is damaged, InputError for
    profiles that take too much memory.
    """
    builds = []
    for member, entry in bundle.manifest.members.items():
        for graph in options.graphs:
            onnx = bundle.graph_path(member, graph, options.precision)
            signature = bundle.graph(member, graph, options.precision).signature
            chosen = uses(graph, options.sizes)
            scratch = tuple(
                check_scratch(graph, use, entry.config, options.workspace_bytes) for use in chosen
            )
            profiles = tuple(profile(signature, use) for use in chosen)
            builds.append(Build(member, graph, onnx, chosen, profiles, scratch))
    return builds


def compile_graph(
    build: Build,
    tensorrt: TensorRT,
    options: CompileOptions,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Sidecar, bytes]:
    """Build one plan; returns its sidecar and its bytes, which have not passed any gate yet.

    `timing_cache` is TensorRT's, a file that is read and written where TensorRT has one. Raises
    BundleError for a graph that TensorRT cannot parse or build, with node and reason, GateError
    for one whose products are not in the precision that was asked for, and UnavailableError for a
    GPU without that precision.
    """
    built_for = target(tensorrt)
    if built_for != PORTABLE:
        check_capability(options.precision, built_for)
    content = build.onnx.read_bytes()
    plan, layers = build_plan(
        content, build, tensorrt, options.workspace_bytes, timing_cache, progress
    )
    check_precision(build, options.precision, layers)
    digest = hashlib.sha256(plan).hexdigest()
    return Sidecar(
        member=build.member,
        graph=build.graph,
        precision=options.precision,
        onnx_sha256=hashlib.sha256(content).hexdigest(),
        plan_sha256=digest,
        plan_bytes=len(plan),
        flavour=tensorrt.flavour,
        version=tensorrt.version,
        compute_capabilities=plan_capabilities(plan) if built_for == PORTABLE else (built_for,),
        profiles=build.profiles,
        workspace_bytes=options.workspace_bytes,
        layers=layers,
    ), plan


def target(tensorrt: TensorRT) -> str:
    """The compute capability to build for; PORTABLE for TensorRT for RTX, which chooses several.

    Raises UnavailableError where TensorRT needs a GPU and there is none.
    """
    if tensorrt.flavour == RTX:
        return PORTABLE
    return find_driver().gpus[0].compute_capability


def build_plan(
    content: bytes,
    build: Build,
    tensorrt: TensorRT,
    workspace: int,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[bytes, dict[str, int]]:
    """Build the plan of an ONNX file's bytes; returns it and its matrix products by data type.

    Its float16 products sum in float32, whether the graph says so or not.
    """
    trt, logger = tensorrt.module, tensorrt.logger()
    builder: api.Builder = trt.Builder(logger)
    # TensorRT 10 must be told; 11 and TensorRT for RTX have strongly typed networks only.
    flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flag)
    parser: api.OnnxParser = trt.OnnxParser(network, logger)
    graph = _graph(build, content).SerializeToString()
    if not parser.parse(graph) or network.num_layers == 0:
        raise _unparsed(build, parser, logger.lines)
    config = _config(trt, builder, workspace)
    inputs = {network.get_input(index).name for index in range(network.num_inputs)}
    _add_profiles(builder, config, build, inputs, logger)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    layers = count_products(trt, network)
    if tensorrt.flavour == RTX:
        timing_cache = None  # It measures nothing while it builds.
    if timing_cache is not None:
        _use_timing_cache(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _unbuilt(build, "nothing was built", logger.lines)
    if timing_cache is not None:
        _write_timing_cache(config, timing_cache)
    return bytes(plan), layers


def _config(trt: Any, builder: api.Builder, workspace: int) -> api.IBuilderConfig:
    """The builder's configuration, without the profiles."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.clear_flag(trt.BuilderFlag.TF32)  # TF32 has 10 bits of mantissa, fp32 23.
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # TensorRT for RTX cannot be captured without: it might allocate while it runs.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    return config


def _add_profiles(
    builder: api.Builder,
    config: api.IBuilderConfig,
    build: Build,
    inputs: set[str],
    logger: Any,
) -> None:
    for use, shapes in zip(build.uses, build.profiles, strict=True):
        found = builder.create_optimization_profile()
        if set(shapes) != inputs:  # TensorRT silently ignores inputs that it does not know.
            raise _unbuilt(build, f"profile {use.name} is for {sorted(shapes)}", logger.lines)
        for name, (low, best, high) in shapes.items():
            found.set_shape(name, low, best, high)
        if config.add_optimization_profile(found) < 0:
            raise _unbuilt(build, f"profile {use.name} was refused", logger.lines)


def _use_timing_cache(config: api.IBuilderConfig, path: Path) -> None:
    """Give the builder what earlier builds measured; it ignores a cache of another GPU."""
    content = path.read_bytes() if path.is_file() else b""
    cache = cast("api.ITimingCache | None", config.create_timing_cache(content))
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timing_cache(config: api.IBuilderConfig, path: Path) -> None:
    """Keep what this build measured for the next one."""
    replace_file(path, bytes(config.get_timing_cache().serialize()))


def check_precision(build: Build, precision: Precision, layers: dict[str, int]) -> None:
    """Raise GateError where the network's products are not in the precision that was asked for.

    With fp16 every product of float16 operands must say that it sums in float32: TensorRT would
    choose the precision of the sums of any other.
    """
    wanted = "FP8" if precision == "fp8" and "scorer" in build.graph else SUMS_IN_FP32
    allowed = {"FLOAT", SUMS_IN_FP32, wanted}
    if precision == "fp32":
        wanted, allowed = "FLOAT", {"FLOAT"}
    if wanted not in layers or not allowed.issuperset(layers):
        raise GateError(
            f"plan {build.name}: precision",
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


def _graph(build: Build, content: bytes) -> onnx.ModelProto:
    """A bundle's graph as TensorRT is given it; BundleError for a file that is not ONNX."""
    try:
        return sum_in_fp32(onnx.load_from_string(content))
    except (DecodeError, onnx.shape_inference.InferenceError) as error:
        raise _no_graph(build, str(error)) from error


def _unparsed(build: Build, parser: api.OnnxParser, lines: Iterable[str]) -> BundleError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reasons = [
        f"{error.desc()} (node {error.node_name() or error.node()}, {error.node_operator()})"
        for error in errors
    ]
    if not reasons and not lines:
        reasons = ["it holds no graph"]  # What TensorRT makes of a file that is not ONNX.
    return _no_graph(build, "; ".join(reasons or lines))


def _no_graph(build: Build, why: str) -> BundleError:
    return BundleError(
        f"TensorRT cannot parse {build.onnx}",
        got=why,
        hint=EXPORT_AGAIN,
    )


def _unbuilt(build: Build, what: str, lines: Iterable[str]) -> SgrafDeployError:
    text = "; ".join(lines) or SILENT
    known = [entry for mark, entry in _KNOWN.items() if mark in text]
    got = "; ".join([*(meaning for meaning, _ in known), text])
    hint = next((each for _, each in known if each is not None), None)
    return BundleError(f"TensorRT cannot build {build.name}: {what}", got=got, hint=hint)
