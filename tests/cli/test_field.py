"""What people of this field feed such a program: each folder's README says what is expected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_world import done, line_naming, recall_rows

import sgraf_deploy
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.demo import assets
from sgraf_deploy.evaluation.evaluate import evaluate_split
from sgraf_deploy.runtime import Scorer

SPLITS = {
    "37-good": [],
    "25-shuffled": ["at-chance"],
    "29-zero-padded": ["zero-regions"],
    "30-foreign-features": ["foreign-regions"],
    "30b-all-zero": ["zero-images", "at-chance"],
    "31e-flickr-token": ["caption-form", "unknown-words"],
    "31f-py3-bytes-repr": ["caption-form", "unknown-words"],
    "32b-punct-caption": ["unknown-captions"],
}
"""Folder -> the codes of what is found in it."""

NOTES = {"zero-regions", "unknown-captions"}


@pytest.fixture(scope="module")
def demo(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as `sgraf-deploy demo` exports it, but for its fp16 graphs."""
    assert (shared / "field").is_dir()
    folder = tmp_path_factory.mktemp("field") / "demo"
    assets.lay_out(folder)
    return folder


def export(demo: Path, vocabulary: Path, target: str) -> list[object]:
    """The words of an export of the demo's checkpoints that ranks its scenes."""
    gate = ("--gate-data", demo / assets.DATA, "--gate-split", assets.SPLIT)
    files = [demo / name for name in assets.CHECKPOINTS]
    return [
        *("export", *files, "--vocab", vocabulary, *gate),
        *("--precision", "fp32", "-o", demo / target),
    ]


@pytest.fixture(scope="module")
def bundle(demo: Path) -> Path:
    result = done(*export(demo, demo / assets.VOCABULARY, assets.BUNDLE))
    assert result.warned == []
    line_naming(result.stdout, 100, 500, assets.SPLIT)
    return demo / assets.BUNDLE


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Iterator[Scorer]:
    with sgraf_deploy.load(bundle) as opened:
        yield opened


@pytest.mark.parametrize("name", SPLITS)
def test_what_is_found_in_a_split(scorer: Scorer, shared: Path, name: str) -> None:
    split = open_precomp(shared / "field" / name, "test")

    found = evaluate_split(scorer, split)

    assert [finding.code for finding in found.findings] == SPLITS[name]
    assert all(finding.is_warning == (finding.code not in NOTES) for finding in found.findings)
    assert list(found.reports) == ["SGR", "SAF", "SGRAF"]


@pytest.mark.parametrize("name", SPLITS)
def test_what_eval_says_of_it(bundle: Path, shared: Path, name: str) -> None:
    result = done("eval", bundle, "--data", shared / "field" / name, "--split", "test")

    assert result.warned == [code for code in SPLITS[name] if code not in NOTES]
    assert result.noted == [code for code in SPLITS[name] if code in NOTES]
    assert len(result.stderr.splitlines()) == len(result.warned)
    assert re.search(r"\d\.\d%", result.stdout)  # of its words, unknown
    assert "chance i" in recall_rows(result.stdout)


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("30-foreign-features", ["foreign-regions"]),
        ("30b-all-zero", ["zero-images"]),
        ("31e-flickr-token", ["caption-form", "unknown-words"]),
    ],
)
@pytest.mark.parametrize("query", [("--caption", "a big sphere"), ("--image", 3)], ids=["c", "i"])
def test_what_rerank_says_of_it(
    bundle: Path, shared: Path, name: str, codes: list[str], query: tuple[object, ...]
) -> None:
    data = ("--data", shared / "field" / name, "--split", "test")

    result = done("rerank", bundle, *data, *query)

    of_captions = name == "31e-flickr-token"
    asked_of_captions = query[0] == "--image"
    assert result.warned == ([] if of_captions and not asked_of_captions else codes)


def test_what_bench_says_of_it(bundle: Path, shared: Path) -> None:
    data = ("--data", shared / "field" / "25-shuffled", "--split", "test")
    fast = ("--engine", "ort", "--repeats", 1, "--warmup", 0, "--queries", 3)

    result = done("bench", bundle, *data, *fast)

    assert result.warned == ["at-chance"]
    line_naming(result.stderr, "SGR", "SAF", "SGRAF")


@pytest.mark.parametrize("name", ["swapped", "sorted"])
def test_a_vocabulary_in_another_order_is_seen(demo: Path, shared: Path, name: str) -> None:
    """Right in size and words, it passes every gate."""
    vocabulary = shared / "field" / "40-vocabs" / f"{name}.json"

    result = done(*export(demo, vocabulary, f"{name}.sgraf"))

    assert result.warned == ["vocabulary-name", "at-chance"]
    line_naming(result.stderr, vocabulary, "scenes_vocab.json")
    line_naming(result.stderr, "SGR", "SAF", "SGRAF")
