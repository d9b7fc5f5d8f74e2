"""Tables of the program's messages, from the golden file that the tests compare them with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MARK = "<!-- messages -->"
"""Where the tables stand in docs/troubleshooting.md."""

TITLES = {
    "model": "Checkpoints",
    "export": "Export",
    "gate": "The gate",
    "bundle": "Bundles",
    "schema": "JSON files of a bundle",
    "data": "Captions, vocabularies and region features",
    "runtime": "Scoring",
    "engines": "Engines, GPUs and drivers",
    "compile": "Compiling for TensorRT",
    "evaluation": "Evaluation",
    "train": "Training",
    "bench": "Benchmarks",
    "cli": "Options of the commands",
    "config": "Dimensions and precisions",
    "files": "Writing files",
    "demo": "The demo",
}
"""A package -> what its messages are about, in the order of the page; others follow by name."""


@dataclass
class Message:
    """One message: `kind` is the class of the error, `Warning`, or the function that makes it."""

    kind: str
    text: str
    fields: dict[str, str] = field(default_factory=dict)


def message_tables(golden: str) -> str:
    """Markdown: a heading and a table for each package, messages in alphabetical order."""
    lines: list[str] = []
    for package, messages in by_package(golden).items():
        rows = sorted({row for message in messages if (row := _row(message))})
        if rows:
            lines += [f"## {TITLES.get(package, package.capitalize())}", ""]
            lines += ["| Message | Expected | What helps |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def by_package(golden: str) -> dict[str, list[Message]]:
    """The messages of the golden file by the package they are raised in."""
    found: dict[str, list[Message]] = {}
    package = ""
    for line in golden.splitlines():
        content = line.strip()
        if not line.startswith(" "):
            package = content.removeprefix("sgraf_deploy/").partition("/")[0].removesuffix(".py")
        elif line.startswith("        "):
            name, _, text = content.partition(": ")
            found[package][-1].fields[name] = text
        elif content:
            kind, _, text = content.partition(": ")
            found.setdefault(package, []).append(Message(kind, text))
    order = [*TITLES, *sorted(found)]
    return {name: found[name] for name in sorted(found, key=order.index)}


def plain(text: str) -> str:
    """A message with `…` in place of every expression in braces, safe in a table's cell."""
    kept, depth = "", 0
    for char in text:
        depth += char == "{"
        kept += char if depth == 0 else "…" if char == "{" and depth == 1 else ""
        depth -= char == "}" and depth > 0
    kept = re.sub(r"[ …]*…[ …]*", lambda run: _spaced(run[0]), kept)
    return kept.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _spaced(run: str) -> str:
    return (" " if run[0] == " " else "") + "…" + (" " if run[-1] == " " else "")


def _row(message: Message) -> str:
    """A table's row; nothing for a message that is put together elsewhere."""
    text = plain(message.text)
    if not any(char.isalpha() for char in text):
        return ""
    cells = [text, *(plain(message.fields.get(name, "")) for name in ("expected", "hint"))]
    cells = ["" if cell.strip() == "…" else cell for cell in cells]
    if message.kind == "Warning":
        cells[0] = f"Warning: {cells[0]}"
    elif " " not in text and not any(cells[1:]):
        return ""  # An option's name alone says nothing.
    return "| " + " | ".join(cells) + " |"
