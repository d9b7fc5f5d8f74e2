"""What may import what, what an import may load, and how large a file or function may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest
from support.refusals import holds

import sgraf_deploy
from tools.imports import imports

PACKAGE = Path(sgraf_deploy.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))

HEAVY = {
    *("torch", "onnx", "onnxruntime", "tensorrt", "triton"),
    *("nltk", "lmdb", "xxhash", "PIL", "pillow_heif", "ray"),
}
PLAIN = (
    *("errors", "config", "files", "formats", "html", "progress", "schema", "svg", "versions"),
    "__version__",
)
"""What everything may import."""
ORDER = (
    *("bundle", "data", "engines", "features", "gate", "runtime", "evaluation", "cards"),
    *("export", "compile"),
    *("package", "explanation", "gallery", "bench", "train", "demo", "serve", "distributed", "cli"),
)
"""The packages; each may import those before it."""
NEED_TORCH = ("model", "engines.torch", "engines.fused")
"""Parts that cannot be imported without PyTorch, whatever of them runs it at once."""
MAY_NEED_TORCH = (*NEED_TORCH, "export", "bench", "train", "cli")
"""Who may import them, inside functions at least."""

BELOW = {name: {*PLAIN, *ORDER[:place], name} for place, name in enumerate(ORDER)}
MAY_IMPORT = {
    **BELOW,
    "model": {"errors", "config", "files", "formats", "schema", "model"},
    "data": {"errors", "config", "files", "formats", "schema", "data"},
    "files": {"errors", "files"},
    "errors": set(),
    "config": set(),
    "formats": {"errors"},
    "html": set(),
    "svg": set(),
    "progress": set(),
    "schema": {"errors"},
    "versions": {"__version__"},
    "train": BELOW["train"] - {"export", "compile", "package", "bench"},
    "demo": BELOW["demo"] - {"compile", "package", "bench", "train"},
}
"""Top-level name inside the package -> the top-level names it may import."""

EXACT = {"model.reference": {"Reference"}, "model.torch_ops": {"Arithmetic"}}
"""Of these modules nothing else may be imported, but by `RUNS_MODELS`: a model that is run in any
other way computes with whatever precision its caller has set in PyTorch."""
RUNS_MODELS = {"model.reference", "model.torch_model"}

HEAVY_AT_THE_TOP = {
    "model": {"torch"},
    "engines.torch": {"torch"},
    "engines.fused": {"torch", "triton"},
    "gate.graphs": {"onnx"},
    "gate.executors": {"onnx"},
    "gate.layers": {"onnx"},
    "export": {"onnx"},
    "compile": {"onnx"},
    "train": {"torch"},
}


def part_of(module: str, parts: Iterable[str]) -> bool:
    """Whether a module is one of the parts, or inside one."""
    return any(f"{module}.".startswith(f"{part}.") for part in parts)


def layer_violations(module: str, tree: ast.AST) -> list[str]:
    """Imports of siblings that the module's place in the package does not allow."""
    top = module.partition(".")[0]
    if top in {"__init__", "__main__"}:
        return []
    allowed = MAY_IMPORT[top]
    found = []
    for item in imports(tree):
        target = item.target.removeprefix("sgraf_deploy.")
        if target == item.target:
            continue
        if part_of(target, NEED_TORCH):
            allows = part_of(module, MAY_NEED_TORCH)
        else:
            allows = target.split(".")[0] in allowed
        if not allows:
            found.append(
                f"{module} line {item.line} imports {target}: it may import {sorted(allowed)}"
            )
    return found


def heavy_violations(module: str, tree: ast.AST) -> list[str]:
    """Heavy imports at the top of a module, and torch wherever it must not be needed at all."""
    found = []
    allowed = {
        library
        for part, libraries in HEAVY_AT_THE_TOP.items()
        if part_of(module, [part])
        for library in libraries
    }
    for item in imports(tree):
        library = item.target.split(".")[0]
        if library == "torch" and not part_of(module, MAY_NEED_TORCH):
            found.append(f"{module} line {item.line} imports torch: it must work without it")
        early = not item.lazy and not item.typing
        if library in HEAVY and early and library not in allowed:
            found.append(f"{module} line {item.line} imports {library} at the top of the module")
    return found


