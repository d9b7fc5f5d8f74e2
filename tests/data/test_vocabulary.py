from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.errors import DataError

WORDS = (*SPECIAL_WORDS, "a", "dog", "café")


def valid() -> dict[str, Any]:
    return Vocabulary(WORDS).to_json()


def test_ids_and_unknown_words() -> None:
    vocabulary = Vocabulary(WORDS)
    assert vocabulary.size == len(vocabulary) == 7
    assert [vocabulary.id(word) for word in WORDS] == list(range(7))
    assert vocabulary.id("zebra") == vocabulary.id("<unk>") == 3
    assert "dog" in vocabulary
    assert "zebra" not in vocabulary


@pytest.mark.parametrize(
    ("tokens", "ids"),
    [
        pytest.param(["a", "dog"], [1, 4, 5, 2], id="known"),
        pytest.param(["a", "zebra"], [1, 4, 3, 2], id="one-unknown"),
        pytest.param(["x", "y"], [1, 3, 3, 2], id="all-unknown"),
        pytest.param([], [1, 2], id="none"),
    ],
)
def test_encode(tokens: list[str], ids: list[int]) -> None:
    assert Vocabulary(WORDS).encode(tokens) == ids


def test_special_words_may_have_any_ids() -> None:
    vocabulary = Vocabulary(("dog", "<unk>", "<end>", "<start>", "<pad>"))
    assert vocabulary.encode(["dog", "cat"]) == [3, 0, 1, 2]


def test_save_and_load_give_the_same_vocabulary(tmp_path: Path) -> None:
    saved = Vocabulary(WORDS)
    saved.save(tmp_path / "vocab.json")
    loaded = Vocabulary.load(tmp_path / "vocab.json")
    assert loaded.words == WORDS
    assert loaded.sha256 == saved.sha256
    value = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert list(value) == ["word2idx", "idx2word", "idx"]
    assert value["idx2word"]["6"] == "café"
    assert value["idx"] == 7


def test_the_hash_is_that_of_the_words_not_of_the_file(tmp_path: Path) -> None:
    value = valid()
    shuffled = {key: value[key] for key in ("idx", "idx2word", "word2idx")}
    shuffled["word2idx"] = dict(reversed(value["word2idx"].items()))
    path = tmp_path / "vocab.json"
    path.write_text("\ufeff" + json.dumps(shuffled, indent=1, ensure_ascii=False), encoding="utf-8")
    assert Vocabulary.load(path).sha256 == Vocabulary(WORDS).sha256
    exchanged = Vocabulary((*SPECIAL_WORDS, "dog", "a", "café"))
    assert exchanged.sha256 != Vocabulary(WORDS).sha256


def test_the_hash_is_frozen() -> None:
    # Manifests hold it: a change would make every bundle's vocabulary look foreign.
    assert Vocabulary(WORDS).sha256 == (
        "488ca819eb46bbd25efa61fdbee745808dab422a5b182b75ec82215be50305ca"
    )


