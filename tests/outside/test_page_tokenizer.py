"""The page's tokenizer, under node, splits every caption as the bundle's tokenizer does."""

# ruff: noqa: RUF001  # characters that look like others are what is tested

from __future__ import annotations

import json
import subprocess
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sgraf_deploy.data.bound import CHARACTERS_PER_WORD
from sgraf_deploy.data.synthetic.splits import SceneOptions, scene_split
from sgraf_deploy.data.tokenizer import UNTRAINED, VOCABULARY, Tokenizer, abbreviations
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.demo.assets import PACKAGED, SCENES
from sgraf_deploy.demo.assets import VOCABULARY as SCENES_VOCABULARY
from sgraf_deploy.errors import DataError
from sgraf_deploy.package import web

pytestmark = pytest.mark.outside

SCRIPT = Path(__file__).parent / "tokenize.mjs"
PAGES = Path(web.__file__).parent / "page" / "tokenizer.js"
BATCH = 200
"""Captions of one example of hypothesis: node takes longer to start than to split them."""

ABBREVIATIONS = Vocabulary([*SPECIAL_WORDS, "mr.", "st.", "u.s.", "e.g.", "no.", "a-b."])
PIECES = (
    *(
        "a",
        "Dog",
        "b1",
        "7",
        "3,000",
        "1.5",
        "-7.",
        "t-shirt",
        "É",
        "ß",
        "İ",
        "ΑΣ",
        "犬",
        "☕",
        "𝐀",
        "𝐚",
    ),
    *("cannot", "gonna", "wanna ", "wan-na", "gotta", "gimme", "gımme", "lemme", "d'ye", "more'n"),
    *(
        " 'tis",
        " 'tıs",
        " 'twas",
        " 'twaſ",
        "'ſ",
        "'s",
        "'s ",
        "'re ",
        "'ll ",
        "n't",
        "n't ",
        "'m ",
    ),
    *(
        "i.",
        "e.g.",
        "mr.",
        "st. ",
        "u.s.",
        "x-st.",
        "no. 3.",
        ". . .",
        "..",
        "...",
        ".",
        " .",
        "!! ",
    ),
    *(" ", " ", " ", "  ", "\t", "\n", "\r", "\x0b", "\x1c", "\x1f", "\x85", "\u00a0", "\u2028"),
    *("\u3000", "\ufeff", "\u200d", "-", "--", "---", "\u2012", "—", ",", ", ", ":", ";", "?"),
    *("'", "' ", "''", '"', '" ', "``", "`", "“", "”", "‘", "’", "«", "»", "„", "(", ")", "[", "]"),
    *("{", "}", "<", ">", "$", "#", "@", "&", "%", "*", "_", "\x00", "\\", "/"),
)
ASSIGNED = st.characters(exclude_categories=("Cn", "Co", "Cs"))
"""Characters that Python's Unicode has assigned: of others, node's may know more."""
CAPTIONS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.one_of(st.sampled_from(PIECES), ASSIGNED), max_size=12).map("".join),
    st.text(st.characters(max_codepoint=127), max_size=40),
    st.text(ASSIGNED, max_size=12),
)


def ours(
    captions: Sequence[str], variant: str, vocabulary: Vocabulary, max_words: int | None
) -> list[list[str] | None]:
    """The words of every caption; None for one that is refused, or has none."""
    tokenizer, found = Tokenizer(variant, max_words, vocabulary), []
    for caption in captions:
        try:
            found.append(tokenizer.tokenize(caption) or None)
        except DataError:
            found.append(None)
    return found


def theirs(
    captions: Sequence[str], variant: str, vocabulary: Vocabulary, max_words: int | None
) -> list[list[str] | None]:
    """The same by the page's tokenizer."""
    known = abbreviations(vocabulary.words) if variant == VOCABULARY else ()
    tokenizer = {
        "abbreviations": sorted(known),
        "mostWords": max_words,
        "charactersPerWord": CHARACTERS_PER_WORD,
    }
    ran = subprocess.run(
        ["node", SCRIPT, PAGES],
        input=json.dumps({"tokenizer": tokenizer, "captions": list(captions)}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    words: list[list[str] | None] = json.loads(ran.stdout)
    return words


def assert_same(
    captions: Sequence[str],
    vocabulary: Vocabulary,
    variant: str = VOCABULARY,
    max_words: int | None = 512,
) -> None:
    right = ours(captions, variant, vocabulary, max_words)
    found = theirs(captions, variant, vocabulary, max_words)
    assert len(found) == len(captions)
    for caption, words, expected in zip(captions, found, right, strict=True):
        assert words == expected, ascii(caption)


def test_every_caption_of_the_demo() -> None:
    vocabulary = Vocabulary.load(PACKAGED / SCENES_VOCABULARY)
    for split in ("dev", "test"):
        captions = scene_split(SceneOptions(), split, SCENES).captions
        assert len(captions) == 5 * SCENES
        assert_same(captions, vocabulary)


def test_every_caption_of_the_field(shared: Path) -> None:
    vocabulary = Vocabulary.load(PACKAGED / SCENES_VOCABULARY)
    files = [
        *shared.glob("field/*/*caps*"),
        *shared.glob("field/*/*.token"),
        *shared.glob("field/*/*.t[sx][vt]"),
    ]
    captions = {
        line for file in files for line in file.read_bytes().decode("utf-8", "replace").splitlines()
    }
    assert len(captions) > 100
    for variant in (VOCABULARY, UNTRAINED):
        assert_same(sorted(captions), vocabulary, variant)


def test_every_caption_of_photographs(shared: Path) -> None:
    file = shared / "data" / "f8k_precomp" / "dev_caps.txt"
    captions = file.read_text(encoding="utf-8").splitlines()
    assert len(captions) == 5000
    for name in ("f8k", "f30k", "coco"):
        vocabulary = Vocabulary.load(shared / "data" / f"{name}_precomp_vocab.json")
        assert_same(captions, vocabulary)


@settings(
    max_examples=20,
    phases=[Phase.generate],  # a failure names one caption, and node is too slow to find a shorter
    suppress_health_check=[*HealthCheck],
)
@given(captions=st.lists(CAPTIONS, min_size=BATCH, max_size=BATCH), trained=st.booleans())
def test_text_of_any_kind(captions: list[str], trained: bool) -> None:
    assert_same(captions, ABBREVIATIONS, VOCABULARY if trained else UNTRAINED)


@pytest.mark.parametrize("max_words", [None, 3, 7])
def test_the_bounds_are_the_same(max_words: int | None) -> None:
    captions = [
        *("a " * count for count in range(1, 8)),
        *("a" * count for count in (47, 48, 49, 111, 112, 113)),
        *("𝐚" * count for count in (47, 48, 49)),
        *("a," * count for count in range(1, 5)),
        *("", " ", "\x1f", "\u00a0"),
    ]
    assert_same(captions, ABBREVIATIONS, max_words=max_words)


def test_every_assigned_character() -> None:
    """Each is a letter, a digit, a blank or neither, in both languages alike.

    Those from U+3000 are letters of many scripts, of which one in 40 is taken.
    """
    codes = (*range(0x3000), *range(0x3000, 0x110000, 40))
    characters = filter(is_assigned, map(chr, codes))
    captions = [f"'{each}a 'd{each}s n't{each}. {each}" for each in characters]
    assert len(captions) > 10_000
    assert_same(captions, ABBREVIATIONS)


def is_assigned(character: str) -> bool:
    return unicodedata.category(character) not in ("Cn", "Co", "Cs")