def circles(trees: Mapping[str, ast.AST]) -> list[list[str]]:
    """Modules that import each other in a round: lazily and for types alone included."""
    graph = {
        module: {
            name
            for item in imports(tree)
            for name in [module_of(item.target, trees)]
            if name not in {None, module}
        }
        for module, tree in trees.items()
    }
    sorter: TopologicalSorter[str | None] = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        return [error.args[1]]
    return []


def module_of(target: str, modules: Iterable[str]) -> str | None:
    """The module that an imported name is, or is in; None outside the package."""
    name = target.removeprefix("sgraf_deploy.")
    if name == target:
        return None
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


@pytest.fixture(scope="module")
def trees() -> Mapping[str, ast.AST]:
    """Every module of the package by its name in there."""
    found = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {"bundle.bundle", "data.captions", "model.layers", "runtime.scorer", "cli.bench"} <= set(
        found
    )
    return found


def inexact_runs(module: str, tree: ast.AST) -> list[str]:
    """Imports by which a model could be run in other than exact arithmetic; PyTorch's switches."""
    if module in RUNS_MODELS:
        return []
    found = []
    for item in imports(tree):
        for owner, allowed in EXACT.items():
            name = item.target.removeprefix("sgraf_deploy.").removeprefix(owner)
            if name != item.target.removeprefix("sgraf_deploy.") and name[1:] not in allowed:
                found.append(f"{module} line {item.line} imports {item.target}: use {allowed}")
    switches = {"backends", "set_float32_matmul_precision"} if module != "model.exact" else set()
    return found + [
        f"{module} line {node.lineno} throws a switch of PyTorch's: use model.exact"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in switches
    ]


