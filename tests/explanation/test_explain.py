"""What `explain` says of a score: effects by the scorer, weights by whatever runs the graph."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.fake_engine import FakeEngine
from support.onnx_bundles import write_bundle
from support.refusals import ANY, naming, refused
from support.small_models import SGR, WORDS, random_regions

import sgraf_deploy
from sgraf_deploy import Explanation, Scorer, explain
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines import registry
from sgraf_deploy.engines.ensemble import ensemble_logits
from sgraf_deploy.errors import BundleError, DataError, InputError, UnavailableError
from sgraf_deploy.explanation.values import plain
from sgraf_deploy.runtime.tiles import TileLimits

FIXTURES = Path(__file__).parents[1] / "fixtures"
CAPTION = "word3 word7 nowhere word11"
WORD_COUNT = 6
"""Tokens of the caption, the markers counted."""

CLOSE = 1e-5


@pytest.fixture(scope="module")
def scorer(exported: Bundle) -> Iterator[Scorer]:
    with sgraf_deploy.load(exported, "ort", "fp32", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def regions() -> NDArray[np.float32]:
    return random_regions(SGR, 3)


@pytest.fixture(scope="module")
def found(scorer: Scorer, regions: NDArray[np.float32]) -> Explanation:
    return explain(scorer, regions[1], CAPTION)


def test_tokens_stand_where_they_were_written(found: Explanation) -> None:
    texts = ["<start>", "word3", "word7", "nowhere", "word11", "<end>"]
    assert [token.text for token in found.tokens] == texts
    assert [token.known for token in found.tokens] == [True, True, True, False, True, True]
    assert [token.marker for token in found.tokens] == [True, *[False] * 4, True]
    spans = [token.span for token in found.tokens]
    assert spans == [None, (0, 5), (6, 11), (12, 19), (20, 26), None]
    assert found.tokens[1].id == WORDS.index("word3")
    assert found.tokens[3].id == WORDS.index("<unk>")
    assert found.nodes == ("(whole)", *texts)


def test_every_member_has_its_weights(found: Explanation) -> None:
    assert list(found.members) == ["sgr", "saf"]
    for member in found.members.values():
        assert member.attention.shape == (WORD_COUNT, SGR.regions)
        assert member.alignments.shape[0] == WORD_COUNT + 1
        assert member.attention_entropy.shape == (WORD_COUNT,)
        assert np.abs(member.attention.sum(axis=1) - 1).max() < CLOSE
    sgr, saf = found.members.values()
    assert sgr.edges is not None
    assert sgr.edges_entropy is not None
    assert sgr.edges.shape == (SGR.sgr_steps, WORD_COUNT + 1, WORD_COUNT + 1)
    assert np.isnan(sgr.edges_entropy[-1, 1:]).all()
    assert np.isfinite(sgr.edges_entropy[-1, 0])
    assert (sgr.gates, sgr.kept, sgr.contribution, sgr.bias, sgr.kept_entropy) == (None,) * 5
    assert saf.gates is not None
    assert saf.kept is not None
    assert saf.contribution is not None
    assert (saf.edges, saf.edges_entropy) == (None, None)
    assert {len(each) for each in (saf.gates, saf.kept, saf.contribution)} == {WORD_COUNT + 1}


def test_the_score_is_the_scorers(
    scorer: Scorer, regions: NDArray[np.float32], found: Explanation
) -> None:
    logits = scorer.logits_pairs(regions[1:2], [CAPTION])
    for name, member in found.members.items():
        assert member.logit == pytest.approx(float(logits[name][0]), abs=CLOSE)
    assert found.logit == pytest.approx(float(ensemble_logits(logits)[0]), abs=CLOSE)
    similarity = float(scorer.score(regions[1:2], [CAPTION])[0, 0])
    assert found.similarity == pytest.approx(similarity, abs=CLOSE)


def test_safs_bias_is_the_checkpoints(exported: Bundle, found: Explanation) -> None:
    from sgraf_deploy.model.checkpoint import read_reference

    weights = read_reference(exported.reference_path("saf"), exported.member("saf").config)
    assert found.members["saf"].bias == pytest.approx(
        float(weights["similarity.bias"][0]), abs=CLOSE
    )


def ensemble(scorer: Scorer, image: NDArray[Any], caption: str) -> float:
    return float(ensemble_logits(scorer.logits_pairs(image[None], [caption]))[0])


def test_effects_are_what_the_scorer_says_of_what_is_left(
    scorer: Scorer, regions: NDArray[np.float32], found: Explanation
) -> None:
    image = regions[1]
    assert np.isnan(found.without_word[[0, -1]]).all()
    words = CAPTION.split()
    for place, word in enumerate(words):
        rest = " ".join(each for each in words if each != word)
        change = ensemble(scorer, image, rest) - ensemble(scorer, image, CAPTION)
        assert found.without_word[place + 1] == pytest.approx(change, abs=CLOSE)
    assert found.without_region.shape == (SGR.regions,)
    for region in range(SGR.regions):
        changed = image.copy()
        changed[region] = image.mean(axis=0)
        change = ensemble(scorer, changed, CAPTION) - found.logit
        assert found.without_region[region] == pytest.approx(change, abs=CLOSE)
    assert np.abs(found.without_region).max() > 100 * CLOSE


def test_an_encoded_image_has_no_regions_to_replace(
    scorer: Scorer, regions: NDArray[np.float32], found: Explanation
) -> None:
    again = explain(scorer, scorer.encode_images(regions)[1], CAPTION)

    assert again.without_word == pytest.approx(found.without_word, abs=CLOSE, nan_ok=True)
    assert again.members["sgr"].attention == pytest.approx(
        found.members["sgr"].attention, abs=CLOSE
    )
    with refused(InputError, hint=ANY):
        _ = again.without_region
    assert again.to_json()["without_region"] is None


def test_token_ids_are_explained_too(
    scorer: Scorer, regions: NDArray[np.float32], found: Explanation
) -> None:
    again = explain(scorer, regions[1], [token.id for token in found.tokens])

    assert again.caption is None
    assert [token.text for token in again.tokens] == [
        *("<start>", "word3", "word7", "<unk>", "word11", "<end>")
    ]
    assert [token.known for token in again.tokens] == [token.known for token in found.tokens]
    assert {token.span for token in again.tokens} == {None}
    assert again.without_word == pytest.approx(found.without_word, abs=CLOSE, nan_ok=True)


def test_a_caption_of_one_word_can_lose_it(scorer: Scorer, regions: NDArray[np.float32]) -> None:
    found = explain(scorer, regions[0], "word3")

    assert np.isfinite(found.without_word).tolist() == [False, True, False]


@pytest.mark.parametrize("engine", ["native", "torch", "torch-reference"])
def test_every_engine_on_a_cpu_explains_itself(
    exported: Bundle, regions: NDArray[np.float32], found: Explanation, engine: str
) -> None:
    with sgraf_deploy.load(exported, engine, "fp32", threads=1) as other:
        again = explain(other, regions[1], CAPTION)

    assert again.weights_by == f"{engine}, fp32"
    assert again.scored_by.startswith(engine)
    assert_the_same(again, found, CLOSE)


def assert_the_same(found: Explanation, expected: Explanation, tolerance: float) -> None:
    one, other = found.to_json(), expected.to_json()
    assert one["tokens"] == other["tokens"]
    for name, member in other["members"].items():
        for part in member.keys() - {"module"}:
            left, right = (np.array(each["members"][name][part], float) for each in (one, other))
            assert left == pytest.approx(right, abs=tolerance, nan_ok=True), (name, part)
    for part in ("without_word", "without_region", "logit"):
        left, right = (np.array(each[part], dtype=float) for each in (one, other))
        assert left == pytest.approx(right, abs=4 * tolerance, nan_ok=True), part


def test_weights_of_halves_are_float32(
    exported: Bundle, regions: NDArray[np.float32], found: Explanation
) -> None:
    with sgraf_deploy.load(exported, "torch", "fp16", device="cpu", threads=1) as halves:
        again = explain(halves, regions[1], CAPTION)

    assert again.members["saf"].attention.dtype == np.float32
    assert again.members["saf"].attention == pytest.approx(found.members["saf"].attention, abs=5e-3)
    assert "fp16-rounded" in again.scored_by
    assert again.weights_by == "torch, fp32"


class Counted:
    """A scorer on the fake engine of a bundle with real graphs `explain`; it counts its pairs."""

    def __init__(self, bundle: Bundle) -> None:
        self.engine = FakeEngine(bundle)
        self.scorer = Scorer(bundle, self.engine, precision="fp32", limits=TileLimits())

    def pairs(self, members: int) -> int:
        """The pairs that were scored."""
        sizes = [shape for graph, shape in self.engine.shapes if graph == "pair_scorer"]
        assert "scorer" not in self.engine.calls
        names = [axis for axis in self.axes() if isinstance(axis, str)]
        return sum(shape[names.index("pairs")] for shape in sizes) // members

    def axes(self) -> list[str | int]:
        spec = self.engine.signature("sgr", "pair_scorer")
        return list(dict.fromkeys(axis for each in spec.inputs for axis in each.axes))


def test_an_explanation_costs_few_pairs_and_two_calls(
    exported: Bundle, regions: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, calls = Counted(exported), []
    ordinary = Scorer.logits_pairs

    def count(self: Scorer, *arguments: Any, **more: Any) -> Any:
        calls.append(1)
        return ordinary(self, *arguments, **more)

    monkeypatch.setattr(Scorer, "logits_pairs", count)
    found = explain(counted.scorer, regions[0], CAPTION)

    assert counted.pairs(members=2) <= 2 + WORD_COUNT + SGR.regions
    assert counted.pairs(members=2) == 1 + 4 + SGR.regions
    assert len(calls) == 2
    assert found.weights_by == "ort, fp32"  # The fake engine does not run the graph.
    assert found.scored_by.startswith("fake")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A bundle that is older than the graph `explain`, with its original weights."""
    shutil.copytree(FIXTURES / "v3.sgraf", tmp_path / "old.sgraf")
    return tmp_path / "old.sgraf"


