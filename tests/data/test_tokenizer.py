from __future__ import annotations

import random
from pathlib import Path

import pytest
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktSentenceTokenizer
from support.refusals import naming, refused

from sgraf_deploy.data.captions import read_captions
from sgraf_deploy.data.tokenizer import TOKENIZERS, TRAINED, VOCABULARY, Tokenizer, abbreviations
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.errors import DataError, InputError, UnavailableError

PIECES = (
    *(
        "a",
        "Dog",
        "b1",
        "7",
        "cannot",
        "gonna",
        "wan-na",
        "got",
        "ta",
        "i.",
        "e.g.",
        "3.",
        "É",
        "ß",
    ),
    *(" ", " ", " ", "  ", "-", "--", "\t", "\n", "\u00a0", "\u2028"),
    *(
        ".",
        " .",
        "...",
        ",",
        ":",
        ";",
        "?",
        "!",
        "'",
        "'s",
        "n't",
        '"',
        "``",
        "(",
        ")",
        "$",
        "“",
        "”",
    ),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def literal(caption: str) -> list[str]:
    """The definition: a fresh untrained Punkt, then NLTK's words of each sentence."""
    sentences = PunktSentenceTokenizer().tokenize(caption.lower())
    return [word for sentence in sentences for word in NLTKWordTokenizer().tokenize(sentence)]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        pytest.param("A black Dog", ["a", "black", "dog"], id="lower-case"),
        pytest.param("two dogs run .", ["two", "dogs", "run", "."], id="period-apart"),
        pytest.param("two dogs run.", ["two", "dogs", "run", "."], id="period-attached"),
        pytest.param("a t-shirt", ["a", "t-shirt"], id="hyphen-stays"),
        pytest.param("left--right", ["left", "--", "right"], id="double-dash"),
        pytest.param("a  b   c .", ["a", "b", "c", "."], id="runs-of-spaces"),
        pytest.param("\ta dog \r\n", ["a", "dog"], id="white-space-around"),
        pytest.param("it cannot run", ["it", "can", "not", "run"], id="contraction"),
        pytest.param("A man's hat", ["a", "man", "'s", "hat"], id="possessive"),
        pytest.param("it isn't", ["it", "is", "n't"], id="negation"),
        pytest.param("red, white", ["red", ",", "white"], id="comma"),
        pytest.param("3,000 men", ["3,000", "men"], id="comma-in-a-number"),
        pytest.param("a dog. a cat.", ["a", "dog", ".", "a", "cat", "."], id="two-sentences"),
        pytest.param("a dog runs 3. it", ["a", "dog", "runs", "3.", "it"], id="ordinal-no-end"),
        pytest.param('a "big" dog', ["a", "``", "big", "''", "dog"], id="quotes"),
        pytest.param("(sign)", ["(", "sign", ")"], id="brackets"),
        pytest.param("CAFÉ", ["café"], id="accents"),
        pytest.param("犬 и ☕", ["犬", "и", "☕"], id="other-scripts"),
        pytest.param("", [], id="empty"),
        pytest.param(" \t\n", [], id="blank"),
        pytest.param(".", ["."], id="only-a-period"),
    ],
)
def test_words(tokenizer: Tokenizer, caption: str, words: list[str]) -> None:
    assert tokenizer.tokenize(caption) == words


def test_equals_the_literal_definition_on_odd_text(tokenizer: Tokenizer) -> None:
    draw = random.Random(20)
    captions = ["".join(draw.choices(PIECES, k=draw.randint(1, 9))) for _ in range(1500)]
    different = [caption for caption in captions if tokenizer.tokenize(caption) != literal(caption)]
    assert different == []


def test_equals_the_literal_definition_on_real_captions(tokenizer: Tokenizer, shared: Path) -> None:
    captions = read_captions(shared / "data/f8k_precomp/dev_caps.txt")
    assert len(captions) == 5000
    some = captions[::3]
    different = [caption for caption in some if tokenizer.tokenize(caption) != literal(caption)]
    assert different == []


def test_the_words_before_do_not_change_those_after() -> None:
    used = Tokenizer()
    for _ in range(3):
        used.tokenize("Dr. Smith owns 1. a Dog 2. Cats i. Mice and so on. Then it ends")
    caption = "see 1. dog 2. cats i. mice on. then"
    assert used.tokenize(caption) == Tokenizer().tokenize(caption)


def test_nothing_is_kept_of_the_captions() -> None:
    used = Tokenizer()
    for number in range(50):
        used.tokenize(f"room 1. word{number} and initial i. other{number} goes on")
    assert len(used._sentences._params.ortho_context) == 0  # type: ignore[attr-defined]


def test_the_variant_is_recorded(tokenizer: Tokenizer) -> None:
    assert TOKENIZERS == ("nltk-vocabulary-punkt", "nltk-untrained-punkt", "nltk-punkt")
    assert tokenizer.variant == "nltk-untrained-punkt"


