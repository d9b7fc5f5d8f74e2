"""Draws which package imports which, from the imports in the sources, as SVG.

python -m tools.pages.architecture writes docs/images/architecture.svg.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

from sgraf_deploy.svg import document, rect, text
from tools.imports import imports

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
NAME = "sgraf_deploy"
PLAIN = "plain types"
"""Stands for the modules that are no packages, and for `files`, which all may import."""

BOX, ROW, GAP, LEVEL, MARGIN = 130, 44, 26, 88, 20
"""Width and height of a box, the space beside it, the height of a level, and the border."""

BEND, LEAST_WIDTH = 8, 580
"""Width of a line that passes a level; of the picture, for what stands below."""

Graph = dict[str, set[str]]


def import_graph(package: Path) -> Graph:
    """The parts of a package, and the parts that each imports, be it inside a function."""
    graph: Graph = {}
    for path in sorted(package.rglob("*.py")):
        names = path.relative_to(package).with_suffix("").parts
        if names[0] in {"__init__", "__main__"}:
            continue
        part = part_of(names[0], package)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {part_of(name, package) for name in _imported(tree)}
        graph.setdefault(part, set()).update(imported - {part})
    return graph


def part_of(name: str, package: Path) -> str:
    """A package's name, or what stands for all that is no package."""
    return name if (package / name).is_dir() and name != "files" else PLAIN


def _imported(tree: ast.AST) -> Iterator[str]:
    targets = (item.target for item in imports(tree))
    yield from (one.split(".")[1] for one in targets if one.startswith(f"{NAME}."))


def needs_torch(package: Path) -> Mapping[str, list[str]]:
    """Parts that import PyTorch at the top of a module -> the packages in them that do.

    A part whose own modules do needs it as a whole: none is named.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        names = path.relative_to(package).with_suffix("").parts
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if _at_the_top(tree, "torch"):
            inner = found.setdefault(part_of(names[0], package), [])
            if names[1] not in inner:
                inner.append(names[1])
    own = {
        part
        for part, inner in found.items()
        if not all((package / part / one).is_dir() for one in inner)
    }
    return {part: [] if part in own else inner for part, inner in found.items()}


def _at_the_top(tree: ast.AST, library: str) -> bool:
    """Whether a module imports a library when it is itself imported."""
    early = (item for item in imports(tree) if not item.lazy and not item.typing)
    return any(item.target.split(".")[0] == library for item in early)


def reduced(graph: Graph) -> Graph:
    """The same graph without an edge that a longer path replaces."""
    beyond: dict[str, set[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        beyond[name] = set().union(*({one} | beyond[one] for one in graph.get(name, ())))
    return {
        name: {one for one in below if not any(one in beyond[two] for two in below)}
        for name, below in graph.items()
    }


def levels(graph: Graph) -> dict[str, int]:
    """How far down each part stands, from 0: below everything that imports it."""
    above = _turned(graph)
    depth: dict[str, int] = {}
    for name in TopologicalSorter(above).static_order():
        depth[name] = 1 + max((depth[one] for one in above[name]), default=-1)
    return depth


def stepwise(graph: Graph) -> tuple[Graph, list[list[str]]]:
    """The graph with a bend (`a>b@2`) on every level that an edge passes, and its rows.

    Every row is sorted by where those stand that lead to it, so that few lines cross.
    """
    depth, steps = levels(graph), {name: set[str]() for name in graph}
    for name in sorted(graph):
        for one in sorted(graph[name]):
            bends = [f"{name}>{one}@{level}" for level in range(depth[name] + 1, depth[one])]
            depth |= {bend: int(bend.partition("@")[2]) for bend in bends}
            for start, end in pairwise([name, *bends, one]):
                steps.setdefault(start, set()).add(end)
    above, place = _turned(steps), dict[str, float]()
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in sorted(steps):
        rows[depth[name]].append(name)
    for row in rows:
        row.sort(key=lambda name: (_mean([place[one] for one in sorted(above[name])]), name))
        place |= {name: index - (len(row) - 1) / 2 for index, name in enumerate(row)}
    return steps, rows


def _turned(graph: Graph) -> Graph:
    """The graph with every edge the other way round."""
    above: Graph = {name: set() for name in graph}
    for name, below in graph.items():
        for one in below:
            above.setdefault(one, set()).add(name)
    return above


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def architecture_svg(package: Path) -> str:
    """The picture: a box for each part, and a line down to each that it imports directly."""
    steps, rows = stepwise(reduced(import_graph(package)))
    wide = {name: BEND if "@" in name else BOX for row in rows for name in row}
    widths = [sum(wide[name] + GAP for name in row) - GAP for row in rows]
    width, torch = max(*widths, LEAST_WIDTH) + 2 * MARGIN, needs_torch(package)
    places: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        x = (width - widths[level]) / 2
        for name in row:
            places[name] = (x + wide[name] / 2, MARGIN + level * LEVEL)
            x += wide[name] + GAP
    elements = [
        _line(places[name], places[one], "@" in one)
        for name in sorted(steps)
        for one in sorted(steps[name])
    ]
    for name, place in places.items():
        if "@" not in name:
            elements += _box(name, place, torch)
    height = MARGIN + len(rows) * LEVEL
    told = "A line leads down to what is imported; what follows from others is left out."
    below = text(width / 2, height - 14, f"{told} Orange: needs PyTorch.", "soft")
    return document(width, height, [*elements, below])


def _line(start: tuple[float, float], end: tuple[float, float], bends: bool) -> str:
    """From below one box to the next, and past the level where it only bends."""
    (x1, y1), (x2, y2) = start, end
    y1 += ROW
    bend = (y1 + y2) / 2
    path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {bend:.1f} {x2:.1f} {bend:.1f} {x2:.1f} {y2:.1f}"
    return f'<path class="box" d="{path}{f"v{ROW}" if bends else ""}"/>'


def _box(name: str, place: tuple[float, float], torch: Mapping[str, list[str]]) -> Iterator[str]:
    x, y = place
    yield rect(x - BOX / 2, y, BOX, ROW, "c" if name in torch else "b")
    yield text(x, y + (20 if name in torch else 27), name, "on title")
    if name in torch:
        which = ", ".join(torch[name])
        yield text(x, y + 35, f"PyTorch: {which}" if which else "PyTorch", "on small")


if __name__ == "__main__":
    PICTURE.write_text(architecture_svg(ROOT / NAME), encoding="utf-8")
