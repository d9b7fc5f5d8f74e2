"""The walks of docs/walks.md: every function that they name exists, and is called in that order."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.small_models import SGR, random_regions
from support.tiny_backbone import spec_of, write_photos

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.native import library
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.features.folder import write_features
from sgraf_deploy.features.paths import find_photos
from sgraf_deploy.features.spec import open_extractor
from sgraf_deploy.runtime.rows import resolve_rows

PACKAGE = Path(sgraf_deploy.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "walks.md").read_text(encoding="utf-8")


def hops(operation: str) -> list[str]:
    """The names that a walk's numbered lines begin with."""
    (section,) = [part for part in PAGE.split("\n## ") if f"`{operation}`" in part.split("\n")[0]]
    found = re.findall(r"^(\d+)\. `([\w.]+)` ", section, re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return [name for _, name in found]


def function_of(name: str) -> Any:
    """The function or method that a hop names; AssertionError if there is none of that name."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module = f"sgraf_deploy.{'.'.join(parts[:end])}"
        if (PACKAGE.joinpath(*parts[:end])).with_suffix(".py").exists():
            found: Any = import_module(module)
            for part in parts[end:]:
                assert hasattr(found, part), f"{module} has no {'.'.join(parts[end:])}"
                found = getattr(found, part)
            return inspect.unwrap(found)
    raise AssertionError(f"no module holds {name}")


@contextmanager
def recorded() -> Iterator[list[Any]]:
    """The code of every function that this thread calls in the block, in order."""
    calls: list[Any] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls.append(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def missed(names: list[str], calls: list[Any]) -> list[str]:
    """The hops that are not called after the one before them."""
    found, place = [], 0
    for name in names:
        code = function_of(name).__code__
        try:
            place = calls.index(code, place) + 1
        except ValueError:
            found.append(name)
    return found


@pytest.mark.skipif(not library.LIBRARY.exists(), reason="engine native was not compiled")
def test_one_caption_goes_through_score_as_the_walk_says(exported: Bundle) -> None:
    with sgraf_deploy.load(exported, engine="native") as scorer:
        images = scorer.encode_images(random_regions(SGR, 3))
        with recorded() as calls:
            scorer.score(images, ["word1 word2 word3"])
    assert missed(hops("score"), calls) == []


def test_one_checkpoint_goes_through_export_as_the_walk_says(
    checkpoint_files: dict[str, Path], vocabulary_file: Path, tmp_path: Path
) -> None:
    options = ExportOptions(vocabulary=vocabulary_file, precisions=("fp32",))
    with recorded() as calls:
        export_bundle([checkpoint_files["sgr"]], tmp_path / "sgr.sgraf", options)
    assert missed(hops("export"), calls) == []


def test_photographs_go_through_features_as_the_walk_says(
    backbone_file: Path, tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", [1])
    with recorded() as calls:
        photos = find_photos([tmp_path / "photos"]).photos
        extractor = open_extractor(spec_of(backbone_file))
        write_features(photos, extractor, tmp_path / "mine", "dev")
    assert missed(hops("features"), calls) == []


def test_the_functions_in_c_exist() -> None:
    named = re.findall(r"`(\w+\.[ch]):(\w+)`", PAGE)
    assert len(named) >= 2
    for file, function in named:
        text = (PACKAGE / "engines" / "native" / file).read_text(encoding="utf-8")
        assert re.search(rf"\b{function}\(", text), f"{file} has no {function}"


def test_a_walk_in_another_order_or_of_another_name_is_noticed() -> None:
    with recorded() as calls:
        resolve_rows(0, 1, "row")
    names = ["runtime.rows.resolve_rows", "runtime.rows.check_index"]
    assert missed(names, calls) == []
    assert missed(names[::-1], calls) == names[:1]
    assert missed([*names, "runtime.tiling.make_tiling"], calls) == ["runtime.tiling.make_tiling"]
    with pytest.raises(AssertionError):
        missed(["runtime.rows.nothing"], calls)
