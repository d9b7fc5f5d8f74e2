"""CONTRIBUTING's recipe "Adding an engine": its engine is executed as it stands there."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import numpy as np
import pytest
from support.closeness import assert_close, scorer_depth
from support.refusals import naming, refused
from support.small_models import SGR, random_captions, random_regions

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.base import Engine, EngineOptions, Graph
from sgraf_deploy.engines.registry import ENGINES, EngineEntry, open_engine, unavailable
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import load

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
SECTION = (
    CONTRIBUTING.read_text(encoding="utf-8")
    .partition("## Adding an engine")[2]
    .partition("\n## ")[0]
)
ENGINE, ENTRY = (dedent(block) for block in re.findall(r"(?ms)^ *```python\n(.*?)^ *```$", SECTION))
LENGTHS = (2, 9, 3, 2)

Register = Callable[[str], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Call it with an engine's source: the entry of the recipe then leads to it."""

    def make(source: str) -> None:
        ((name, entry),) = eval(f"{{{ENTRY}}}", {"EngineEntry": EngineEntry}).items()
        module = ModuleType(entry.target.partition(":")[0])
        exec(compile(source, str(CONTRIBUTING), "exec"), vars(module))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(ENGINES, name, entry)

    return make


@pytest.fixture
def toy(register: Register) -> None:
    """The recipe's engine, registered."""
    register(ENGINE)


@pytest.mark.usefixtures("toy")
def test_the_recipe_gives_an_engine_of_the_references_values(exported: Bundle) -> None:
    regions, captions = random_regions(SGR, 5), random_captions(SGR, LENGTHS)
    assert unavailable("toy") is None
    with load(exported, "torch-reference", "fp32") as scorer:
        expected = scorer.logits(regions, captions)
        ranked = scorer.rerank(captions[1], regions).indices
    with load(exported, "toy") as scorer:
        assert (scorer.engine_name, scorer.precision, scorer.device) == ("toy", "fp32", "cpu")
        found = scorer.logits(regions, captions)
        pairs = scorer.logits_pairs(regions, captions, [4, 0], [1, 2])
        assert np.array_equal(scorer.rerank(captions[1], regions).indices, ranked)

    assert list(found) == list(expected) == ["sgr", "saf"]
    for name, right in expected.items():
        depth = scorer_depth(exported.manifest.members[name].config, max(LENGTHS))
        assert_close(found[name], right, depth)
        assert_close(pairs[name], right[[4, 0], [1, 2]], depth)
        assert right.std() > 1e-3


@pytest.mark.usefixtures("toy")
def test_its_graphs_are_opened_once_and_checked(exported: Bundle) -> None:
    engine = open_engine("toy", exported, "fp32", EngineOptions())
    graph = engine.open("sgr", "text_encoder")
    assert engine.open("sgr", "text_encoder") is graph
    ids = np.ones((2, 4), np.int32)
    with refused(InputError, "lengths", expected=naming(), got=naming(5)):
        graph.run({"token_ids": ids, "lengths": np.array([4, 5], np.int32)})


@pytest.mark.usefixtures("toy")
def test_outputs_that_are_bound_are_written(exported: Bundle) -> None:
    graph = open_engine("toy", exported, "fp32", EngineOptions()).open("sgr", "image_encoder")
    inputs = {"regions": random_regions(SGR, 2)}
    bound = np.zeros((2, SGR.embed), np.float32)
    found = graph.run(inputs, {"image_global": bound})
    assert found["image_global"] is bound
    assert np.array_equal(bound, graph.run(inputs)["image_global"])
    assert bound.any()


@pytest.mark.parametrize("method", ["check_available", "_open", "_run"])
def test_what_must_be_written_cannot_be_left_out(
    register: Register, exported: Bundle, method: str
) -> None:
    register(without(ENGINE, method))
    with pytest.raises(TypeError, match=method):
        open_engine("toy", exported, "fp32", EngineOptions()).open("sgr", "scorer")


def without(source: str, method: str) -> str:
    """The source of a module, one method of its classes left out."""
    tree = ast.parse(source)
    for kind in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        kept = [each for each in kind.body if getattr(each, "name", None) != method]
        kind.body = kept or [ast.Pass()]
    left = ast.unparse(tree)
    assert f"def {method}(" in source
    assert f"def {method}(" not in left
    return left


def test_nothing_else_must_be_written() -> None:
    assert Engine.__abstractmethods__ == {"check_available", "_open"}
    assert Graph.__abstractmethods__ == {"_run"}


def test_the_recipe_names_every_member() -> None:
    text = SECTION.replace(ENGINE, "")
    members = {*vars(Engine), *Engine.__annotations__, *vars(Graph), *Graph.__annotations__}
    missing = {name for name in members if name[0] != "_"} - set(re.findall(r"`(\w+)`", text))
    assert missing - {"name"} == set()
    assert {"_open", "_run", "check_available"} <= set(re.findall(r"`(\w+)`", text))
