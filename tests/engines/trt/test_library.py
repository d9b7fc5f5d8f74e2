"""What this package uses of TensorRT is there: in the types of 10.13, and in what is installed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sgraf_deploy
from sgraf_deploy.engines.trt.library import USED, USED_OF_RTX, TensorRT, find_tensorrt
from sgraf_deploy.errors import UnavailableError

PACKAGE = Path(sgraf_deploy.__file__).parent
STUBS = Path(__file__).parents[3] / "typings" / "tensorrt" / "__init__.pyi"
FILES = (
    "compile/build.py",
    "compile/accumulation.py",
    "engines/trt/library.py",
    "engines/trt/engine.py",
    "engines/trt/context.py",
    "engines/trt/rtx_runtime.py",
    "engines/trt/runs.py",
)
CLASSES = (
    *("Builder", "IBuilderConfig", "INetworkDefinition", "IOptimizationProfile", "OnnxParser"),
    *("ILogger", "ILayer", "ITensor", "ITimingCache", "ParserError", "IProgressMonitor"),
    *("Runtime", "ICudaEngine", "IExecutionContext", "MemoryPoolType", "BuilderFlag"),
    *(
        "DataType",
        "LayerType",
        "NetworkDefinitionCreationFlag",
        "ExecutionContextAllocationStrategy",
    ),
)

OURS = {"precision"}
"""Of options and sidecars; that of a layer went with weak typing."""

GONE = {"BuilderFlag.FP8"}
"""Went with weak typing, too; what is taken is DataType's."""


@pytest.fixture(scope="module")
def tensorrt() -> TensorRT:
    try:
        return find_tensorrt()
    except UnavailableError as error:
        pytest.skip(f"needs a TensorRT: {error}")


@pytest.fixture(scope="module")
def typed() -> dict[str, set[str]]:
    """The members of every class that mypy knows of TensorRT."""
    tree = ast.parse(STUBS.read_text(encoding="utf-8"))
    return {node.name: set(members(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def members(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.ClassDef):
            yield item.name
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield item.target.id


def used() -> set[str]:
    """Every attribute that the package's files about TensorRT take of anything."""
    trees = [ast.parse((PACKAGE / name).read_text(encoding="utf-8")) for name in FILES]
    return {
        node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }


def test_the_module_has_what_is_taken_of_it(tensorrt: TensorRT) -> None:
    assert [name for name in USED if not hasattr(tensorrt.module, name)] == []


def test_every_member_that_is_used_exists_in_what_is_installed(
    tensorrt: TensorRT, typed: dict[str, set[str]]
) -> None:
    taken = {name: (used() - OURS) & typed[name] for name in CLASSES}
    assert {
        *("set_tensor_address", "execute_async_v3", "set_device_memory", "set_input_shape"),
        "set_optimization_profile_async",
    } <= taken["IExecutionContext"]
    assert "USER_MANAGED" in taken["ExecutionContextAllocationStrategy"]
    assert "STRONGLY_TYPED" in taken["NetworkDefinitionCreationFlag"]
    assert "FP8" in taken["DataType"]
    missing = {
        f"{name}.{member}"
        for name, names in taken.items()
        for member in names
        if not hasattr(getattr(tensorrt.module, name), member)
    }
    assert missing - GONE == set()


def test_tensorrt_for_rtx_has_what_is_taken_of_it_alone(tensorrt: TensorRT) -> None:
    if not tensorrt.compiles_at_run_time:
        pytest.skip("needs TensorRT for RTX")
    missing = {
        f"{name}.{member}"
        for name, members in USED_OF_RTX.items()
        for member in members
        if not hasattr(getattr(tensorrt.module, name, None), member)
    }
    assert missing == set()


def test_what_is_taken_of_tensorrt_for_rtx_alone_is_listed() -> None:
    listed = {member for members in USED_OF_RTX.values() for member in members}
    asked_by_name = {"is_stream_capturable"}
    assert listed - used() == asked_by_name


def test_what_only_tensorrt_for_rtx_has_is_asked_for_by_name(
    tensorrt: TensorRT, typed: dict[str, set[str]]
) -> None:
    assert "is_stream_capturable" not in typed["IExecutionContext"]
    assert "REQUIRE_USER_ALLOCATION" not in typed["BuilderFlag"]
    assert "REQUIRE_USER_ALLOCATION" in used()
    has = (
        hasattr(tensorrt.module.IExecutionContext, "is_stream_capturable"),
        hasattr(tensorrt.module.BuilderFlag, "REQUIRE_USER_ALLOCATION"),
    )
    assert has == (tensorrt.flavour == "tensorrt-rtx",) * 2