def name_of(path: Path) -> str:
    """The module's name inside the package, `__init__` included."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def star_violations(module: str, tree: ast.AST) -> list[str]:
    """Imports of whatever another module may hold."""
    return [
        f"{module} line {item.line} imports {item.target}: name what is needed"
        for item in imports(tree)
        if item.target.endswith(".*")
    ]


def size_violations(path: str, text: str) -> list[str]:
    """A file over 400 lines, and functions over 60."""
    found = [f"{path} has {lines} lines" for lines in [len(text.splitlines())] if lines > 400]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > 60:
                found.append(f"{path} line {node.lineno}: {node.name} has {lines} lines")
    return found


def test_every_module_imports_only_what_its_place_allows(trees: Mapping[str, ast.AST]) -> None:
    found = [layer_violations(module, tree) for module, tree in trees.items()]
    assert list(chain.from_iterable(found)) == []


def test_no_modules_import_each_other_in_a_circle(trees: Mapping[str, ast.AST]) -> None:
    assert circles(trees) == []


def test_no_module_imports_anything_heavy_at_its_top_or_all_of_another(
    trees: Mapping[str, ast.AST],
) -> None:
    rules = (heavy_violations, star_violations)
    found = [rule(module, tree) for module, tree in trees.items() for rule in rules]
    assert list(chain.from_iterable(found)) == []


def test_every_model_runs_in_exact_arithmetic(trees: Mapping[str, ast.AST]) -> None:
    found = [inexact_runs(module, tree) for module, tree in trees.items()]
    assert list(chain.from_iterable(found)) == []


def test_every_file_and_function_stays_small() -> None:
    paths = [*SOURCES, *TESTS]
    assert len(paths) > 300, "where are the others?"
    names = [path.relative_to(PACKAGE.parent).as_posix() for path in paths]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    assert list(chain.from_iterable(map(size_violations, names, texts))) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model.layers", "from sgraf_deploy.runtime import scorer"),
        ("model.layers", "from sgraf_deploy.bundle.bundle import Bundle"),
        ("data.captions", "def f():\n    from sgraf_deploy.bundle.bundle import Bundle"),
        ("runtime.scorer", "if TYPE_CHECKING:\n    from sgraf_deploy.model.layers import Layer"),
        ("runtime.scorer", "from sgraf_deploy.engines.torch.engine import TorchEngine"),
        ("engines.ort", "from sgraf_deploy.engines.torch.engine import TorchEngine"),
        ("engines.base", "from sgraf_deploy.runtime.scorer import Scorer"),
        ("gate.values", "import sgraf_deploy.export.exporter"),
        ("bundle.bundle", "from sgraf_deploy import runtime"),
        ("files.writer", "from sgraf_deploy.config import Precision"),
        ("config", "from sgraf_deploy.bundle.bundle import Bundle"),
        ("export.exporter", "from sgraf_deploy.bench.run import run_bench"),
        ("train.trainer", "from sgraf_deploy.bench.run import run_bench"),
        ("bench.run", "from sgraf_deploy.cli import main"),
    ],
)
def test_the_layer_rule_sees(module: str, source: str) -> None:
    assert len(layer_violations(module, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engines.ort", "def f():\n    import torch"),
        ("files.writer", "from torch.nn import functional"),
        ("data.tokenizer", "import nltk"),
        ("gate.values", "def f():\n    import torch"),
        ("export.exporter", "import torch"),
        ("model.checkpoint", "class A:\n    import onnx.helper"),
    ],
)
def test_the_heavy_rule_sees(module: str, source: str) -> None:
    assert heavy_violations(module, ast.parse(source)) != []


def test_the_circle_rule_sees() -> None:
    lazy = "def f():\n    from sgraf_deploy.a import x"
    sources = {"a": "from sgraf_deploy.b import f", "b": "import numpy", "c": lazy}
    assert circles({name: ast.parse(source) for name, source in sources.items()}) == []
    sources["b"] = "if TYPE_CHECKING:\n    from sgraf_deploy.c import f"
    (circle,) = circles({name: ast.parse(source) for name, source in sources.items()})
    assert set(circle) == {"a", "b", "c"}


def test_the_other_rules_see() -> None:
    assert star_violations("demo", ast.parse("def f():\n    from numpy import *")) != []
    long = "def f():\n" + "    pass\n" * 60
    assert len(size_violations("a.py", long)) == 1
    assert size_violations("a.py", long.replace("    pass\n", "", 1)) == []
    assert len(size_violations("a.py", "\n" * 401)) == 1
    assert size_violations("a.py", "\n" * 400) == []


@pytest.mark.parametrize(
    "source",
    [
        "from sgraf_deploy.model import reference",
        "from sgraf_deploy.model.reference import build_model",
        "def f():\n    from sgraf_deploy.model.torch_ops import TorchOps",
        "import torch\ntorch.backends.cudnn.enabled = False",
        "import torch\ntorch.set_float32_matmul_precision('high')",
    ],
)
def test_the_exact_rule_sees(source: str) -> None:
    assert len(inexact_runs("engines.torch.literal", ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engines.torch.engine", "from sgraf_deploy.model.reference import Reference"),
        ("engines.torch.engine", "import torch\nfrom sgraf_deploy.engines.buffers import Array"),
        ("runtime.scorer", "from sgraf_deploy.bundle.bundle import Bundle\nimport numpy"),
        ("export.onnx_ops", "import onnx\nfrom sgraf_deploy.model.ops import Weight"),
        ("cli.export", "def f():\n    from sgraf_deploy.export import run"),
        ("model.layers", "import torch\nif TYPE_CHECKING:\n    import onnx"),
    ],
)
def test_the_rules_let_pass(module: str, source: str) -> None:
    tree = ast.parse(source)
    rules = (layer_violations, heavy_violations, star_violations, inexact_runs)
    assert [found for rule in rules for found in rule(module, tree)] == []


@pytest.mark.parametrize(
    "module",
    [
        "sgraf_deploy",
        *("sgraf_deploy.runtime", "sgraf_deploy.gallery", "sgraf_deploy.cli"),
        *("sgraf_deploy.features", "sgraf_deploy.features.spec", "sgraf_deploy.features.decode"),
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_errors_are_there_without_an_import_of_their_own() -> None:
    code = "import sgraf_deploy; print(sgraf_deploy.errors.SgrafDeployError.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert done.stdout.split() == ["SgrafDeployError"], done.stderr


def test_public_names_are_found_on_first_use() -> None:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.runtime.scorer import Scorer, load

    assert (sgraf_deploy.Bundle, sgraf_deploy.Scorer, sgraf_deploy.load) == (Bundle, Scorer, load)
    assert set(sgraf_deploy.__all__) <= set(dir(sgraf_deploy))
    assert sgraf_deploy.TilePlan is sgraf_deploy.Tiling  # the name that it had before
    for name in {*sgraf_deploy.__all__} - {"TilePlan"}:
        assert name == "__version__" or getattr(sgraf_deploy, name).__name__.endswith(name)
    named = "load Scorer Bundle EncodedImages EncodedCaptions RerankResult EngineOptions TileShape"
    assert {*named.split(), "errors"} <= set(sgraf_deploy.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError) as caught:
        _ = sgraf_deploy.nothing_of_this_name
    assert holds(str(caught.value), "nothing_of_this_name")
