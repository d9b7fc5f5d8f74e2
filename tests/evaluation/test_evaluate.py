"""R@K of a bundle on a split, on the fake engine: order, numbers, and what is refused early."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.fake_engine import FakeEngine
from support.onnx_bundles import WORDS, write_bundle
from support.refusals import ANY, naming, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import Module
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import region_statistics
from sgraf_deploy.engines.ensemble import combine_logits, similarities
from sgraf_deploy.errors import BundleError, DataError
from sgraf_deploy.evaluation import recall
from sgraf_deploy.evaluation.chance import FEWEST_IMAGES
from sgraf_deploy.evaluation.cost import Cost, estimate_seconds
from sgraf_deploy.evaluation.evaluate import EvalOptions, evaluate_split
from sgraf_deploy.evaluation.recall import Ties
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.runtime.tiles import TileLimits, TileShape

IMAGES = 12

Events = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "small.sgraf")


@pytest.fixture
def engine(bundle: Bundle) -> FakeEngine:
    return FakeEngine(bundle)


def scorer_of(bundle: Bundle, engine: FakeEngine) -> Scorer:
    return Scorer(bundle, engine, precision="fp32", limits=TileLimits())


@pytest.fixture
def scorer(bundle: Bundle, engine: FakeEngine) -> Scorer:
    return scorer_of(bundle, engine)


def make_split(images: int = IMAGES) -> PrecompSplit:
    """Random features, and captions of words of which some have no id."""
    rng = np.random.default_rng(1)
    regions = rng.normal(size=(images, 4, 6)).astype(np.float32)
    words = [*WORDS[4:], "zebra"]
    captions = [" ".join(rng.choice(words, rng.integers(1, 8))) for _ in range(5 * images)]
    owners = np.arange(5 * images, dtype=np.int32) // np.int32(5)
    return PrecompSplit("dev", regions, captions, owners)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])  # the fake's counter is always the host's
@pytest.mark.parametrize("modules", [("SGR", "SAF"), ("SGR", "SGR", "SAF")], ids="+".join)
def test_ranks_are_counted_tile_by_tile(
    modules: tuple[Module, ...], device: str, tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "small.sgraf", *modules)
    engine = FakeEngine(bundle)
    engine.device = device
    scorer = Scorer(bundle, engine, precision="fp32", limits=TileLimits(), tile=TileShape(5, 7))
    held = evaluate_split(scorer, make_split(), EvalOptions(folds=1))

    found = evaluate_split(scorer, make_split())

    assert found.reports == held.reports
    assert (found.logits, found.fold_reports, found.memory.result) == ({}, {}, 0)
    assert list(held.logits) == list(found.reports)
    assert held.memory.result == len(held.logits) * 4 * IMAGES * 5 * IMAGES
    assert found.memory.encoded == held.memory.encoded > 0


@pytest.mark.parametrize(
    "options", [EvalOptions(), EvalOptions(folds=3), EvalOptions("authors")], ids=str
)
@pytest.mark.parametrize("modules", [("SGR", "SAF"), ("SAF",), ("SGR", "SGR", "SAF")], ids="+".join)
def test_similarities_go_where_they_are_wanted(
    options: EvalOptions, modules: tuple[Module, ...], tmp_path: Path
) -> None:
    bundle, split = write_bundle(tmp_path / "any.sgraf", *modules), make_split()
    scorer = scorer_of(bundle, FakeEngine(bundle))
    out = np.full((IMAGES, 5 * IMAGES), np.nan, np.float32)

    result = evaluate_split(scorer, split, options, out=out)

    np.testing.assert_array_equal(out, scorer.score(split.regions, split.captions))
    assert result.reports == evaluate_split(scorer, split, options).reports


def test_an_array_that_does_not_fit_is_refused_before_anything_is_encoded(
    scorer: Scorer, engine: FakeEngine
) -> None:
    with refused(DataError, "out"):
        evaluate_split(scorer, make_split(), out=np.zeros((IMAGES, IMAGES), np.float32))
    assert not engine.calls


@pytest.mark.parametrize("options", [EvalOptions(), EvalOptions(folds=2)], ids=str)
def test_ranks_at_chance_are_said_either_way(bundle: Bundle, options: EvalOptions) -> None:
    split = make_split(FEWEST_IMAGES)
    result = evaluate_split(scorer_of(bundle, FakeEngine(bundle)), split, options)
    assert [finding.code for finding in result.of_the_ranks] == ["at-chance"]


@pytest.mark.parametrize("options", [EvalOptions(), EvalOptions(folds=2)], ids=str)
def test_the_cost_is_told_before_anything_is_encoded(bundle: Bundle, options: EvalOptions) -> None:
    engine, told = FakeEngine(bundle), list[Any]()

    def announce(cost: Cost) -> None:
        assert not engine.calls
        told.append(cost)

    scorer = scorer_of(bundle, engine)
    split = make_split()
    result = evaluate_split(scorer, split, options, announce=announce)

    assert told == [Cost(result.memory, None)]
    images, captions = scorer.encode_images(split.regions), scorer.encode_captions(split.captions)
    assert result.memory.encoded == images.nbytes + captions.nbytes
    assert result.memory.tiles == scorer.tiling(images, captions).tile_bytes


def test_time_is_told_by_a_sample_of_long_work(bundle: Bundle) -> None:
    """1 s for the sample's 32 images of 256, 2 s for 32 captions of 1,280, 3 s for its pairs."""
    scorer, split = scorer_of(bundle, FakeEngine(bundle)), make_split(256)
    ids = [np.array([1, 4, 2], np.int32)] * len(split.captions)

    seconds = estimate_seconds(scorer, split.regions, ids, iter([0.0, 1.0, 3.0, 6.0]).__next__)

    assert seconds == 1 * 256 / 32 + 2 * 1280 / 32 + 3 * 256 * 1280 / 32**2


