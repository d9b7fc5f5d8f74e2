"""The examples in the docstrings of what users call: each public one has one, and it holds."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_models import SGR, random_regions
from support.tiny_backbone import write_photos

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.gallery import Batch
from sgraf_deploy.runtime.opened import OpenedBundle

PARSER = doctest.DocTestParser()
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def public_methods(kind: type[Any]) -> dict[str, Any]:
    """The methods of a class that are called, not read, by `CLASS.METHOD`."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {f"{kind.__name__}.{name}": method for name, method in found if not name.startswith("_")}


def named_in_the_page() -> dict[str, Any]:
    """What the page on the API names; in place of a module its classes."""
    found: dict[str, Any] = {}
    for name in re.findall(r"^::: sgraf_deploy\.(\w+)$", PAGE.read_text("utf-8"), re.MULTILINE):
        one = getattr(sgraf_deploy, name)
        if inspect.ismodule(one):
            found |= {
                f"{name}.{member}": kind
                for member, kind in inspect.getmembers(one, inspect.isclass)
                if kind.__module__ == one.__name__
            }
        else:
            found[name] = one
    return found


EXAMPLES: dict[str, Any] = {
    **named_in_the_page(),
    **public_methods(sgraf_deploy.Scorer),
    **public_methods(sgraf_deploy.Reranker),
    **public_methods(sgraf_deploy.GalleryRanker),
}


@pytest.fixture
def world(
    exported: Bundle, photographed: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """A folder with what the examples open, and the names that two classes' examples make."""
    shutil.copytree(exported.path, tmp_path / "f8k.sgraf")
    shutil.copytree(photographed.path, tmp_path / "photos.sgraf")
    write_photos(tmp_path / "photos", range(2))
    np.save(tmp_path / "dev_ims.npy", random_regions(SGR, 6))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    run(sgraf_deploy.Scorer, names)
    gallery = sgraf_deploy.Gallery.create("photos.gallery", names["scorer"])
    gallery.write(Batch.of(names["names"], names["images"]))
    run(sgraf_deploy.Reranker, names)
    return names


def run(documented: Any, names: dict[str, Any]) -> None:
    """Run the example of a docstring, which may add names."""
    text = inspect.getdoc(documented) or ""
    example = PARSER.get_doctest(text, names, documented.__name__, None, None)
    assert example.examples, "it has none"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    failed = runner.run(example, out=said.append, clear_globs=False).failed
    names.update(example.globs)
    assert failed == 0, "".join(said)


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_holds(name: str, world: dict[str, Any]) -> None:
    if name.startswith("GalleryRanker"):
        pytest.importorskip("rerankers", reason="needs the package rerankers, of the group dev")
        if name != "GalleryRanker":
            run(sgraf_deploy.GalleryRanker, world)
    try:
        run(EXAMPLES[name], world)
    finally:
        world["scorer"].close()


def test_every_public_name_has_an_example_to_be_run() -> None:
    without = {"__version__", "TilePlan", "errors"}
    assert set(sgraf_deploy.__all__) - without <= set(EXAMPLES)
    errors = [name for name in EXAMPLES if name.startswith("errors.")]
    assert len(errors) >= 11


def test_help_explains_every_method_and_property() -> None:
    members = {**vars(OpenedBundle), **vars(sgraf_deploy.Scorer)}
    for name, member in members.items():
        if name.startswith("_") or not (callable(member) or isinstance(member, property)):
            continue
        first = (inspect.getdoc(member) or "").partition("\n")[0]
        assert first.endswith((".", "?", "…", "`")), f"{name}: {first!r} is no sentence"
        assert first[:1].isupper(), f"{name}: {first!r}"