def test_an_old_bundle_is_explained_from_its_original_weights(old: Path) -> None:
    with np.load(FIXTURES / "v3_expected.npz") as arrays:
        regions, ids, count = arrays["regions"], arrays["token_ids"], arrays["lengths"]
    with sgraf_deploy.load(old, "ort", "fp32", threads=1) as scorer:
        found = explain(scorer, regions[0], ids[1][: count[1]])
    with sgraf_deploy.load(old, "torch-reference", threads=1) as scorer:
        expected = explain(scorer, regions[0], ids[1][: count[1]])

    assert found.weights_by == "torch, fp32"
    assert_the_same(found, expected, CLOSE)


def test_without_torch_an_old_bundle_says_what_is_missing(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = registry.import_package

    def absent(name: str) -> Any:
        if "torch" in name:
            raise UnavailableError(f"Python cannot import {name}")
        return whole(name)

    with sgraf_deploy.load(old, "ort", "fp32", threads=1) as scorer:
        monkeypatch.setattr(registry, "import_package", absent)
        with refused(UnavailableError, hint=naming("pip install")):
            explain(scorer, np.zeros((3, 6), np.float32), WORDS[4])


def test_without_original_weights_an_old_bundle_wants_the_checkpoint(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "small.sgraf")
    with (
        sgraf_deploy.load(bundle, "ort", "fp32", threads=1) as scorer,
        refused(BundleError, hint=naming("--checkpoint")),
    ):
        explain(scorer, np.zeros((4, 6), np.float32), "a word1")


@pytest.mark.parametrize(
    ("image", "caption", "error"),
    [
        (np.zeros((3, SGR.regions, SGR.img_dim), np.float32), CAPTION, InputError),
        (np.zeros((SGR.regions + 1, SGR.img_dim), np.float32), CAPTION, DataError),
        (np.full((SGR.regions, SGR.img_dim), np.inf, np.float32), CAPTION, DataError),
        (np.zeros((SGR.regions, SGR.img_dim), np.float32), " ", DataError),
        (np.zeros((SGR.regions, SGR.img_dim), np.float32), [1, 10**6, 2], DataError),
        (np.zeros((SGR.regions, SGR.img_dim), np.float32), [], DataError),
    ],
    ids=["three-images", "too-many-regions", "infinite", "blank", "no-id", "empty"],
)
def test_what_cannot_be_explained_is_refused(
    scorer: Scorer, image: NDArray[np.float32], caption: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        explain(scorer, image, caption)


def test_encoded_captions_and_several_images_are_refused(
    scorer: Scorer, regions: NDArray[np.float32]
) -> None:
    with refused(InputError, hint=ANY, expected=ANY, got=ANY):
        explain(scorer, regions[0], scorer.encode_captions([CAPTION]))  # type: ignore[arg-type]
    with refused(InputError, expected=ANY, got=naming(3)):
        explain(scorer, scorer.encode_images(regions), CAPTION)


def test_what_is_not_a_number_is_null_in_json(found: Explanation) -> None:
    value = found.to_json()

    assert value["without_word"][0] is None
    assert value["members"]["sgr"]["edges_entropy"][-1][1] is None
    assert "alignments" not in value["members"]["sgr"]
    assert plain(np.array([[1.0, np.nan]])) == [[1.0, None]]
