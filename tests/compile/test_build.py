"""TensorRT for RTX builds every graph without a GPU; what it does not say is said for it."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.random_weights import random_weights
from support.refusals import check_error, naming, refused
from support.small_models import VARIANTS

from sgraf_deploy.bench.random_model import model_config
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.compile import build as building
from sgraf_deploy.compile.accumulation import SUMS_IN_FP32
from sgraf_deploy.compile.build import (
    Build,
    CompileOptions,
    build_plan,
    check_precision,
    list_builds,
)
from sgraf_deploy.compile.profiles import CEILING, GIB, Sizes, Use, check_scratch, profile, uses
from sgraf_deploy.compile.publish import publish_plans
from sgraf_deploy.config import GRAPHS, MODULES, PRECISIONS, GraphName, Module, Precision, signature
from sgraf_deploy.engines.trt import library as adaptor
from sgraf_deploy.engines.trt.library import TensorRT, check_capability, find_tensorrt
from sgraf_deploy.engines.trt.plans import load_plan, plan_folder, read_sidecar
from sgraf_deploy.engines.trt.rtx import CAPABILITIES, INSTEAD
from sgraf_deploy.errors import BundleError, InputError, UnavailableError
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.model.folding import FoldedWeights, fold

SMALL_SIZES = Sizes(images=4, captions=3, words=9, candidates=10)


@pytest.fixture(scope="session")
def tensorrt() -> TensorRT:
    try:
        return find_tensorrt()
    except UnavailableError as error:
        pytest.skip(f"needs a TensorRT that builds: {error}")


def build_of(graph: GraphName, config: Any, precision: Precision, sizes: Sizes) -> Build:
    chosen = uses(graph, sizes)
    profiles = tuple(profile(signature(graph, config, precision), use) for use in chosen)
    return Build("sgr", graph, Path("a.onnx"), chosen, profiles, (0,) * len(chosen))


@cache
def paper_weights(module: Module) -> FoldedWeights:
    config = model_config(module)
    return fold(config, random_weights(config, 1))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("module", MODULES)
def test_every_graph_of_the_papers_dimensions_is_built(
    tensorrt: TensorRT, module: Module, graph: GraphName, precision: Precision
) -> None:
    weights = paper_weights(module)
    model = build_graph(weights, graph, precision).SerializeToString()
    one = build_of(graph, weights.config, precision, Sizes())

    plan, layers = build_plan(model, one, tensorrt, 8 * GIB)

    check_precision(one, precision, layers)
    assert len(plan) > 100_000


@pytest.fixture
def bundle(exported: Bundle, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(exported.path, tmp_path / "own.sgraf"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_bundle_is_compiled(
    tensorrt: TensorRT, bundle: Bundle, exported_fp8: Bundle, tmp_path: Path, precision: Precision
) -> None:
    if precision == "fp8":
        bundle = Bundle.open(shutil.copytree(exported_fp8.path, tmp_path / "fp8.sgraf"))
    options = CompileOptions(precision, sizes=SMALL_SIZES)
    steps: list[tuple[int, int]] = []
    builds = list_builds(bundle, options)
    stage = lambda _: lambda *step: steps.append(step)  # noqa: E731
    published = publish_plans(bundle, builds, tensorrt, options, stage=stage)

    folder = published.folder
    assert folder == plan_folder(bundle, None)
    assert published.unverified is not None
    assert published.unverified.hint is not None
    assert len(list(folder.glob("*.plan"))) == len(list(folder.glob("*.json"))) == 8
    assert steps
    assert all(0 <= done <= total for done, total in steps)
    for member in ("sgr", "saf"):
        sidecar = read_sidecar(folder, member, precision, "scorer")
        onnx = bundle.graph(member, "scorer", precision).ref.sha256
        assert sidecar.onnx_sha256 == onnx
        assert (sidecar.flavour, sidecar.version) == (tensorrt.flavour, tensorrt.version)
        assert (SUMS_IN_FP32 in sidecar.layers) == (precision != "fp32")
        assert "HALF" not in sidecar.layers
        assert sidecar.layers.get("FP8", 0) == (precision == "fp8")
        assert sidecar.profiles[0]["word_embeddings"][2][:2] == (3, 9)
        expected = {"member": member, "precision": precision, "graph": "scorer"}
        assert load_plan(folder, expected, lambda sidecar: True)
        if tensorrt.flavour == "tensorrt-rtx":
            assert sidecar.compute_capabilities == CAPABILITIES
    assert bundle.verify_files() == ()  # plans are no part of the bundle
    assert Bundle.open(bundle.path).sha256 == bundle.sha256


def test_plans_may_lie_elsewhere(tensorrt: TensorRT, bundle: Bundle, tmp_path: Path) -> None:
    options = CompileOptions(
        graphs=("image_encoder",), sizes=SMALL_SIZES, engine_dir=tmp_path / "engines"
    )
    publish_plans(bundle, list_builds(bundle, options), tensorrt, options)
    assert not (bundle.path / "engines").exists()
    assert len(list((tmp_path / "engines" / bundle.sha256[:16]).glob("*.plan"))) == 2


@pytest.mark.parametrize(
    "damage",
    [lambda onnx: b"", lambda onnx: b"no graph at all", lambda onnx: onnx[: len(onnx) // 2]],
    ids=["empty", "text", "truncated"],
)
def test_what_is_no_onnx_is_an_error(tensorrt: TensorRT, damage: Any) -> None:
    config = VARIANTS["saf"]
    model = build_graph(fold(config, random_weights(config, 1)), "image_encoder", "fp32")
    one = build_of("image_encoder", config, "fp32", SMALL_SIZES)
    with refused(BundleError, "a.onnx", got=naming(), hint="sgraf-deploy export --force"):
        build_plan(damage(model.SerializeToString()), one, tensorrt, GIB)


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        ({"regions": ((4, 7, 64), (2, 7, 64), (1, 7, 64))}, []),
        ({"other": ((1,), (1,), (1,))}, ["other"]),
    ],
    ids=["largest-below-smallest", "unknown-input"],
)
def test_a_wrong_profile_is_an_error(
    tensorrt: TensorRT, shapes: dict[str, Any], named: list[str]
) -> None:
    config = VARIANTS["saf"]
    model = build_graph(fold(config, random_weights(config, 1)), "image_encoder", "fp32")
    one = Build("saf", "image_encoder", Path("a"), (Use("batch", {}),), (shapes,), (0,))
    with refused(BundleError, one.name, "batch", *named):
        build_plan(model.SerializeToString(), one, tensorrt, GIB)


@pytest.mark.parametrize(
    ("precision", "capability", "right"),
    [
        ("fp8", "8.9", True),
        ("fp8", "9.0", True),
        ("fp8", "10.0", True),
        ("fp8", "8.6", False),
        ("fp16", "7.5", True),
    ],
)
def test_fp8_needs_a_gpu_that_has_it(precision: Precision, capability: str, right: bool) -> None:
    if right:
        check_capability(precision, capability)
    else:
        expected = naming("8.9")
        with refused(
            UnavailableError, precision, expected=expected, got="8.6", hint="--precision fp16"
        ):
            check_capability(precision, capability)


@pytest.mark.parametrize(
    ("says", "hint"),
    [
        ("FP32 GEMM is not supported on this platform.", INSTEAD),
        ("HW-specific datatypes need another GPU", "--precision fp16"),
        ("BuildCanceled", None),
    ],
)
def test_a_build_that_fails_says_what_helps(says: str, hint: str | None) -> None:
    """A GPU without float32 products has none for any precision: nobody is told to take fp16."""
    one = build_of("scorer", VARIANTS["sgr"], "fp16", SMALL_SIZES)
    error = building._unbuilt(one, "nothing was built", [f"ERROR {says}"])
    check_error(error, one.name, got=naming(says), hint=hint)


def test_profiles_by_use() -> None:
    config = VARIANTS["sgr"]
    found = {use.name: use for use in uses("scorer", Sizes(6, 5, 4, 99))}
    assert list(found) == ["offline", "one caption", "one image"]
    shapes = profile(signature("scorer", config, "fp16"), found["one caption"])
    assert shapes["region_embeddings"] == ((1, 7, 32), (49, 7, 32), (99, 7, 32))
    assert shapes["word_embeddings"] == ((1, 1, 32), (1, 2, 32), (1, 4, 32))
    assert shapes["lengths"] == ((1,), (1,), (1,))


@pytest.mark.parametrize(
    ("sizes", "workspace", "expected", "got"),
    [
        (Sizes(images=64), 1, naming("--workspace-gb"), naming("2.66")),
        (
            Sizes(images=400, captions=400),
            10**15,
            naming(f"{CEILING / GIB:.1f}"),
            naming("400 images"),
        ),
    ],
    ids=["workspace", "ceiling"],
)
def test_memory_is_bounded_before_the_build(
    sizes: Sizes, workspace: int, expected: naming, got: naming
) -> None:
    config = model_config("SGR")
    (offline, *_) = uses("scorer", sizes)
    with refused(InputError, "offline", "scorer", expected=expected, got=got, hint="--max-images"):
        check_scratch("scorer", offline, config, workspace)
    assert CEILING < 10**15
    assert 0 < check_scratch("scorer", uses("scorer", Sizes())[0], config, 8 * GIB) < 8 * GIB


def test_a_size_below_one_is_refused() -> None:
    with refused(InputError, "--max-words", got=0):
        Sizes(words=0)


def test_without_tensorrt_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptor, "MODULES", (("no_such_tensorrt", "tensorrt"),))
    with refused(
        UnavailableError,
        got=naming("no_such_tensorrt"),
        hint="pip install 'sgraf-deploy[tensorrt]'",
    ):
        find_tensorrt()


def test_a_broken_installation_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_tensorrt.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(adaptor, "MODULES", (("broken_tensorrt", "tensorrt"),))
    with refused(UnavailableError, got=naming("broken_tensorrt", "no_such_library")):
        find_tensorrt()


def test_a_plan_can_be_captured(tensorrt: TensorRT) -> None:
    """TensorRT for RTX asks for it at the build; another TensorRT has no such flag."""
    trt = tensorrt.module
    config = building._config(trt, trt.Builder(tensorrt.logger()), GIB)
    if tensorrt.flavour == "tensorrt-rtx":
        assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert not config.get_flag(trt.BuilderFlag.TF32)


def test_a_tensorrt_without_the_flag_is_not_asked_for_it() -> None:
    flags: list[str] = []
    config: Any = SimpleNamespace(
        set_memory_pool_limit=lambda *_: None, clear_flag=flags.append, set_flag=flags.append
    )
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(TF32="TF32"),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
    )
    builder: Any = SimpleNamespace(create_builder_config=lambda: config)
    assert building._config(trt, builder, GIB) is config
    assert flags == ["TF32"]


class FakeTiming:
    """A builder's configuration as TensorRT has it: caches of another GPU are refused."""

    def __init__(self) -> None:
        self.used = b""

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return None if content == b"damaged" else content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache == b"of another GPU":
            return False
        self.used = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.used + b"+")


@pytest.mark.parametrize(
    ("kept", "used"),
    [(None, b""), (b"ours", b"ours"), (b"of another GPU", b""), (b"damaged", b"")],
)
def test_what_was_measured_is_kept_for_the_next_build(
    tmp_path: Path, kept: bytes | None, used: bytes
) -> None:
    path, config = tmp_path / "timing", FakeTiming()
    if kept is not None:
        path.write_bytes(kept)
    building._use_timing_cache(config, path)  # type: ignore[arg-type]
    assert config.used == used
    building._write_timing_cache(config, path)  # type: ignore[arg-type]
    assert path.read_bytes() == used + b"+"
