"""The word list of a checkpoint, in the authors' JSON format."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from sgraf_deploy.data.files import read_bytes
from sgraf_deploy.errors import DataError
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.files.writer import write_file
from sgraf_deploy.formats import HEAD, recognise, scan_pickles
from sgraf_deploy.schema import SHOWN, Document, parse

PAD = "<pad>"
START = "<start>"
END = "<end>"
UNKNOWN = "<unk>"
SPECIAL_WORDS = (PAD, START, END, UNKNOWN)

_KEYS = ("word2idx", "idx2word", "idx")
_TRAINING = "use the vocabulary that the checkpoint was trained with, NAME_precomp_vocab.json"
_AS_AUTHORS = (
    "if its ids are those that the checkpoint was trained with, write all three with Python: "
    "import json, pathlib; v = json.loads(pathlib.Path('FILE').read_text('utf-8')); w = {}; "
    "pathlib.Path('vocab.json').write_text(json.dumps({{'word2idx': w, "
    "'idx2word': {{str(i): x for x, i in w.items()}}, 'idx': len(w)}}))"
)

DOCUMENT = Document("vocabulary", DataError, _TRAINING, most_bytes=64 * 2**20, byte_order_mark=True)


class Splitter(Protocol):
    """Splits captions into words; see `data.tokenizer.Tokenizer`."""

    def tokenize(self, caption: str, name: str | None = None) -> list[str]:
        """The words of a caption, in order; errors begin with `name`."""


class Vocabulary:
    """Words and their ids 0 … size - 1; word i of `words` has the id i."""

    def __init__(self, words: Iterable[str], *, name: str = "vocabulary") -> None:
        """Take the words in the order of their ids.

        Raises DataError, which begins with `name`, for a repeated word or a missing special word.
        """
        self.words = tuple(words)
        self._ids: dict[str, int] = {}
        for index, word in enumerate(self.words):
            if not isinstance(word, str):
                raise DataError(f"{name}: word {index}", expected="a string", got=_brief(word))
            if word in self._ids:
                ids = f"{self._ids[word]} and {index}"
                raise DataError(f"{name}: the word {_brief(word)}", expected="one id", got=ids)
            self._ids[word] = index
        missing = [word for word in SPECIAL_WORDS if word not in self._ids]
        if missing:
            raise DataError(
                f"{name}: word2idx",
                expected=", ".join(SPECIAL_WORDS),
                got=f"no {' and no '.join(missing)}",
                hint=_TRAINING,
            )

    @classmethod
    def load(cls, path: PathLike) -> Vocabulary:
        """Read a vocabulary file; DataError names the file and the key that is wrong."""
        name = f"vocabulary {path}"
        content = read_bytes(path, "vocabulary", at_most=DOCUMENT.most_bytes)
        try:
            value = parse(content, DOCUMENT)
        except DataError as error:
            if isinstance(error.__cause__, ValueError):
                raise _no_json(content, path, error.__cause__) from error
            raise error.at(name) from error
        vocabulary = cls.from_json(value, name=name)
        vocabulary.check_case(path)
        return vocabulary

    @classmethod
    def build(
        cls, captions: Iterable[str], tokenizer: Splitter, *, min_count: int = 4
    ) -> Vocabulary:
        """The special words, then those that occur at least `min_count` times, in order of
        appearance.

        Raises DataError if no word is that frequent, and whatever the tokenizer raises.
        """
        counts = Counter(
            word
            for index, caption in enumerate(captions)
            for word in tokenizer.tokenize(caption, f"caption {index}")
        )
        words = [word for word, count in counts.items() if count >= min_count]
        if not words:
            got = f"at most {max(counts.values(), default=0)} occurrences of any word"
            expected = f"words that occur at least {min_count} times"
            raise DataError("vocabulary", expected=expected, got=got)
        return cls([*SPECIAL_WORDS, *(word for word in words if word not in SPECIAL_WORDS)])

    @classmethod
    def from_json(cls, value: object, *, name: str = "vocabulary") -> Vocabulary:
        """Read the object of `to_json`; raises DataError, beginning with `name`, for any defect."""
        if not isinstance(value, dict) or set(value) != set(_KEYS):
            got, hint = _other_form(value)
            raise DataError(f"{name}: keys", expected=", ".join(_KEYS), got=got, hint=hint)
        for key, kind in (("word2idx", dict), ("idx2word", dict), ("idx", int)):
            if type(value[key]) is not kind:
                expected = "an integer" if kind is int else "an object"
                raise DataError(f"{name}: {key}", expected=expected, got=_brief(value[key]))
        words = _words_by_id(value["word2idx"], name)
        _check_inverse(words, value["idx2word"], name)
        if value["idx"] != len(words):
            expected = f"{len(words)}, the number of words"
            raise DataError(f"{name}: idx", expected=expected, got=value["idx"])
        return cls(words, name=name)

    @property
    def size(self) -> int:
        """The number of words, including the special ones."""
        return len(self.words)

    @property
    def sha256(self) -> str:
        """The hash of the words in the order of their ids; it does not depend on the file."""
        canonical = json.dumps(self.words, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def __len__(self) -> int:
        """The same as `size`."""
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        """Whether the vocabulary has the word."""
        return word in self._ids

    def id(self, word: str) -> int:
        """The id of a word, or that of `<unk>` if the vocabulary does not have it."""
        return self._ids.get(word, self._ids[UNKNOWN])

    @property
    def capitalised(self) -> tuple[str, ...]:
        """The words with capitals; no caption contains them, because it is read in lower case."""
        return tuple(word for word in self.words if word != word.lower())

    def check_case(self, path: PathLike) -> None:
        """Raise DataError if most words have capitals, so that most captions would be unknown."""
        words = self.capitalised
        if 2 * len(words) > len(self.words):
            raise DataError(
                f"vocabulary {path}",
                expected="words in lower case, like captions",
                got=f"{len(words)} of {len(self.words)} with capitals, such as {words[0]!r}",
                hint=_TRAINING,
            )

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The ids of the tokens between those of `<start>` and `<end>`."""
        return [self._ids[START], *map(self.id, tokens), self._ids[END]]

    def to_json(self) -> dict[str, Any]:
        """The authors' format: `word2idx`, `idx2word` with string keys, `idx`; ids ascend."""
        return {
            "word2idx": {word: index for index, word in enumerate(self.words)},
            "idx2word": {str(index): word for index, word in enumerate(self.words)},
            "idx": len(self.words),
        }

    def save(self, path: PathLike, *, replace: bool = True) -> None:
        """Write the authors' format as JSON, atomically.

        Raises DataError if the file cannot be written, or exists and `replace` is off.
        """
        text = json.dumps(self.to_json())
        write_file(path, text, what="vocabulary", error=DataError, replace=replace)


