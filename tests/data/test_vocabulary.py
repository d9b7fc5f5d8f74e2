from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hinted import type_python
from support.refusals import ANY, naming, refused

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
    with refused(DataError, tmp_path / "absent" / "vocab.json", got=naming(tmp_path / "absent")):
        Vocabulary(WORDS).save(tmp_path / "absent" / "vocab.json")


@pytest.mark.parametrize(
    ("words", "name", "got"),
    [
        pytest.param((*WORDS, "dog"), "'dog'", naming(5, 7), id="repeated-word"),
        pytest.param(WORDS[1:], "word2idx", naming("<pad>"), id="no-pad"),
        pytest.param((*WORDS, 3), 7, 3, id="not-a-string"),
    ],
)
def test_bad_word_lists(words: tuple[Any, ...], name: object, got: object) -> None:
    with refused(DataError, name, got=got):
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


KEYS = naming("word2idx", "idx2word", "idx")
DOG = "word2idx['dog']"


@pytest.mark.parametrize(
    ("change", "name", "expected", "got"),
    [
        pytest.param(
            drop("idx"), "keys", KEYS, naming("'word2idx'", "'idx2word'"), id="missing-key"
        ),
        pytest.param(replace("more", 1), "keys", KEYS, naming("'more'"), id="unknown-key"),
        pytest.param(replace("word2idx", [1]), "word2idx", ANY, "[1]", id="list"),
        pytest.param(replace("idx2word", None), "idx2word", ANY, "None", id="null"),
        pytest.param(replace("idx", "7"), "idx", ANY, "'7'", id="idx-text"),
        pytest.param(replace("idx", True), "idx", ANY, "True", id="idx-bool"),
        pytest.param(replace("idx", 8), "idx", naming(7), 8, id="idx-off"),
        pytest.param(put("word2idx", "dog", 9), DOG, naming(0, 6, 7), 9, id="gap"),
        pytest.param(put("word2idx", "dog", 4), DOG, ANY, naming(4, "'a'"), id="shared-id"),
        pytest.param(put("word2idx", "dog", -1), DOG, ANY, -1, id="negative"),
        pytest.param(put("word2idx", "dog", 5.0), DOG, ANY, 5.0, id="float"),
        pytest.param(put("word2idx", "dog", True), DOG, ANY, True, id="bool"),
        pytest.param(put("word2idx", "dog", "5"), DOG, ANY, "'5'", id="text"),
        pytest.param(
            put("word2idx", "dog", [0] * 99), DOG, ANY, f"{[0] * 99}"[:80] + "…", id="long-value"
        ),
        pytest.param(put("idx2word", "5", "cat"), "idx2word['5']", "'dog'", "'cat'", id="differs"),
        pytest.param(drop("idx2word", "5"), "idx2word['5']", "'dog'", ANY, id="no-inverse"),
        pytest.param(put("idx2word", "7", "cat"), "idx2word['7']", naming(7), "'7'", id="extra"),
        pytest.param(
            put("idx2word", "05", "dog"), "idx2word['05']", naming(7), "'05'", id="leading-zero"
        ),
        pytest.param(
            without_unknown, "word2idx", naming(*SPECIAL_WORDS), naming("<unk>"), id="no-unk"
        ),
    ],
)
def test_bad_content(
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    name: str,
    expected: object,
    got: object,
) -> None:
    value = valid()
    change(value)
    path = tmp_path / "odd_vocab.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with refused(DataError, path, name, expected=expected, got=got):
        Vocabulary.load(path)


