"""ONNX Runtime is imported in one place, and sends nothing home."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sgraf_deploy
from sgraf_deploy.engines.onnx_runtime import OPT_OUT, import_onnxruntime, import_state
from sgraf_deploy.errors import UnavailableError

PACKAGE = Path(sgraf_deploy.__file__).parent


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that code imports, what is for a type checker alone left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and "import_" in ast.unparse(node.func):
            yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))
        yield from imports(node)


def test_one_place_imports_it() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for name in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] == "onnxruntime"
    }
    assert found == {"engines/onnx_runtime.py"}


def test_an_import_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in (*OPT_OUT, "CI")}
    code = (
        "from sgraf_deploy.engines.onnx_runtime import import_onnxruntime\n"
        "import_onnxruntime().SessionOptions()"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"HOME": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, other = OPT_OUT
    monkeypatch.setenv(chosen, "0")
    monkeypatch.delenv(other)
    import_onnxruntime()
    assert (os.environ[chosen], os.environ[other]) == ("0", "1")


@pytest.mark.parametrize("load", [import_onnxruntime, import_state])
def test_without_it(load: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert callable(load)
    with pytest.raises(UnavailableError):
        load()
