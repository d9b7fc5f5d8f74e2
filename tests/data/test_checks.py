"""What is suspicious in data: each kind with its innocent form beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import holds, naming, refused

from sgraf_deploy.data.captions import encode_captions, read_captions
from sgraf_deploy.data.checks import (
    FEWEST_WORDS,
    UNKNOWN_SHARE,
    caption_findings,
    check_split,
    member_findings,
    region_findings,
    special_word_findings,
    vocabulary_findings,
    word_findings,
)
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import RegionSurvey, check_regions, region_statistics
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.errors import BundleError, DataError

TOKENIZER = Tokenizer()
VOCABULARY = Vocabulary([*SPECIAL_WORDS, "two", "dogs", "play", "in", "the", "snow"])
PLAIN = "two dogs play in the snow"


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in findings]


def assert_names(finding: Finding, *names: object) -> None:
    """The numbers and names that stand in what is said."""
    for name in names:
        assert holds(finding.message, name), name


def features(images: int = 6, regions: int = 3, img_dim: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).normal(size=(images, regions, img_dim)).astype(np.float32)


def survey(regions: np.ndarray[Any, Any]) -> RegionSurvey:
    return check_regions(regions, regions.shape[1], regions.shape[2], "regions")


FORMS = [
    "1000.jpg#0\ttwo dogs play",
    "1000092795.jpg| 0| Two young guys",
    "COCO_val2014_000000391895.JPG,a man on a bike",
    "1000.jpg",
    "b'two dogs play'",
    'b"two dogs\' snow"',
    '{"caption": "two dogs"}',
    '["two", "dogs"]',
    "[4, 5, 6]",
    "17,two dogs play",
    "17\ttwo dogs play",
    "dogs\ttwo dogs play",
    "two dogs &amp; a man",
    "two dogs &#39;play&#39;",
    "<p>two dogs",
    "two dogs<br/>play",
    r"two dogs\nplay",
    r"a caf\u00e9",
    r"a caf\xc3\xa9",
    '"two dogs play"',
    "'two dogs play'",
    "“two dogs play”",
    "<start> two dogs <end>",
    "4 5 6 9",
    "nan",
    "None",
    "N/A",
    "a cafÃ©",
    "two dogsâ€™ snow",
]

INNOCENT = [
    PLAIN,
    "two dogs (one of them black), in the snow.",
    'a sign that says "stop"',
    "the dogs' snow",
    "2 dogs in the snow",
    "R&B; a band plays",
    "a café in the snow, at 5,000 m",
    "a man < a dog > a cat",
    "b is the letter on the sign",
    "!!!",
    "犬が雪で遊ぶ",
    "a .jpg on a screen",
    "none of the dogs play",
]


@pytest.mark.parametrize("caption", FORMS)
def test_what_a_machine_wrote_is_named_with_its_number(caption: str) -> None:
    (finding,) = caption_findings([*[PLAIN] * 5, *[caption] * 15])

    assert (finding.code, finding.is_warning) == ("caption-form", True)
    assert_names(finding, 15, 20, repr(caption))


@pytest.mark.parametrize("caption", INNOCENT)
def test_what_a_person_wrote_is_not(caption: str) -> None:
    assert caption_findings([caption] * 20) == ()


def test_one_odd_caption_of_many_is_a_persons() -> None:
    assert caption_findings([*[PLAIN] * 199, '"stop"', "'stop'"]) == ()
    assert codes(caption_findings([*[PLAIN] * 199, *['"stop"'] * 3])) == ["caption-form"]


def test_forms_are_told_apart() -> None:
    found = caption_findings(["nan", "b'a'", "b'c'", PLAIN])
    assert_names(found[0], 1, 4, repr("nan"))
    assert_names(found[1], 2, 4, repr("b'a'"))
    assert len(found) == 2


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_captions_may_be_looked_at(captions: list[str]) -> None:
    assert len(caption_findings(captions)) <= len(captions)


def test_a_long_example_is_cut() -> None:
    (finding,) = caption_findings(["1.jpg " + 10_000 * "a"])
    assert len(finding.message) < 300


@pytest.mark.parametrize("text", ["<" * 5000, "<a" * 2500, "&a" * 2500, "\\" * 5000, "a." * 2500])
def test_looking_takes_time_in_proportion(text: str) -> None:
    """A pattern that backtracks would not come back."""
    assert caption_findings([text] * 20) == ()


def words(captions: list[str]) -> tuple[Finding, ...]:
    token_ids, stats = encode_captions(captions, TOKENIZER, VOCABULARY)
    return word_findings(captions, token_ids, stats, VOCABULARY)


def test_too_many_unknown_words_are_warned_of() -> None:
    usual = [PLAIN] * 30 + ["two zebras"] * 9
    many = [PLAIN] * 30 + ["two zebras"] * 15

    assert 9 / (6 * 30 + 18) < UNKNOWN_SHARE < 15 / (6 * 30 + 30)
    assert words(usual) == ()
    (finding,) = words(many)
    assert (finding.code, finding.is_warning) == ("unknown-words", True)
    assert_names(finding, "7.1%")


def test_a_few_words_are_no_sample() -> None:
    assert FEWEST_WORDS > 3 * 6
    assert words([PLAIN, PLAIN, "the zebras play in the snow"]) == ()


@pytest.mark.parametrize("caption", ["!!!", "zebras", "犬が雪で遊ぶ"])
def test_captions_of_nothing_known_are_counted(caption: str) -> None:
    (finding,) = words([PLAIN, caption, "zebras play"])
    assert (finding.code, finding.is_warning) == ("unknown-captions", False)
    assert_names(finding, 1, 3, repr(caption))


def test_a_query_of_nothing_known_is_warned_of() -> None:
    assert [finding.is_warning for finding in words(["zebras graze"])] == [True]
    assert words(["zebras play"]) == ()


def test_regions_of_zeros_are_counted() -> None:
    regions = features()
    assert region_findings(survey(regions)) == ()
    regions[1:, 1:] = 0
    (padding,) = region_findings(survey(regions))
    assert (padding.code, padding.is_warning) == ("zero-regions", False)
    assert_names(padding, 10, 18)
    regions[4:] = 0
    failed, padding = region_findings(survey(regions))
    assert (failed.code, failed.is_warning) == ("zero-images", True)
    assert_names(failed, 2, 6)
    assert_names(padding, 6, 18)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_survey_tells_zero_from_tiny_and_large_from_infinite(dtype: Any) -> None:
    info = np.finfo(dtype)
    regions = np.zeros((3, 2, 4), dtype)
    regions[0] = info.max
    regions[1, 0, 2] = info.smallest_subnormal
    found = survey(regions)
    assert (found.zero_regions, found.zero_images, found.regions) == (3, 1, 6)
    assert found.mean_norm == pytest.approx(4 * float(info.max) / 3, rel=1e-12)


@pytest.mark.parametrize(
    ("scale", "warned"),
    [(1.0, False), (1.9, False), (0.6, False), (2.1, True), (0.4, True), (10.0, True)],
)
def test_regions_are_foreign_when_their_norm_is(scale: float, warned: bool) -> None:
    statistics = region_statistics(features())

    found = region_findings(survey(features() * np.float32(scale)), statistics)

    assert codes(found) == ["foreign-regions"] * warned


def test_padding_does_not_make_regions_foreign() -> None:
    regions = features()
    regions[:, 1:] = 0
    assert codes(region_findings(survey(regions), region_statistics(features()))) == [
        "zero-regions"
    ]
    assert region_statistics(regions)["mean_norm"] == pytest.approx(
        np.linalg.norm(regions[:, 0].astype(np.float64), axis=1).mean(), rel=1e-12
    )


def test_zeros_alone_are_not_called_foreign_too() -> None:
    found = region_findings(survey(0 * features()), region_statistics(features()))
    assert codes(found) == ["zero-images"]


@pytest.mark.parametrize("value", [None, "4", True, float("nan"), -1.0, float("inf")])
def test_statistics_that_are_none_are_a_damaged_bundle(value: object) -> None:
    with refused(BundleError, "region_statistics.mean_norm", got=repr(value)):
        region_findings(survey(features()), {"mean_norm": value})


def test_members_of_other_data_are_warned_of() -> None:
    assert member_findings({"sgr": "f30k_precomp", "saf": "f30k_precomp"}) == ()
    assert member_findings({"sgr": "f30k_precomp", "saf": None}) == ()
    (finding,) = member_findings({"sgr": "f30k_precomp", "saf": "coco_precomp"})
    assert (finding.code, finding.is_warning) == ("members-of-other-data", True)
    assert_names(finding, "sgr", "f30k_precomp", "saf", "coco_precomp")


@pytest.mark.parametrize(
    ("path", "names", "warned"),
    [
        ("f30k_precomp_vocab.json", ["f30k_precomp", "f30k_precomp"], False),
        ("vocab/f30k_precomp_vocab.json", ["f30k_precomp"], False),
        ("coco_precomp_vocab.json", ["f30k_precomp"], True),
        ("vocab.json", ["f30k_precomp"], True),
        ("coco_precomp_vocab.json", ["f30k_precomp", "coco_precomp"], False),
        ("vocab.json", [None], False),
        ("vocab.json", [], False),
    ],
)
def test_a_vocabulary_is_named_after_its_data(
    path: str, names: list[str | None], warned: bool
) -> None:
    found = vocabulary_findings(Path(path), names)
    assert codes(found) == ["vocabulary-name"] * warned
    assert all("f30k_precomp_vocab.json" in finding.message for finding in found)


def split_of(regions: np.ndarray[Any, Any], captions: list[str]) -> PrecompSplit:
    owners = np.arange(len(captions), dtype=np.int32) // np.int32(5)
    return PrecompSplit("dev", regions, captions, owners)


def test_a_split_is_looked_at_as_a_whole() -> None:
    regions = 10 * features()
    regions[0, 0] = 0
    captions = ["b'two zebras graze in the savanna'"] * 30

    found = check_split(
        split_of(regions, captions), (3, 5), TOKENIZER, VOCABULARY, region_statistics(features())
    )

    assert codes(found.findings) == [
        *("zero-regions", "foreign-regions", "caption-form", "unknown-words"),
    ]
    assert len(found.token_ids) == found.words.captions == 30
    good = check_split(split_of(features(), [PLAIN] * 30), (3, 5), TOKENIZER, VOCABULARY)
    assert good.findings == ()


def test_a_split_that_cannot_be_used_is_refused() -> None:
    with refused(DataError, "dev", expected=naming(3, 6), got=(6, 3, 5)):
        check_split(split_of(features(), [PLAIN] * 30), (3, 6), TOKENIZER, VOCABULARY)


@pytest.mark.parametrize("name", ["f8k_precomp/train", "f8k_precomp/dev"])
def test_real_captions_are_innocent(shared: Path, name: str) -> None:
    captions = read_captions(shared / "data" / f"{name}_caps.txt")
    vocabulary = Vocabulary.load(shared / "data" / "f8k_precomp_vocab.json")
    token_ids, stats = encode_captions(captions, TOKENIZER, vocabulary)

    assert caption_findings(captions) == ()
    assert codes(word_findings(captions, token_ids, stats, vocabulary)) in (
        [],
        ["unknown-captions"],
    )
    assert stats.unknown_rate < 0.02


@pytest.mark.parametrize(
    ("words", "codes_"),
    [
        ((*SPECIAL_WORDS, "a"), []),
        (("a", *SPECIAL_WORDS), ["special-words"]),
        ((*SPECIAL_WORDS[1:], SPECIAL_WORDS[0]), ["special-words"]),
    ],
)
def test_special_words_with_other_ids_are_warned_of(
    words: tuple[str, ...], codes_: list[str]
) -> None:
    assert codes(special_word_findings(Path("v.json"), Vocabulary(words))) == codes_