def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.vocab\.json cannot be written.*no folder"):
        Vocabulary(WORDS).save(tmp_path / "absent" / "vocab.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param((*WORDS, "dog"), r"word 'dog'.*got 5 and 7", id="repeated-word"),
        pytest.param(WORDS[1:], "got no <pad>", id="no-pad"),
        pytest.param((*WORDS, 3), r"word 7: expected a string, got 3", id="not-a-string"),
    ],
)
def test_bad_word_lists(words: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary(words)


def replace(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(vocabulary: dict[str, Any]) -> None:
        vocabulary[key] = value

    return change


def put(key: str, entry: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(vocabulary: dict[str, Any]) -> None:
        vocabulary[key][entry] = value

    return change


def drop(key: str, entry: str | None = None) -> Callable[[dict[str, Any]], None]:
    def change(vocabulary: dict[str, Any]) -> None:
        del (vocabulary if entry is None else vocabulary[key])[entry or key]

    return change


def without_unknown(vocabulary: dict[str, Any]) -> None:
    vocabulary["word2idx"]["other"] = vocabulary["word2idx"].pop("<unk>")
    vocabulary["idx2word"]["3"] = "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(drop("idx"), r"keys.*got 'word2idx', 'idx2word'", id="missing-key"),
        pytest.param(replace("more", 1), r"keys.*'more'", id="unknown-key"),
        pytest.param(replace("word2idx", [1]), r"word2idx: expected an object", id="list"),
        pytest.param(replace("idx2word", None), r"idx2word: expected an object", id="null"),
        pytest.param(replace("idx", "7"), r"idx: expected an integer, got '7'", id="idx-text"),
        pytest.param(replace("idx", True), r"idx: expected an integer, got True", id="idx-bool"),
        pytest.param(replace("idx", 8), r"idx: expected 7, the number.*got 8", id="idx-off"),
        pytest.param(
            put("word2idx", "dog", 9), r"word2idx\['dog'\].*0 … 6 for 7 words, got 9", id="gap"
        ),
        pytest.param(
            put("word2idx", "dog", 4), r"word2idx\['dog'\].*got 4.*also 'a'", id="shared-id"
        ),
        pytest.param(put("word2idx", "dog", -1), r"word2idx\['dog'\].*got -1", id="negative"),
        pytest.param(put("word2idx", "dog", 5.0), r"word2idx\['dog'\].*got 5\.0", id="float"),
        pytest.param(put("word2idx", "dog", True), r"word2idx\['dog'\].*got True$", id="bool"),
        pytest.param(put("word2idx", "dog", "5"), r"word2idx\['dog'\].*got '5'", id="text"),
        pytest.param(
            put("word2idx", "dog", [0] * 99), r"word2idx\['dog'\].*got \[0, 0.*…$", id="long-value"
        ),
        pytest.param(
            put("idx2word", "5", "cat"), r"idx2word\['5'\]: expected 'dog', got 'cat'", id="differs"
        ),
        pytest.param(
            drop("idx2word", "5"), r"idx2word\['5'\].*'dog', got no such key", id="no-inverse"
        ),
        pytest.param(put("idx2word", "7", "cat"), r"idx2word\['7'\]: expected only", id="extra"),
        pytest.param(put("idx2word", "05", "dog"), r"idx2word\['05'\]", id="leading-zero"),
        pytest.param(without_unknown, r"word2idx: expected <pad>.*got no <unk>", id="no-unk"),
    ],
)
def test_bad_content(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    value = valid()
    change(value)
    path = tmp_path / "odd_vocab.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(DataError, match=rf"odd_vocab\.json: {message}") as caught:
        Vocabulary.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not JSON in UTF-8", id="empty"),
        pytest.param(b'{"word2idx": {', "not JSON in UTF-8.*line 1", id="truncated"),
        pytest.param(b'"\xff"', "not JSON in UTF-8.*0xff", id="not-utf-8"),
        pytest.param(b"[" * 100_000, "not JSON in UTF-8", id="too-deep"),
        pytest.param(b"[]", r"keys: expected word2idx, idx2word, idx, got \[\]", id="no-object"),
        pytest.param(b"{}", "keys.*got none", id="empty-object"),
        pytest.param(b'{"idx": 1, "idx": 2}', "idx: expected one such field, got 2", id="key"),
        pytest.param(
            b'{"word2idx": {"a": 0, "a": 1}}',
            "word2idx.a: expected one such field, got 2",
            id="word",
        ),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd_vocab.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"odd_vocab\.json.*{message}") as caught:
        Vocabulary.load(path)
    assert "\n" not in str(caught.value)


OTHER_FORMS: dict[str, tuple[bytes, str, str]] = {
    "html": (b"<html>404</html>", "got an HTML page", "download it again"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "lfs pull"),
    "gzip": (gzip.compress(b'{"idx": 1}' * 9), "compressed with gzip", "gzip -dc FILE"),
    "utf-16": ('{"idx": 1}'.encode("utf-16"), "got text in UTF-16", "iconv"),
    "words": (b"<pad>\n<start>\n<end>\n<unk>\na\n", "got text that begins", "training"),
    "truncated": (b'{"word2idx": {"<pad>": 0, "<st', "not JSON in UTF-8", ""),
    "python-dict": (b"{'word2idx': {'<pad>': 0}}", "not JSON in UTF-8", ""),
    "no-words": (b"{}", "got none", "training"),
    "number": (b"12", "got 12", "training"),
    "list-of-numbers": (b"[1, 2]", "got [1, 2]", "training"),
    "one-based": (
        json.dumps(
            {
                "word2idx": {word: index for index, word in enumerate(WORDS, 1)},
                "idx2word": {str(index): word for index, word in enumerate(WORDS, 1)},
                "idx": len(WORDS),
            }
        ).encode(),
        "word2idx: expected ids from 0, got ids from 1",
        "training",
    ),
    "more-keys": (
        json.dumps({**Vocabulary(WORDS).to_json(), "freq": {}}).encode(),
        "got those and 'freq'",
        "leave the others out",
    ),
}


@pytest.mark.parametrize(("content", "got", "mend"), OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_a_file_that_is_no_vocabulary_is_named(
    tmp_path: Path, content: bytes, got: str, mend: str
) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.json") as caught:
        Vocabulary.load(path)
    assert got in str(caught.value)
    assert mend in (caught.value.mend or "")
    assert str(caught.value).isprintable()


class Pickled:
    """As the vocabularies of older training code, which are pickled objects."""

    def __init__(self) -> None:
        self.__dict__.update(
            {
                "word2idx": {word: index for index, word in enumerate(WORDS)},
                "idx2word": dict(enumerate(WORDS)),
                "idx": len(WORDS),
            }
        )


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise AssertionError('it ran')",)


DERIVED: dict[str, tuple[bytes, str]] = {
    **{
        f"pickle-{protocol}": (
            pickle.dumps(Pickled(), protocol=protocol),
            f"got a pickle, of '{__name__}.Pickled'",
        )
        for protocol in (2, 4, 5)
    },
    "pickle-0": (pickle.dumps(Pickled(), protocol=0), "got a pickle, of 'copy_reg._reconstructor'"),
    "pickle-of-a-dict": (
        pickle.dumps(vars(Pickled()), protocol=0),
        "got a pickle, of plain values",
    ),
    "list": (json.dumps(WORDS).encode(), "got a list of 7 words"),
    "ids-only": (
        json.dumps(Vocabulary(WORDS).to_json()["word2idx"]).encode(),
        "got the ids of 7 words: '<pad>', '<start>'",
    ),
    "no-idx": (
        json.dumps({**Vocabulary(WORDS).to_json(), "idx": None})
        .replace(', "idx": null', "")
        .encode(),
        "'word2idx', 'idx2word', without idx",
    ),
    "word2idx-key-only": (
        json.dumps({"word2idx": Vocabulary(WORDS).to_json()["word2idx"]}).encode(),
        "'word2idx', without idx2word, idx",
    ),
}


@pytest.mark.parametrize(("content", "got"), DERIVED.values(), ids=DERIVED)
def test_the_lines_of_a_refusal_make_a_vocabulary_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, got: str
) -> None:
    path = tmp_path / "my  vocab"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        Vocabulary.load(path)
    assert got in str(caught.value)
    monkeypatch.chdir(tmp_path)
    message = str(caught.value).replace("'FILE'", "'my  vocab'")
    exec(message[message.index("import ") :].replace("; ", "\n"), {})
    assert Vocabulary.load("vocab.json").words == WORDS


def test_neither_reading_nor_the_lines_run_a_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vocab.pkl"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(DataError, match=r"got a pickle, of 'builtins\.exec'") as caught:
        Vocabulary.load(path)
    monkeypatch.chdir(tmp_path)
    message = str(caught.value)
    with pytest.raises(KeyError, match="word2idx"):
        exec(message[message.index("import ") :].replace("; ", "\n"), {})


def test_words_in_capitals_are_refused_where_they_are_most() -> None:
    few = Vocabulary((*SPECIAL_WORDS, "a", "dog", "Paris"))
    assert few.capitalised == ("Paris",)
    few.check_case("vocab.json")
    most = Vocabulary((*SPECIAL_WORDS, *"ABCDEFG"))
    with pytest.raises(DataError, match=r"vocab\.json: expected words in lower case") as caught:
        most.check_case("vocab.json")
    assert "7 of 11 with capitals, such as 'A'" in str(caught.value)


@pytest.mark.parametrize("name", ["absent.json", "."], ids=["missing", "folder"])
def test_unreadable_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"vocabulary .* cannot be read"):
        Vocabulary.load(tmp_path / name)


