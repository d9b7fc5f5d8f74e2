"""Every message of the program, read from its sources: errors and warnings, with their hints.

    python tests/support/messages.py          compares with messages.txt beside this file
    python tests/support/messages.py --write  writes it anew

Expressions stand in braces, and so does what is put together elsewhere.
"""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from sgraf_deploy import errors

GOLDEN = Path(__file__).with_suffix(".txt")
PACKAGE = Path(errors.__file__).parent

KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
WARNINGS = {"warn": 0, "warning": 0, "Finding": 1}
"""What says a warning -> which of its arguments is the sentence."""


def messages() -> str:
    """The golden file's text: by module, in the order of the sources."""
    lines: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = [line for node in _calls(tree) for line in _message(node, _sentences(tree))]
        if found:
            lines += [str(path.relative_to(PACKAGE.parent)), *found, ""]
    return "\n".join(lines)


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    yield from sorted(calls, key=lambda node: (node.lineno, node.col_offset))


def _sentences(tree: ast.AST) -> dict[str, str]:
    """The texts that a module gives to names, by name; alternatives side by side."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.JoinedStr):
            for target in node.targets:
                text = _text(node.value, {})
                if isinstance(target, ast.Name) and " " in text:
                    found.setdefault(target.id, []).append(text)
    return {name: " | ".join(texts) for name, texts in found.items()}


def _message(call: ast.Call, known: dict[str, str]) -> Iterator[str]:
    """The lines of a call that makes an error or says a warning; none of another."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    fields = {word.arg: word.value for word in call.keywords}
    if len(call.args) > WARNINGS.get(name, len(call.args)):
        yield f"    Warning: {_text(call.args[WARNINGS[name]], known)}"
    elif name in KINDS and call.args:
        yield f"    {name}: {_text(call.args[0], known)}"
    elif "hint" not in fields and "expected" not in fields:
        return
    else:  # A function that makes one.
        yield f"    {name}: {'; '.join(_text(word, known) for word in call.args)}"
    for label, field in (("expected", "expected"), ("got", "got"), ("hint", "hint")):
        if field in fields:
            yield f"        {label}: {_text(fields[field], known)}"


def _text(node: ast.expr, known: dict[str, str]) -> str:
    """A literal's text, or that of a name which the module gives one; an expression in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, known) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, known)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, known) + _text(node.right, known)
    return "{" + known.get(ast.unparse(node), " ".join(ast.unparse(node).split())) + "}"


def difference() -> list[str]:
    """What differs from the golden file, as lines of a diff; nothing where it is up to date."""
    golden = GOLDEN.read_text(encoding="utf-8") if GOLDEN.exists() else ""
    old, new = golden.splitlines(), messages().splitlines()
    return list(difflib.unified_diff(old, new, GOLDEN.name, "the sources", lineterm="", n=1))


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        GOLDEN.write_text(messages(), encoding="utf-8")
    else:
        sys.exit("\n".join(difference()) or None)
