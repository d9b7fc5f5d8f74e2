"""What people of this field feed such a program: each folder's README says what is expected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.world import done, error_line, run

import sgraf_deploy
from sgraf_deploy.bench.evaluate import evaluate_split
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.demo import assets
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

VOCABULARIES = {
    "extra_key": "'freq'",
    "html": "is not JSON",
    "list": "keys: expected word2idx",
    "long": "expected 67 words",
    "no_idx": "keys: expected word2idx",
    "no_unk": "got no <unk>",
    "one_based": "expected ids from 0, got ids from 1",
    "short": "expected 67 words",
    "upper": "expected words in lower case",
    "word2idx_only": "keys: expected word2idx",
}


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
    assert "Warning" not in result.output
    assert "R@K in percent on the first 100 images × 500 captions of split test" in result.stdout
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

    warned = [code for code in SPLITS[name] if code not in NOTES]
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["Warning"] * len(warned)
    notes = [line for line in result.stdout.splitlines() if line.startswith("note: ")]
    assert len(notes) == len(SPLITS[name]) - len(warned)
    assert "words unknown" in result.stdout
    assert "chance" in result.stdout


@pytest.mark.parametrize("name", ["30-foreign-features", "30b-all-zero", "31e-flickr-token"])
@pytest.mark.parametrize("query", [("--caption", "a big sphere"), ("--image", 3)], ids=["c", "i"])
def test_what_rerank_says_of_it(
    bundle: Path, shared: Path, name: str, query: tuple[object, ...]
) -> None:
    data = ("--data", shared / "field" / name, "--split", "test")

    result = done("rerank", bundle, *data, *query)

    of_captions = name == "31e-flickr-token"
    asked_of_captions = query[0] == "--image"
    expected = 2 * asked_of_captions if of_captions else 1
    assert result.stderr.count("Warning: ") == expected


def test_what_bench_says_of_it(bundle: Path, shared: Path) -> None:
    data = ("--data", shared / "field" / "25-shuffled", "--split", "test")
    fast = ("--engine", "ort", "--repeats", 1, "--warmup", 0, "--queries", 3)

    result = done("bench", bundle, *data, *fast)

    assert "R@K of SGR, SAF, SGRAF is not clearly above chance" in result.stderr


@pytest.mark.parametrize("name", ["swapped", "sorted"])
def test_a_vocabulary_in_another_order_is_seen(demo: Path, shared: Path, name: str) -> None:
    """Right in size and words, it passes every gate."""
    vocabulary = shared / "field" / "40-vocabs" / f"{name}.json"

    result = done(*export(demo, vocabulary, f"{name}.sgraf"))

    named, ranks = (line for line in result.stderr.splitlines() if line.startswith("Warning: "))
    assert "is not named scenes_vocab.json" in named
    assert "R@K of SGR, SAF, SGRAF is not clearly above chance" in ranks


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_wrong_vocabulary_is_named_with_its_fault(demo: Path, shared: Path, name: str) -> None:
    vocabulary = shared / "field" / "40-vocabs" / f"{name}.json"

    result = run(*export(demo, vocabulary, "wrong.sgraf"))

    message = error_line(result)
    assert result.exit_code == 2
    assert f"vocabulary {vocabulary}" in message
    assert VOCABULARIES[name] in message
    assert not (demo / "wrong.sgraf").exists()


def test_a_pickled_vocabulary_is_no_json(demo: Path, shared: Path) -> None:
    result = run(*export(demo, shared / "field" / "40-vocabs" / "vocab.pkl", "wrong.sgraf"))
    assert "vocab.pkl: expected JSON in UTF-8, got a pickle" in error_line(result)
