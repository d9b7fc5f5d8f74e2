"""The imports of a module, read from its source: for the picture of them and for their test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Import:
    """One imported module: `lazy` inside a function, `typing` under `if TYPE_CHECKING`."""

    target: str
    line: int
    lazy: bool = False
    typing: bool = False


def imports(tree: ast.AST, *, lazy: bool = False, typing: bool = False) -> Iterator[Import]:
    """Every import below a node; `from a import b` counts as `a.b`, which may be a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy, typing)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno, lazy, typing)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(node, lazy=lazy, typing=True)
        else:
            inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from imports(node, lazy=inside, typing=typing)