def test_an_unknown_variant_is_refused() -> None:
    with refused(InputError, expected=naming(*TOKENIZERS), got="spacy"):
        Tokenizer("spacy")


ABBREVIATED = Vocabulary((*SPECIAL_WORDS, ".", "mr.", "st.", "u.s.", "w.", "...", "road..", "3."))


@pytest.fixture(scope="module")
def abbreviating() -> Tokenizer:
    return Tokenizer(VOCABULARY, vocabulary=ABBREVIATED)


def test_abbreviations_are_the_words_that_end_in_a_period() -> None:
    assert abbreviations(ABBREVIATED.words) == {"mr", "st", "u.s", "w"}


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        pytest.param("Mr. Smith waves", ["mr.", "smith", "waves"], id="stays-whole"),
        pytest.param("a u.s. flag .", ["a", "u.s.", "flag", "."], id="periods-within"),
        pytest.param("on w. 34th st.", ["on", "w.", "34th", "st", "."], id="last-is-split-off"),
        pytest.param("he is the u.s.", ["he", "is", "the", "u.s", "."], id="last-of-several"),
        pytest.param("on st. . a dog", ["on", "st.", ".", "a", "dog"], id="period-apart"),
        pytest.param("a road.. a dog", ["a", "road", "..", "a", "dog"], id="two-periods"),
        pytest.param("ex-mr. bean", ["ex-mr.", "bean"], id="behind-a-hyphen"),
        pytest.param("dr. smith waves", ["dr", ".", "smith", "waves"], id="no-such-word"),
        pytest.param("a man. a dog.", ["a", "man", ".", "a", "dog", "."], id="two-sentences"),
    ],
)
def test_words_with_abbreviations(abbreviating: Tokenizer, caption: str, words: list[str]) -> None:
    assert abbreviating.tokenize(caption) == words


def test_abbreviations_of_the_vocabulary_do_what_trained_ones_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abbreviating: Tokenizer
) -> None:
    write_punkt(tmp_path, "mr\nst\nu.s\nw\n")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    trained, draw = Tokenizer(TRAINED), random.Random(21)
    pieces = (*PIECES, *("Mr. ", "st.", "u.s.", "u.s. ", "W. ", "x-mr.", "road.. "))
    captions = ["".join(draw.choices(pieces, k=draw.randint(1, 9))) for _ in range(1500)]

    different = [one for one in captions if abbreviating.tokenize(one) != trained.tokenize(one)]

    assert different == []


def test_a_vocabulary_without_abbreviations_changes_nothing(tokenizer: Tokenizer) -> None:
    same = Tokenizer(VOCABULARY, vocabulary=Vocabulary((*SPECIAL_WORDS, ".", "dog")))
    draw = random.Random(22)
    captions = ["".join(draw.choices(PIECES, k=draw.randint(1, 9))) for _ in range(300)]
    assert [same.tokenize(one) for one in captions] == [tokenizer.tokenize(one) for one in captions]


def test_abbreviations_need_a_vocabulary() -> None:
    with refused(InputError, VOCABULARY):
        Tokenizer(VOCABULARY)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("f8k", set()),
        ("f30k", {"a", "mr", "st", "dr", "u.s", "mrs", "j.p"}),
        ("coco", {"s", "ave", "mr", "st", "u.s", "w", "dr"}),
    ],
)
def test_abbreviations_of_the_published_vocabularies(
    data: str, words: set[str], shared: Path
) -> None:
    found = Vocabulary.load(shared / f"data/{data}_precomp_vocab.json")
    assert abbreviations(found.words) == words


def test_a_time_limit_of_nltk_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer()

    def too_slow(text: str) -> list[str]:
        raise TimeoutError("regex timed out")

    monkeypatch.setattr(tokenizer._words, "tokenize", too_slow)
    with refused(DataError, 9, "'odd, text'"):
        tokenizer.tokenize("odd, text")


def test_trained_punkt_without_its_data_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    hint = ["python -m nltk.downloader punkt_tab", VOCABULARY]
    with refused(UnavailableError, "nltk-punkt", hint=hint):
        Tokenizer("nltk-punkt")


def write_punkt(folder: Path, abbreviations: str) -> None:
    """NLTK's data for Punkt, trained on nothing but abbreviations."""
    model = folder / "tokenizers" / "punkt_tab" / "english"
    model.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (model / name).write_text("")
    (model / "abbrev_types.txt").write_text(abbreviations)


def test_trained_punkt_uses_its_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_punkt(tmp_path, "approx\n")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    trained = Tokenizer("nltk-punkt")
    caption = "Approx. two dogs run . cats sit."
    assert trained.variant == "nltk-punkt"
    words = ["two", "dogs", "run", ".", "cats", "sit", "."]
    assert trained.tokenize(caption) == ["approx.", *words]
    assert Tokenizer().tokenize(caption) == ["approx", ".", *words]
