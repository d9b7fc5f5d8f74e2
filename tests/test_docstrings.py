"""The examples in the docstrings of what users call: each public one has one, and it holds."""

from __future__ import annotations

import doctest
import inspect
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_models import SGR, random_regions

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.runtime.opened import OpenedBundle

CLASSES = (
    sgraf_deploy.EncodedCaptions,
    sgraf_deploy.EncodedImages,
    sgraf_deploy.Explanation,
    sgraf_deploy.RerankResult,
    sgraf_deploy.Scorer,
)
PARSER = doctest.DocTestParser()


def public_methods() -> dict[str, Any]:
    """The methods of `Scorer` that are called, not read."""
    found = inspect.getmembers(sgraf_deploy.Scorer, inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_")}


EXAMPLES: dict[str, Any] = {
    "explain": sgraf_deploy.explain,
    "load": sgraf_deploy.load,
    **{one.__name__: one for one in CLASSES},
    **{f"Scorer.{name}": method for name, method in public_methods().items()},
}


@pytest.fixture
def world(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder with what the examples open, and the names that the class's example makes."""
    shutil.copytree(exported.path, tmp_path / "f8k.sgraf")
    np.save(tmp_path / "dev_ims.npy", random_regions(SGR, 6))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    run(sgraf_deploy.Scorer, names)
    return names


def run(documented: Any, names: dict[str, Any]) -> None:
    """Run the example of a docstring, which may add names."""
    text = inspect.getdoc(documented) or ""
    example = PARSER.get_doctest(text, names, documented.__name__, None, None)
    assert example.examples, "it has none"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed = runner.run(example, out=said.append, clear_globs=False).failed
    names.update(example.globs)
    assert failed == 0, "".join(said)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_holds(name: str, world: dict[str, Any]) -> None:
    try:
        run(EXAMPLES[name], world)
    finally:
        world["scorer"].close()


def test_help_explains_every_method_and_property() -> None:
    members = {**vars(OpenedBundle), **vars(sgraf_deploy.Scorer)}
    for name, member in members.items():
        if name.startswith("_") or not (callable(member) or isinstance(member, property)):
            continue
        first = (inspect.getdoc(member) or "").partition("\n")[0]
        assert first.endswith((".", "?", "…", "`")), f"{name}: {first!r} is no sentence"
        assert first[:1].isupper(), f"{name}: {first!r}"