def _no_json(content: bytes, path: PathLike, error: Exception) -> DataError:
    """The error for a file that is not JSON, with its actual format and how to convert it."""
    pickles = scan_pickles(io.BytesIO(content))
    if pickles.found:
        kind = _brief(pickles.names[0]) if pickles.names else "plain values"
        got = f"a pickle of {kind}, which is not read"
        return DataError(
            f"vocabulary {path}", expected="JSON in UTF-8", got=got, hint=_converting(path)
        )
    known = recognise(content[:HEAD])
    if known is None or known.name.startswith("JSON"):
        return DataError(f"vocabulary {path} is not JSON in UTF-8", got=error)
    return DataError(
        f"vocabulary {path} is not JSON in UTF-8", got=known.name, hint=known.hint or _TRAINING
    )


def _converting(path: PathLike) -> str:
    """A hint with Python code that converts a pickled vocabulary to JSON without running it."""
    # A message is a single line, in which repeated spaces would become one.
    name = repr(str(path)).replace("  ", r"\x20\x20")
    blank = "type(name, (), {'__new__': lambda cls, *a: object.__new__(cls)})"
    lines = (
        "import io, json, pathlib, pickle",
        "v = type('U', (pickle.Unpickler,), {'find_class': lambda self, module, name: "
        f"{blank}}})(io.BytesIO(pathlib.Path({name}).read_bytes()), encoding='utf-8').load()",
        "pathlib.Path('vocab.json').write_text(json.dumps({k: (v if isinstance(v, dict) else "
        f"vars(v))[k] for k in {_KEYS!r}}}))",
    )
    return f"convert it to JSON with Python: {'; '.join(lines)}"


def _other_form(value: object) -> tuple[str, str]:
    """A description of a value that lacks the authors' three keys, and a hint."""
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return f"a list of {len(value)} words", _AS_AUTHORS.format(
            "{w: i for i, w in enumerate(v)}"
        )
    if not isinstance(value, dict):
        return _brief(value), _TRAINING
    listed = ", ".join(map(_brief, list(value)[:5])) or "none"
    if value and all(type(index) is int for index in value.values()):
        return f"the ids of {len(value)} words: {listed}", _AS_AUTHORS.format("v")
    if set(value) > set(_KEYS):
        extra = ", ".join(_brief(key) for key in value if key not in _KEYS)
        return f"these and {extra}", "remove the other keys"
    if isinstance(value.get("word2idx"), dict):
        missing = ", ".join(key for key in _KEYS if key not in value)
        return f"{listed}, without {missing}", _AS_AUTHORS.format("v['word2idx']")
    return listed, _TRAINING


def _words_by_id(word2idx: dict[Any, Any], name: str) -> list[str]:
    """The words in the order of their ids, which must be 0 … n - 1."""
    words: dict[int, str] = {}
    ids = [index for index in word2idx.values() if type(index) is int]
    if len(ids) == len(word2idx) > 0 and sorted(ids) == list(range(1, len(ids) + 1)):
        where = f"{name}: word2idx"
        raise DataError(where, expected="ids from 0", got="ids from 1", hint=_TRAINING)
    for word, index in word2idx.items():
        where = f"{name}: word2idx[{_brief(word)}]"
        if type(index) is not int or not 0 <= index < len(word2idx):
            expected = f"an id in 0 … {len(word2idx) - 1} for {len(word2idx)} words"
            raise DataError(where, expected=expected, got=_brief(index))
        if index in words:
            got = f"{index}, which is also the id of {_brief(words[index])}"
            raise DataError(where, expected="a different id for every word", got=got)
        words[index] = word
    return [words[index] for index in range(len(words))]


def _check_inverse(words: list[str], idx2word: dict[Any, Any], name: str) -> None:
    """Raise DataError for an `idx2word` that is not the inverse of `word2idx`."""
    for index, word in enumerate(words):
        actual = idx2word.get(str(index))
        if actual != word:
            got = "no such key" if str(index) not in idx2word else _brief(actual)
            raise DataError(f"{name}: idx2word[{str(index)!r}]", expected=_brief(word), got=got)
    if len(idx2word) != len(words):
        known = {str(index) for index in range(len(words))}
        extra = next(key for key in idx2word if key not in known)
        raise DataError(
            f"{name}: idx2word[{_brief(extra)}]",
            expected=f"only ids below {len(words)}",
            got=_brief(extra),
        )


def _brief(value: object) -> str:
    """A value, shortened for a message."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
