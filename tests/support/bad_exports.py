"""Bad inputs of `sgraf-deploy export` beside its checkpoints."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from support.bad_checkpoints import export_of
from support.bad_input import Arguments, Bad
from support.cli_world import World
from support.refusals import naming
from support.small_models import SGR, WORDS, random_regions

from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import BundleError, DataError, InputError, UnavailableError


def _vocabulary(content: str) -> Arguments:
    return lambda world: (*export_of(world.sgr), "--vocab", world.write("vocab.json", content))


def _pickled_vocabulary(world: World) -> Sequence[object]:
    content = pickle.dumps(Vocabulary(WORDS).to_json())
    return (*export_of(world.sgr), "--vocab", world.write("vocab.pkl", content))


def _words(words: Sequence[str]) -> Arguments:
    def arguments(world: World) -> Sequence[object]:
        Vocabulary(words).save(world.folder / "vocab.json")
        return (*export_of(world.sgr), "--vocab", "vocab.json")

    return arguments


def _gate(*more: object, data: Callable[[World], Path]) -> Arguments:
    return lambda world: (
        *(*export_of(world.sgr), "--vocab", world.vocabulary),
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
    return (*export_of(world.sgr), "--vocab", world.vocabulary, "--tokenizer", "nltk-punkt")


WORDS_FILE = ("vocab.json",)

BAD_VOCABULARIES = [
    Bad(
        "vocabulary-as-html",
        _vocabulary("<html>"),
        DataError,
        WORDS_FILE,
        got=naming("HTML"),
        hint=naming(),
    ),
    Bad(
        "vocabulary-pickled",
        _pickled_vocabulary,
        DataError,
        ("vocab.pkl",),
        expected=naming("JSON"),
        got=naming("pickle"),
        hint=["pickle.Unpickler", "json.dumps("],
    ),
    Bad(
        "vocabulary-in-capitals",
        _words([*WORDS[:4], *(word.upper() for word in WORDS[4:])]),
        DataError,
        WORDS_FILE,
        got=naming(49, 53, "'WORD0'"),
    ),
    Bad(
        "no-vocabulary-file",
        lambda world: (*export_of(world.sgr), "--vocab", "no.json"),
        DataError,
        ("no.json",),
        got=os.strerror(errno.ENOENT),
    ),
    Bad("vocabulary-no-json", _vocabulary("{"), DataError, (*WORDS_FILE, "JSON"), got=naming()),
    Bad(
        "vocabulary-of-another-form",
        _vocabulary("[]"),
        DataError,
        WORDS_FILE,
        expected=naming("word2idx", "idx2word", "idx"),
        got="[]",
    ),
    Bad(
        "vocabulary-too-small",
        _words(WORDS[:-1]),
        InputError,
        WORDS_FILE,
        expected=naming(53),
        got=52,
        hint="f30k_precomp_vocab.json",
    ),
    Bad(
        "vocabulary-without-unk",
        _vocabulary(json.dumps({"word2idx": {}, "idx2word": {}, "idx": 0})),
        DataError,
        WORDS_FILE,
        expected=naming("<unk>"),
        got=naming("<pad>", "<unk>"),
    ),
    Bad(
        "unknown-tokenizer",
        lambda world: (*export_of(world.sgr), "--tokenizer", "bert"),
        InputError,
        expected=naming("nltk-vocabulary-punkt", "nltk-untrained-punkt", "nltk-punkt"),
        got="bert",
    ),
    Bad(
        "punkt-without-data",
        _no_punkt,
        UnavailableError,
        ("nltk-punkt",),
        hint="python -m nltk.downloader punkt_tab",
    ),
]

BAD_GATE_DATA = [
    Bad(
        "gate-data-without-words",
        lambda world: (*export_of(world.sgr), "--gate-data", world.data),
        InputError,
        ("--gate-data",),
        expected=naming("--vocab"),
    ),
    Bad(
        "no-gate-data",
        _gate(data=lambda world: world.folder / "nowhere"),
        DataError,
        ("nowhere",),
        expected=naming("SPLIT_ims.npy", "SPLIT_caps.txt"),
        got=os.strerror(errno.ENOENT),
    ),
    Bad(
        "empty-gate-data",
        _gate(data=_empty),
        DataError,
        ("empty", "'dev'"),
        expected=naming("dev_ims.npy", "dev_caps.txt"),
    ),
    Bad(
        "unknown-gate-split",
        _gate("--gate-split", "test", data=lambda world: world.data),
        DataError,
        ("small_precomp", "'test'"),
        expected=naming("test_ims.npy", "test_caps.txt"),
        got=naming("dev"),
    ),
    Bad(
        "gate-split-without-data",
        lambda world: (*export_of(world.sgr), "--gate-split", "dev"),
        InputError,
        ("--gate-split",),
        expected=naming("--gate-data"),
    ),
    Bad(
        "gate-data-of-another-shape",
        _gate(data=lambda world: world.precomp(random_regions(replace(SGR, img_dim=32), 6))),
        DataError,
        ("dev_ims.npy",),
        expected=naming("(any, 7, 64)"),
        got=(6, 7, 32),
        hint=naming(64),
    ),
]

BAD_TARGETS = [
    Bad("bundle-in-the-way", _onto(World.copy), BundleError, ("copy.sgraf",), hint="--force"),
    Bad(
        "file-in-the-way",
        _onto(lambda world: world.write("thesis", "mine"), "--force"),
        BundleError,
        ("thesis",),
        hint=naming(),
    ),
    Bad(
        "folder-in-the-way",
        _onto(_empty, "--force"),
        BundleError,
        ("empty",),
        got=naming("manifest.json"),
        hint=naming(),
    ),
    Bad(
        "own-files-in-the-way",
        _onto(_with_notes, "--force"),
        BundleError,
        ("copy.sgraf",),
        got=naming(1, "notes.txt"),
        hint=naming(),
    ),
    Bad(
        "own-manifest-in-the-way",
        _onto(_web_app, "--force"),
        BundleError,
        ("empty",),
        got=naming("manifest.json", "schema_version"),
        hint=naming(),
    ),
    Bad(
        "no-parent",
        _onto(lambda world: Path("nowhere/new.sgraf")),
        BundleError,
        ("nowhere/new.sgraf",),
        got=naming("nowhere"),
        hint=naming(),
    ),
    Bad(
        "name-too-long",
        _onto(lambda world: "a" * 256),
        BundleError,
        ("a" * 256,),
        got=os.strerror(errno.ENAMETOOLONG),
        hint=naming(),
    ),
    Bad("another-writer", _onto(_locked), BundleError, ("busy.sgraf", 12345), hint=naming()),
]

BAD_EXPORTS = [*BAD_VOCABULARIES, *BAD_GATE_DATA, *BAD_TARGETS]