def test_a_larger_sample_where_the_first_takes_no_time(bundle: Bundle) -> None:
    scorer, split = scorer_of(bundle, FakeEngine(bundle)), make_split(800)
    ids = [np.array([1, 4, 2], np.int32)] * len(split.captions)
    times = iter([0.0, 9.0, 9.0, 9.1, 10.0, 11.0, 11.0, 11.1])

    seconds = estimate_seconds(scorer, split.regions, ids, times.__next__)

    assert seconds == pytest.approx(800 / 96 + 0.1 * 800 * 4000 / 96**2)


@pytest.mark.parametrize("ties", ["last", "authors"])
def test_reports_are_those_of_the_logits(scorer: Scorer, ties: Ties) -> None:
    split = make_split()
    members = scorer.logits(split.regions, split.captions)
    logits = {"SGR": members["sgr"], "SAF": members["saf"]}
    logits["SGRAF"] = combine_logits(logits["SGR"], logits["SAF"])

    result = evaluate_split(scorer, split, EvalOptions(ties, folds=3))

    assert list(result.reports) == list(result.fold_reports) == ["SGR", "SAF", "SGRAF"]
    for name, matrix in logits.items():
        np.testing.assert_array_equal(result.logits[name], matrix)
        ranked = matrix if ties == "last" else similarities(matrix)
        assert result.reports[name] == recall.evaluate(ranked, ties=ties)
        assert result.fold_reports[name] == recall.folds(ranked, 3, ties=ties)
    assert len({report.rsum for report in result.reports.values()}) == 3


@pytest.mark.parametrize(
    ("modules", "models"),
    [
        (["SAF"], ["SAF"]),
        (["SGR", "SGR"], ["SGR", "SGR-2", "ENSEMBLE"]),
        (["SAF", "SGR", "SAF"], ["SAF", "SGR", "SAF-2", "ENSEMBLE"]),
    ],
    ids=["one", "seeds", "three"],
)
def test_every_member_has_its_report(
    modules: list[Module], models: list[str], tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "small.sgraf", *modules)

    scorer = scorer_of(bundle, FakeEngine(bundle))
    result = evaluate_split(scorer, make_split())
    held = evaluate_split(scorer, make_split(), EvalOptions(folds=1))

    assert list(result.reports) == list(held.reports) == list(held.logits) == models
    assert result.run["members"] == [model.lower() for model in models if model != "ENSEMBLE"]
    assert result.fold_reports == {}


