"""What builds the site: links that hold there, tables of messages, a check of the result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.pages.architecture import import_graph, levels, reduced, stepwise
from tools.pages.check import problems
from tools.pages.stage import MESSAGES, relinked, stage
from tools.pages.troubleshooting import MARK, message_tables, plain

ROOT = Path(__file__).parents[1]
FILES = {
    "README.md": "index.md",
    "docs/a.md": "a.md",
    "docs/images/p.svg": "images/p.svg",
    "benchmarks/README.md": "measurements.md",
}


@pytest.mark.parametrize(
    ("source", "link", "there"),
    [
        ("README.md", "docs/a.md#top", "a.md#top"),
        ("README.md", "docs/images/p.svg", "images/p.svg"),
        ("docs/a.md", "../README.md#results", "index.md#results"),
        ("docs/a.md", "../benchmarks/README.md", "measurements.md"),
        ("benchmarks/README.md", "../docs/a.md", "a.md"),
        ("docs/a.md", "https://example.org/b.md", "https://example.org/b.md"),
        ("docs/a.md", "#here", "#here"),
    ],
)
def test_a_link_leads_to_where_its_target_is_on_the_site(
    source: str, link: str, there: str
) -> None:
    assert relinked(f"see [it]({link}).", source, FILES) == f"see [it]({there})."


def test_a_link_to_what_is_not_on_the_site_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"docs/a\.md links to b\.md"):
        relinked("[b](b.md)", "docs/a.md", FILES)
    code = "```text\n[b](b.md)\n```\n"
    assert relinked(code, "docs/a.md", FILES) == code


def test_every_page_of_the_repository_can_be_staged(tmp_path: Path) -> None:
    stage(ROOT, tmp_path)
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.md")}
    assert {"index.md", "quickstart.md", "contributing.md", "measurements.md"} <= pages
    text = (tmp_path / "troubleshooting.md").read_text(encoding="utf-8")
    assert MARK not in text
    assert text.count("\n| ") > 200


def test_every_error_of_the_golden_file_has_a_row() -> None:
    golden = (ROOT / MESSAGES).read_text(encoding="utf-8")
    tables = message_tables(golden)
    for title in ("## Checkpoints", "## Bundles", "## Engines", "## The gate", "## Scoring"):
        assert title in tables
    for row in tables.splitlines():
        if row.startswith("|"):
            assert row.replace("\\|", "").count("|") == 4, row
            assert "{" not in row


def test_messages_are_shown_without_the_code_that_makes_them() -> None:
    golden = (
        "sgraf_deploy/data/npy.py\n"
        "    DataError: {path} holds {n:,} of {', '.join(names)}\n"
        "        expected: a | b\n"
        "        hint: use <this>\n"
        "    _wrong: {text}\n"
        "    Warning: odd {x}\n"
    )
    assert message_tables(golden).splitlines()[2:] == [
        "| Message | Expected | What helps |",
        "|---|---|---|",
        "| Warning: odd … |  |  |",
        "| … holds … of … | a \\| b | use &lt;this> |",
    ]
    assert plain("{a}{b} {c} x") == "… x"


def test_a_graph_is_drawn_without_what_follows_and_in_levels() -> None:
    graph = {"top": {"middle", "low"}, "middle": {"low"}, "side": {"low"}, "low": set[str]()}
    found = reduced(graph)
    assert found == {"top": {"middle"}, "middle": {"low"}, "side": {"low"}, "low": set()}
    assert levels(found) == {"top": 0, "side": 0, "middle": 1, "low": 2}
    steps, rows = stepwise(found)
    assert steps["side"] == {"side>low@1"}
    assert sorted(rows[1]) == ["middle", "side>low@1"]


def test_the_picture_is_the_same_in_every_process() -> None:
    code = "from tools.pages.architecture import *; print(architecture_svg(ROOT / NAME))"
    drawn = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    ]
    assert drawn[0].startswith("<svg")
    assert drawn == drawn[:1] * 3


def test_the_graph_is_that_of_the_sources() -> None:
    found = import_graph(ROOT / "sgraf_deploy")
    assert "engines" in found["runtime"]
    assert "runtime" not in found["engines"]
    assert found["plain types"] == set()


PAGE = '<html><head>{head}</head><body><h1 id="top"></h1>{body}</body></html>'


@pytest.mark.parametrize(
    ("head", "body", "named"),
    [
        ("", '<a href="b.html#top">b</a> <a href="https://example.org">far</a>', None),
        ("", '<a href="c.html">c</a>', "c.html"),
        ("", '<a href="b.html#nowhere">b</a>', "b.html#nowhere"),
        ("", '<img src="p.svg">', "p.svg"),
        ('<script src="https://example.org/a.js"></script>', "", "https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "", "//example.org/a.css"),
        ('<link rel="canonical" href="https://example.org/a">', "", None),
    ],
)
def test_what_a_built_site_lacks_is_named(
    tmp_path: Path, head: str, body: str, named: str | None
) -> None:
    (tmp_path / "a.html").write_text(PAGE.format(head=head, body=body), encoding="utf-8")
    (tmp_path / "b.html").write_text(PAGE.format(head="", body=""), encoding="utf-8")
    found = problems(tmp_path)
    assert len(found) == (named is not None)
    assert all(named in one for one in found if named is not None)


def test_a_style_that_loads_from_the_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@import 'https://example.org/font.css';", encoding="utf-8")
    (tmp_path / "b.css").write_text("a { background: url(data:image/svg) }", encoding="utf-8")
    assert len(problems(tmp_path)) == 1