@pytest.mark.parametrize(
    ("content", "names", "got"),
    [
        pytest.param(b"", ["JSON"], [], id="empty"),
        pytest.param(b'{"word2idx": {', ["JSON"], ["line 1"], id="truncated"),
        pytest.param(b'"\xff"', ["JSON"], ["0xff"], id="not-utf-8"),
        pytest.param(b"[" * 100_000, ["JSON"], [], id="too-deep"),
        pytest.param(b"[]", ["keys"], ["[]"], id="no-object"),
        pytest.param(b"{}", ["keys"], [], id="empty-object"),
        pytest.param(b'{"idx": 1, "idx": 2}', ["idx"], [2], id="key"),
        pytest.param(b'{"word2idx": {"a": 0, "a": 1}}', ["word2idx.a"], [2], id="word"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, names: list[str], got: list[object]) -> None:
    path = tmp_path / "odd_vocab.json"
    path.write_bytes(content)
    with refused(DataError, path, *names, got=naming(*got)):
        Vocabulary.load(path)


FROM_1 = {
    "word2idx": {word: index for index, word in enumerate(WORDS, 1)},
    "idx2word": {str(index): word for index, word in enumerate(WORDS, 1)},
    "idx": len(WORDS),
}
MORE = {**Vocabulary(WORDS).to_json(), "freq": {}}
TRAINING = "NAME_precomp_vocab.json"
"""What the hint calls the file that is wanted where this one is no good."""

OTHER_FORMS: dict[str, tuple[bytes, list[object], str | list[str] | None]] = {
    "html": (b"<html>404</html>", ["HTML"], []),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS"], "git lfs pull"),
    "gzip": (gzip.compress(b'{"idx": 1}' * 9), ["gzip"], "gzip -dc FILE"),
    "utf-16": ('{"idx": 1}'.encode("utf-16"), ["UTF-16"], "iconv"),
    "words": (b"<pad>\n<start>\n<end>\n", [repr(b"<pad>\n<start>\n<end>")], TRAINING),
    "truncated": (b'{"word2idx": {"<pad>": 0, "<st', ["line 1"], None),
    "python-dict": (b"{'word2idx': {'<pad>': 0}}", ["line 1"], None),
    "no-words": (b"{}", [], TRAINING),
    "number": (b"12", [12], TRAINING),
    "list-of-numbers": (b"[1, 2]", ["[1, 2]"], TRAINING),
    "one-based": (json.dumps(FROM_1).encode(), [1], TRAINING),
    "more-keys": (json.dumps(MORE).encode(), ["'freq'"], []),
}


@pytest.mark.parametrize(("content", "got", "hint"), OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_a_file_that_is_no_vocabulary_is_named(
    tmp_path: Path, content: bytes, got: list[object], hint: str | list[str] | None
) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with refused(DataError, path, got=naming(*got), hint=hint) as found:
        Vocabulary.load(path)
    assert hint == TRAINING or TRAINING not in str(found.error.hint)
    assert str(found.error).isprintable()


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


DERIVED: dict[str, tuple[bytes, list[object]]] = {
    **{
        f"pickle-{protocol}": (
            pickle.dumps(Pickled(), protocol=protocol),
            ["pickle", f"'{__name__}.Pickled'"],
        )
        for protocol in (2, 4, 5)
    },
    "pickle-0": (
        pickle.dumps(Pickled(), protocol=0),
        ["pickle", "'copy_reg._reconstructor'"],
    ),
    "pickle-of-a-dict": (pickle.dumps(vars(Pickled()), protocol=0), ["pickle"]),
    "list": (json.dumps(WORDS).encode(), [7]),
    "ids-only": (
        json.dumps(Vocabulary(WORDS).to_json()["word2idx"]).encode(),
        [7, "'<pad>'", "'<start>'"],
    ),
    "no-idx": (
        json.dumps({**Vocabulary(WORDS).to_json(), "idx": None})
        .replace(', "idx": null', "")
        .encode(),
        ["'word2idx'", "'idx2word'", "idx"],
    ),
    "word2idx-key-only": (
        json.dumps({"word2idx": Vocabulary(WORDS).to_json()["word2idx"]}).encode(),
        ["'word2idx'", "idx2word", "idx"],
    ),
}


@pytest.mark.parametrize(("content", "got"), DERIVED.values(), ids=DERIVED)
def test_the_lines_of_a_refusal_make_a_vocabulary_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, got: list[object]
) -> None:
    path = tmp_path / "my  vocab"
    path.write_bytes(content)
    with refused(DataError, got=naming(*got)) as found:
        Vocabulary.load(path)
    monkeypatch.chdir(tmp_path)
    type_python(found.error, FILE=path)
    assert Vocabulary.load("vocab.json").words == WORDS


def test_neither_reading_nor_the_lines_run_a_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vocab.pkl"
    path.write_bytes(pickle.dumps(Hostile()))
    with refused(DataError, got=naming("pickle", "'builtins.exec'")) as found:
        Vocabulary.load(path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyError, match="word2idx"):
        type_python(found.error)


def test_words_in_capitals_are_refused_where_they_are_most() -> None:
    few = Vocabulary((*SPECIAL_WORDS, "a", "dog", "Paris"))
    assert few.capitalised == ("Paris",)
    few.check_case("vocab.json")
    most = Vocabulary((*SPECIAL_WORDS, *"ABCDEFG"))
    with refused(DataError, "vocab.json", got=naming(7, 11, "'A'"), hint=TRAINING):
        most.check_case("vocab.json")


@pytest.mark.parametrize(
    ("name", "code"),
    [("absent.json", errno.ENOENT), (".", errno.EISDIR)],
    ids=["missing", "folder"],
)
def test_unreadable_files(tmp_path: Path, name: str, code: int) -> None:
    with refused(DataError, tmp_path / name, got=os.strerror(code)):
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
    with refused(DataError, expected=naming(2), got=naming(min(1, len(captions)))):
        Vocabulary.build(captions, Tokenizer(), min_count=2)


def test_words_in_capitals_are_met_by_no_caption(tmp_path: Path) -> None:
    path = tmp_path / "upper.json"
    Vocabulary([*SPECIAL_WORDS, *"ABCDE", "DOG", "café"]).save(path)
    with refused(DataError, path, got=naming(6, 11, "'A'")):
        Vocabulary.load(path)
    Vocabulary([*SPECIAL_WORDS, "A", "dog", "café"]).save(path)
    assert Vocabulary.load(path).size == 7
