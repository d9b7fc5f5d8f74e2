"""Bad inputs of `sgraf-deploy export`: what is run, and what the error must say."""

from __future__ import annotations

import fcntl
import gzip
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from authors_checkpoint import authors_payload
from cli.world import World
from small_models import SAF, SGR, WORDS, random_regions, write_checkpoint_file

from sgraf_deploy.data.vocabulary import Vocabulary

_MODEL = authors_payload(SGR)["model"]

Arguments = Callable[[World], Sequence[object]]


@dataclass(frozen=True)
class Bad:
    """A command that must fail; the error holds each of `says`: what, got, how to mend it."""

    name: str
    arguments: Arguments
    says: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


class Hostile:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("open('hacked', 'w').close()",)


def _export(*checkpoints: Path) -> Sequence[object]:
    return ("export", *checkpoints, "-o", "new.sgraf")


def _file(content: bytes) -> Arguments:
    return lambda world: _export(world.write("model.pth.tar", content))


def _saved(payload: object) -> Arguments:
    def arguments(world: World) -> Sequence[object]:
        torch.save(payload, world.folder / "model.pth.tar")
        return _export(world.folder / "model.pth.tar")

    return arguments


def _truncated(world: World) -> Sequence[object]:
    content = world.sgr.read_bytes()
    return _export(world.write("model.pth.tar", content[: len(content) // 2]))


def _twice(world: World) -> Sequence[object]:
    shutil.copyfile(world.sgr, world.folder / "other.pth.tar")
    return _export(world.sgr, world.saf, Path("other.pth.tar"))


def _other_words(world: World) -> Sequence[object]:
    config = replace(SAF, vocab_size=54)
    return _export(world.sgr, write_checkpoint_file(world.folder / "other.pth.tar", config))


def _contradicting(world: World) -> Sequence[object]:
    payload = authors_payload(SGR)
    payload["opt"].embed_size = 64
    torch.save(payload, world.folder / "model.pth.tar")
    return _export(world.folder / "model.pth.tar")


def _vocabulary(content: str) -> Arguments:
    return lambda world: (*_export(world.sgr), "--vocab", world.write("vocab.json", content))


def _pickled_vocabulary(world: World) -> Sequence[object]:
    content = pickle.dumps(Vocabulary(WORDS).to_json())
    return (*_export(world.sgr), "--vocab", world.write("vocab.pkl", content))


def _words(words: Sequence[str]) -> Arguments:
    def arguments(world: World) -> Sequence[object]:
        Vocabulary(words).save(world.folder / "vocab.json")
        return (*_export(world.sgr), "--vocab", "vocab.json")

    return arguments


def _gate(*more: object, data: Callable[[World], Path]) -> Arguments:
    return lambda world: (
        *(*_export(world.sgr), "--vocab", world.vocabulary),
        *("--gate-data", data(world), *more),
    )


def _empty(world: World) -> Path:
    (world.folder / "empty").mkdir()
    return world.folder / "empty"


def _with_notes(world: World) -> Path:
    bundle = world.copy()
    world.write("copy.sgraf/notes.txt", "mine")
    return bundle


def _web_app(world: World) -> Path:
    """A folder with a manifest.json as web pages have one."""
    _empty(world)
    world.write("empty/index.html", "mine")
    world.write("empty/manifest.json", '{"name": "my page", "icons": []}')
    return world.folder / "empty"


def _onto(make: Callable[[World], object], *more: object) -> Arguments:
    """Export onto what `make` puts into the way."""
    return lambda world: ("export", world.sgr, "-o", make(world), *more)


def _locked(world: World) -> Path:
    lock = world.until_the_end.enter_context(
        world.write(".busy.sgraf.sgraf-deploy-lock", "sgraf-deploy, process 12345\n").open()
    )
    fcntl.flock(lock, fcntl.LOCK_EX)
    return world.folder / "busy.sgraf"


def _no_punkt(world: World) -> Sequence[object]:
    world.monkeypatch.setattr("nltk.data.path", [])
    return (*_export(world.sgr), "--vocab", world.vocabulary, "--tokenizer", "nltk-punkt")


BAD_EXPORTS = [
    Bad("no-checkpoint", lambda world: _export(Path("no.pth")), ("no.pth: no such file",)),
    Bad("folder-as-checkpoint", lambda world: _export(world.data), ("not a file", "name the file")),
    Bad("empty-checkpoint", _file(b""), ("model.pth.tar: the file is empty", "download it again")),
    Bad("text-as-checkpoint", _file(b"weights\n"), ("not a checkpoint", "got", "b'weights")),
    Bad("truncated-checkpoint", _truncated, ("model.pth.tar", "copy or download it again")),
    Bad("hostile-pickle", _saved(Hostile()), ("model.pth.tar", "exec", "untrusted input")),
    Bad("bare-state-dict", _saved(authors_payload(SGR)["model"][0]), ("bare state dict", "save")),
    Bad("html-as-checkpoint", _file(b"<html>quota"), ("an HTML page", "download it again")),
    Bad("lfs-pointer-as-checkpoint", _file(b"version https://git-lfs.git"), ("git lfs pull",)),
    Bad("gzip-as-checkpoint", _file(gzip.compress(b"1" * 99)), ("with gzip", "gzip -dc FILE")),
    Bad(
        "two-part-model", _saved({"model": authors_payload(SGR)["model"][:2]}), ("of 2", "(32, 64)")
    ),
    Bad("two-models", _saved({"model_A": _MODEL, "model_B": _MODEL}), ("model_A", "--key NAME")),
    Bad(
        "key-that-is-not-there",
        lambda world: (*_export(world.sgr), "--key", "net"),
        ("--key 'net'", "a key that leads to a model: model"),
    ),
    Bad(
        "key-without-reference",
        lambda world: (*_export(world.sgr), "--key", "model", "--no-reference"),
        ("--key", "leave --no-reference out"),
    ),
    Bad("vocabulary-as-html", _vocabulary("<html>"), ("an HTML page", "download it again")),
    Bad("vocabulary-pickled", _pickled_vocabulary, ("a pickle", "pickle.Unpickler", "json.dumps(")),
    Bad(
        "vocabulary-in-capitals",
        _words([*WORDS[:4], *(word.upper() for word in WORDS[4:])]),
        ("in lower case", "'WORD0'"),
    ),
    Bad("opt-against-tensors", _contradicting, ("model.pth.tar", "embed_size", "64", "32")),
    Bad("twice", _twice, ("expected each once", "other.pth.tar, which are the same", "leave one")),
    Bad("members-of-other-words", _other_words, ("differ in vocab_size", "53", "54")),
    Bad("no-vocabulary-file", lambda w: (*_export(w.sgr), "--vocab", "no.json"), ("no.json",)),
    Bad("vocabulary-no-json", _vocabulary("<html>"), ("vocab.json is not JSON",)),
    Bad("vocabulary-of-another-form", _vocabulary("[]"), ("vocab.json: keys", "word2idx")),
    Bad("vocabulary-too-small", _words(WORDS[:-1]), ("expected 53 words", "got 52")),
    Bad(
        "vocabulary-without-unk",
        _vocabulary(json.dumps({"word2idx": {}, "idx2word": {}, "idx": 0})),
        ("<unk>", "got no <pad>"),
    ),
    Bad("unknown-tokenizer", lambda w: (*_export(w.sgr), "--tokenizer", "bert"), ("nltk-punkt",)),
    Bad("punkt-without-data", _no_punkt, ("python -m nltk.downloader punkt_tab",)),
    Bad(
        "gate-data-without-words",
        lambda world: (*_export(world.sgr), "--gate-data", world.data),
        ("--gate-data needs words", "--vocab FILE"),
    ),
    Bad("no-gate-data", _gate(data=lambda w: w.folder / "no"), ("no cannot be read", "a folder")),
    Bad("empty-gate-data", _gate(data=_empty), ("no split 'dev'", "dev_ims.npy", "no split at")),
    Bad(
        "unknown-gate-split",
        _gate("--gate-split", "test", data=lambda world: world.data),
        ("no split 'test'", "test_ims.npy", "got the splits dev"),
    ),
    Bad(
        "gate-split-without-data",
        lambda world: (*_export(world.sgr), "--gate-split", "dev"),
        ("--gate-split", "--gate-data DIR"),
    ),
    Bad(
        "gate-data-of-another-shape",
        _gate(data=lambda world: world.precomp(random_regions(replace(SGR, img_dim=32), 6))),
        ("do not fit the model", "(any, 7, 64)", "7, 32"),
    ),
    Bad("bundle-in-the-way", _onto(World.copy), ("copy.sgraf exists already", "--force")),
    Bad("file-in-the-way", _onto(lambda w: w.write("x", "x"), "--force"), ("x is a file",)),
    Bad("folder-in-the-way", _onto(_empty, "--force"), ("empty exists and is not a bundle", "mov")),
    Bad("own-files-in-the-way", _onto(_with_notes, "--force"), ("1 other file: notes.txt", "move")),
    Bad("own-manifest-in-the-way", _onto(_web_app, "--force"), ("is not a bundle", "move")),
    Bad("no-parent", _onto(lambda w: Path("no/new.sgraf")), ("no folder no", "create it")),
    Bad("name-too-long", _onto(lambda w: "a" * 256), ("cannot be written", "too long", "shorter")),
    Bad("another-writer", _onto(_locked), ("another writer (process 12345)", "try again")),
]
