"""The documentation: what stands in it runs, or says why it is not run; pictures are up to date."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import elsewhere
from support.cli_world import done
from support.markdown import RUN, Block, blocks, not_shown, run_block

import sgraf_deploy
from sgraf_deploy.bench import measure
from sgraf_deploy.bench.compare import Limits, compare_reports
from sgraf_deploy.bench.intervals import intervals_svg
from sgraf_deploy.bench.picture import comparison_svg
from sgraf_deploy.bench.rounds import rounds_svg
from sgraf_deploy.bench.saved import read_report
from sgraf_deploy.demo import assets
from tools.pages.architecture import PICTURE, architecture_svg

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "benchmarks" / "README.md", *ROOT.glob("docs/*.md")])
BLOCKS = [block for page in PAGES for block in blocks(page)]
RUNNING = [page for page in PAGES if any(block.runs for block in blocks(page))]

REASONS = ("installs ", "needs ", "ten minutes", "minutes", "half a minute", "a measurement")
"""How a reason not to run a block may begin."""

IMAGES = 120
"""Scenes of the demo that the pages are run on: quick, and more than any page asks for."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `sgraf-demo`, as `sgraf-deploy demo` leaves it, with fewer scenes."""
    folder = tmp_path_factory.mktemp("docs")
    target = folder / "sgraf-demo"
    assets.lay_out(target)
    scenes = target / assets.DATA
    np.save(scenes / "test_ims.npy", np.load(scenes / "test_ims.npy")[:IMAGES])
    for name, count in (("caps", 5 * IMAGES), ("ids", IMAGES)):
        path = scenes / f"test_{name}.txt"
        lines = path.read_text(encoding="utf-8").splitlines()[:count]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = [target / name for name in assets.CHECKPOINTS]
    done("export", *files, "--vocab", target / assets.VOCABULARY, "-o", target / assets.BUNDLE)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_shows_runs(
    page: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "PRODUCTS", ((8, 8, 8),))
    monkeypatch.setattr("sgraf_deploy.bench.latency.CANDIDATES", (2, 5))
    shutil.copytree(demo, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.runs:
            run_block(block, names)


def test_every_block_is_run_or_says_why_not() -> None:
    assert len(BLOCKS) > 30
    wrong = [
        str(block)
        for block in BLOCKS
        if block.language not in {*RUN, "text"}
        or not block.notes.get("not run", REASONS[0]).startswith(REASONS)
    ]
    assert wrong == []


def test_no_code_is_indented_where_nothing_would_run_it() -> None:
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        fenced = False
        for number, line in enumerate(lines):
            fenced ^= line.startswith("```")
            code = line.startswith("    ") and (number == 0 or not lines[number - 1].strip())
            assert fenced or not code or line.strip().startswith("options:"), f"{page}:{number + 1}"


def test_the_readme_is_short_and_the_example_has_eight_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
    first = blocks(ROOT / "README.md")[0]
    assert first.language == "python"
    assert len([line for line in first.text.splitlines() if line]) == 8


def test_every_page_is_in_the_navigation() -> None:
    named = json.dumps(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8")))
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f'"{page.name}"' not in named]
    assert missing == []


def test_every_public_name_has_its_place_in_the_api() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    left_out = {"__version__", "TilePlan"}
    for name in set(sgraf_deploy.__all__) - left_out:
        assert f"::: sgraf_deploy.{name}\n" in text, name


def test_the_readmes_table_is_that_of_the_saved_reports() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.endswith(" × |")]
    for row, name in zip(rows, ("f8k_dev200", "demo200", "random_SGR", "random_SAF"), strict=True):
        saved = ROOT / "benchmarks" / "results" / f"bench_{name}.json"
        engines = json.loads(saved.read_text(encoding="utf-8"))["throughput"]["engines"]
        loop, native = engines[0], engines[1]
        assert (loop["engine"], native["engine"]) == ("literal loop", "native fp32")
        rates = (f"{one['per_second']['score']:,.0f}" for one in (loop, native))
        shown = [cell.strip() for cell in row.strip("|").split("|")][2:]
        assert shown == [*rates, f"{native['times_literal']:.2f} ×"], row


def test_the_pictures_are_up_to_date() -> None:
    saved = ROOT / "benchmarks" / "results" / "bench_f8k_dev200.json"
    report = json.loads(saved.read_text(encoding="utf-8"))
    speed = ROOT / "docs" / "images" / "recall-and-speed.svg"
    assert speed.read_text(encoding="utf-8") == comparison_svg(report)
    rounds = ROOT / "docs" / "images" / "rounds.svg"
    assert rounds.read_text(encoding="utf-8") == rounds_svg(report["throughput"])
    demo = read_report(saved.with_name("bench_demo200.json"))
    pairs = [("ort fp32", "native fp32")]
    compared = compare_reports(demo, demo, Limits(drop=0.5, slowdown=10.0), pairs=pairs)
    changes = ROOT / "docs" / "images" / "compare.svg"
    assert changes.read_text(encoding="utf-8") == intervals_svg(compared)
    drawn = architecture_svg(ROOT / "sgraf_deploy")
    assert PICTURE.read_text(encoding="utf-8") == drawn, "python -m tools.pages.architecture"


def test_the_table_of_other_programs_says_who_ran() -> None:
    """`make test-outside` prints the table; its figures are of one machine."""
    lines = (ROOT / "docs" / "outside-python.md").read_text(encoding="utf-8").splitlines()
    header, rule, *_ = elsewhere.table(dict.fromkeys(elsewhere.PROGRAMS, elsewhere.Found(0, True)))
    start = lines.index(header)
    rows = [line.strip("| ").split(" | ") for line in lines[start + 2 :] if line.startswith("| ")]
    assert lines[start + 1] == rule
    assert [(row[0], row[1]) for row in rows] == [(p.name, p.graphs) for p in elsewhere.PROGRAMS]
    for program, (*_, figure, ranks) in zip(elsewhere.PROGRAMS, rows, strict=True):
        if program.why_not is not None:
            assert figure == program.why_not
        else:
            assert float(figure) <= elsewhere.MOST
            assert ranks == "equal"


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        (("wrote 12 files", "…", "a  2.5  -1"), None),
        (("wrote 1 file",), "wrote 1 file"),
        (("a 1 1", "wrote 1 files"), "wrote 1 files"),
        (("wrote … files", "--------  ---"), None),
    ],
)
def test_shown_output_is_compared_but_for_its_numbers(
    shown: tuple[str, ...], missing: str | None
) -> None:
    output = "wrote 3 files\n-----  -----\na    17.25    +3\n"
    assert not_shown(shown, output) == missing


def test_a_block_that_fails_is_seen(tmp_path: Path) -> None:
    def block(language: str, text: str) -> Block:
        return Block(tmp_path / "a.md", 1, language, text, {})

    for wrong in (
        block("python", "undefined"),
        block("console", "$ sgraf-deploy inspect nothing.sgraf"),
        block("console", "$ sgraf-deploy --version\nsomething else"),
        block("console", "$ make docs"),
    ):
        with pytest.raises((AssertionError, NameError)):
            run_block(wrong, {})
    run_block(block("console", "$ sgraf-deploy --version\n…"), {})