def test_stages_and_seconds(scorer: Scorer) -> None:
    stages: dict[str, Events] = {}

    def stage(name: str) -> Callable[[int, int], None]:
        seen = stages.setdefault(name, [])
        return lambda done, total: seen.append((done, total))

    result = evaluate_split(
        scorer, make_split(), stage=stage, clock=iter([100.0, 101.5, 104.5]).__next__
    )

    long = ["encoding images", "encoding captions", "scoring"]
    assert list(stages) == long
    for name, total in zip(long, (IMAGES, 5 * IMAGES, 5 * IMAGES * IMAGES), strict=True):
        assert stages[name][-1] == (total, total)
    assert result.seconds == {"encode": 1.5, "score": 3.0}


def test_matrices_are_combined_and_ranked_in_stages_of_their_own(scorer: Scorer) -> None:
    stages: list[str] = []

    evaluate_split(scorer, make_split(), EvalOptions(folds=2), stage=stages.append)

    assert stages[2:] == ["scoring", "combining", "ranking"]


def test_the_report_carries_what_two_runs_are_compared_by(scorer: Scorer, bundle: Bundle) -> None:
    split = make_split()

    report = json.loads(json.dumps(evaluate_split(scorer, split).to_json(), allow_nan=False))

    words = " ".join(split.captions).split()
    assert report["words"] == {
        "captions": 5 * IMAGES,
        "tokens": len(words),
        "unknown": words.count("zebra"),
    }
    assert {key: report["run"][key] for key in ("engine", "precision", "executed", "device")} == {
        "engine": "fake",
        "precision": "fp32",
        "executed": "fp32",
        "device": "cpu",
    }
    assert report["run"]["bundle_sha256"] == bundle.sha256
    assert (report["run"]["images"], report["run"]["captions"]) == (IMAGES, 5 * IMAGES)
    assert {"sgraf-deploy", "python", "numpy"} <= set(report["run"]["versions"])
    assert report["memory_bytes"]["result"] == 0
    assert report["memory_bytes"]["encoded"] > 0
    assert report["run"]["ranks_from"] == "tiles"
    assert report["folds"] == {}
    assert "logits" not in report


def with_statistics(bundle: Bundle, statistics: dict[str, Any] | None) -> Bundle:
    manifest = replace(bundle.manifest, region_statistics=statistics)
    return Bundle(bundle.path, manifest, bundle.sha256)


def test_foreign_regions_are_told_before_anything_is_encoded(
    bundle: Bundle, engine: FakeEngine
) -> None:
    split = make_split()
    foreign = with_statistics(bundle, region_statistics(split.regions * 5))
    told: Events = []

    def tell(finding: Finding) -> None:
        told.append((finding, sum(engine.calls.values())))

    result = evaluate_split(scorer_of(foreign, engine), split, tell=tell)

    assert [(finding.code, calls) for finding, calls in told] == [
        ("foreign-regions", 0),
        ("unknown-words", 0),
        ("unknown-captions", 0),
    ]
    assert result.findings == tuple(finding for finding, _ in told)
    report = result.to_json()
    assert report["warnings"] == [finding.message for finding in result.findings[:2]]
    assert report["notes"] == [result.findings[2].message]


def other_regions(regions: NDArray[Any]) -> PrecompSplit:
    return replace(make_split(), regions=regions)


@pytest.mark.parametrize(
    ("split", "folds", "named", "got"),
    [
        (make_split(), 5, "folds", 5),
        (make_split(), 0, "folds", 0),
        (other_regions(np.zeros((12, 4, 7), np.float32)), None, "regions", naming("(12, 4, 7)")),
        (other_regions(np.full((12, 4, 6), np.nan, np.float32)), None, "image 0", "nan"),
        (replace(make_split(), captions=["a", ""]), None, "caption 1", ANY),
    ],
    ids=["folds", "no-folds", "shape", "nan", "caption"],
)
def test_bad_input_is_refused_before_anything_is_encoded(
    scorer: Scorer,
    engine: FakeEngine,
    split: PrecompSplit,
    folds: int | None,
    named: str,
    got: object,
) -> None:
    with refused(DataError, named, got=got):
        evaluate_split(scorer, split, EvalOptions(folds=folds))
    assert not engine.calls


def test_a_bundle_without_words_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "ids.sgraf", vocabulary=False)
    engine = FakeEngine(bundle)

    with refused(BundleError, bundle.path):
        evaluate_split(scorer_of(bundle, engine), make_split())
    assert not engine.calls