@pytest.mark.parametrize(("name", "size"), [("f8k", 3178), ("f30k", 8481), ("coco", 11353)])
def test_published_vocabularies(shared: Path, name: str, size: int) -> None:
    path = shared / f"data/{name}_precomp_vocab.json"
    vocabulary = Vocabulary.load(path)
    assert vocabulary.size == size
    assert vocabulary.words[:4] == SPECIAL_WORDS
    assert vocabulary.to_json() == json.loads(path.read_text(encoding="utf-8"))


def test_a_vocabulary_is_built_of_frequent_words_as_they_appear() -> None:
    captions = ["A dog runs.", "the dog runs", "a <unk> cat", "a"]
    built = Vocabulary.build(captions, Tokenizer(), min_count=2)
    assert built.words == (*SPECIAL_WORDS, "a", "dog", "runs")
    assert Vocabulary.build(captions, Tokenizer(), min_count=3).words == (*SPECIAL_WORDS, "a")


@pytest.mark.parametrize("captions", [[], ["one two three"]], ids=["none", "rare"])
def test_a_vocabulary_needs_words(captions: list[str]) -> None:
    with pytest.raises(DataError, match="words seen 2 times"):
        Vocabulary.build(captions, Tokenizer(), min_count=2)


def test_words_in_capitals_are_met_by_no_caption(tmp_path: Path) -> None:
    path = tmp_path / "upper.json"
    Vocabulary([*SPECIAL_WORDS, *"ABCDE", "DOG", "café"]).save(path)
    with pytest.raises(DataError, match=r"upper\.json: expected words in lower case"):
        Vocabulary.load(path)
    Vocabulary([*SPECIAL_WORDS, "A", "dog", "café"]).save(path)
    assert Vocabulary.load(path).size == 7
