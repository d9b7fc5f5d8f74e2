"""Nothing of the package, or of the benchmarks, writes a file otherwise than through the writer."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sgraf_deploy

PACKAGE = Path(sgraf_deploy.__file__).parent
ROOT = PACKAGE.parent
WRITER = set((PACKAGE / "files").glob("*.py"))

SOURCES = [
    path
    for path in (*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py")))
    if path not in WRITER
]

ALLOWED = {
    ("sgraf_deploy/cli/__init__.py", "open"): "the null device",
    ("sgraf_deploy/bench/measure.py", "write_text"): "a switch of the kernel, no file",
    ("sgraf_deploy/engines/trt/plans.py", "unlink"): "plans that a newer one has replaced",
    ("sgraf_deploy/engines/native/build.py", "copyfile"): "no package is installed yet",
    ("sgraf_deploy/engines/native/build.py", "replace"): "no package is installed yet",
    ("sgraf_deploy/bench/gpu/run.py", "unlink"): "reports of an earlier try",
    ("sgraf_deploy/package/inputs_script.py", "tofile"): "runs by itself, where no package is",
    ("sgraf_deploy/gallery/environment.py", "unlink"): "a lock of LMDB's that nobody holds",
    ("sgraf_deploy/gallery/store.py", "unlink"): "data files that `compact` has replaced",
    ("benchmarks/gallery_faults.py", "open"): "damage, in a temporary folder",
    ("benchmarks/memory.py", "save"): "in a temporary folder",
}
"""File and function -> why it may."""

ALWAYS = {
    *("write_text", "write_bytes", "rename", "renames", "truncate", "ftruncate", "tofile"),
    *("link", "symlink", "symlink_to", "hardlink_to", "unlink", "rmtree", "rmdir"),
    *("copyfile", "copy2", "copytree", "NamedTemporaryFile", "mkstemp"),
}
"""Functions and methods that write, rename or remove, whatever they are called on."""

INTO_A_STREAM = {"save", "savez", "savez_compressed"}
"""Functions of NumPy, torch and onnx that may write only to what `staged_file` gave."""

MODE = re.compile(r"[rbt]*[wax+][wax+rbt]*")
"""Of `open`, to write."""


def called(node: ast.Call) -> tuple[str, str]:
    """The name that is called, and that of what it is called on."""
    if isinstance(node.func, ast.Attribute):
        owner = node.func.value
        return node.func.attr, owner.id if isinstance(owner, ast.Name) else ""
    return (node.func.id if isinstance(node.func, ast.Name) else ""), ""


def streams(tree: ast.AST) -> set[str]:
    """The names that `with staged_file(…) as NAME` binds."""
    return {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Call)
        and called(item.context_expr)[0] == "staged_file"
        and isinstance(item.optional_vars, ast.Name)
    }


def opens_to_write(node: ast.Call, owner: str) -> bool:
    """Whether a call of `open`, as a function or as a method, has a mode that writes."""
    if owner == "os":
        return any("O_RDONLY" not in ast.unparse(flags) for flags in node.args[1:2])
    place = 1 if isinstance(node.func, ast.Name) or owner == "io" else 0
    modes = [*node.args[place : place + 1], *(k.value for k in node.keywords if k.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
    return any(isinstance(text, str) and MODE.fullmatch(text) is not None for text in texts)


def writes(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every call that writes to the disk: the name of the function, and the line."""
    given = streams(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, owner = called(node)
        into = {arg.id for arg in node.args if isinstance(arg, ast.Name)}
        # A method `replace` with one argument is a path's: a string's takes two.
        moves = isinstance(node.func, ast.Attribute) and len(node.args) == 1 and not node.keywords
        if (
            (name in ALWAYS and isinstance(node.func, ast.Attribute))
            or (name == "open" and opens_to_write(node, owner))
            or (name == "replace" and moves)
            or (name in ("remove", "replace") and owner == "os")
            or (name in INTO_A_STREAM and owner in ("np", "torch", "onnx") and not into & given)
        ):
            yield name, node.lineno


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_everything_is_written_by_the_writer(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [
        f"{relative(path)} line {line}: {name}"
        for name, line in writes(tree)
        if (relative(path), name) not in ALLOWED
    ]
    assert found == [], "write with sgraf_deploy.files.writer or sgraf_deploy.files.folders"


def test_what_is_allowed_is_still_there() -> None:
    found = {
        (relative(path), name)
        for path in SOURCES
        for name, _ in writes(ast.parse(path.read_text(encoding="utf-8")))
    }
    present = {key for key in ALLOWED if (ROOT / key[0]).exists()}
    assert present <= found


@pytest.mark.parametrize(
    "source",
    [
        "open(path, 'w')",
        "open(path, mode='ab')",
        "path.open('x')",
        "Path(path).open('r+b')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "path.write_text('a')",
        "path.with_name('b').write_bytes(b'a')",
        "os.rename(a, b)",
        "os.replace(a, b)",
        "os.remove(a)",
        "a.rename(b)",
        "a.replace(b)",
        "np.save(path, array)",
        "np.savez(path, array=array)",
        "torch.save(weights, path)",
        "onnx.save(model, path)",
        "shutil.copyfile(a, b)",
        "shutil.rmtree(folder)",
        "path.unlink()",
    ],
)
def test_the_rule_sees(source: str) -> None:
    assert len(list(writes(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "open(path)",
        "open(path, 'rb')",
        "path.open()",
        "path.open('rb')",
        "Bundle.open(path)",
        "engine.open('saf', 'scorer')",
        "os.open(path, os.O_RDONLY)",
        "text.replace('a', 'b')",
        "dataclasses.replace(options, a=1)",
        "replace(options, a=1)",
        "with staged_file(path) as file:\n    np.savez(file, array=array)",
        "json.dumps(value)",
        "array.copy()",
        "names.remove(a)",
        "write_file(path, 'a')",
    ],
)
def test_the_rule_lets_pass(source: str) -> None:
    assert list(writes(ast.parse(source))) == []
