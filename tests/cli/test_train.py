"""`sgraf-deploy train`: from a precomp folder to a checkpoint that exports."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bad_input import Bad
from support.cli_world import World, done, line_naming, refused_line, run, suggested, tree
from support.refusals import naming

from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.errors import CheckpointError, DataError, InputError, UnavailableError
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.train.batches import TrainingData

SMALL = (
    *("--split", "dev", "--embed", 8, "--sim-dim", 4, "--word-dim", 6, "--epochs", 2),
    *("--batch-size", 10, "--min-count", 1, "--warmup-epochs", 1),
)


@pytest.mark.parametrize("module", ["SGR", "SAF"])
def test_what_is_trained_can_be_exported_and_evaluated(world: World, module: str) -> None:
    result = done("train", world.data, "--module", module, "-o", "own.pth.tar", *SMALL)

    line_naming(result.output, module, world.data, 6, 30)
    lines = [line for line in result.output.splitlines() if line[:5].strip().isdigit()]
    assert len(lines) == 2
    assert lines[0].split()[-1].isalpha()  # after its numbers it is said to be the best so far
    line_naming(result.output, "own.pth.tar", "own_vocab.json")
    exported = done(*suggested(result.output), "-o", "own.sgraf")
    assert exported.warned == []  # the checkpoint knows its words, whatever their name
    evaluated = done("eval", "own.sgraf", "--data", world.data, "--split", "dev")
    best = read_checkpoint("own.pth.tar")
    assert f"{best.best_rsum:.2f}" in evaluated.output
    assert best.data_name == world.data.name
    assert best.config.module == module


def test_an_existing_vocabulary_is_taken(world: World) -> None:
    own = world.folder / "words.json"
    Vocabulary([*SPECIAL_WORDS, "word1", "word2", "word3"]).save(own)
    arguments = ("--module", "SAF", "--vocab", own, "-o", "own.pth.tar", *SMALL)

    result = done("train", world.data, *arguments)

    line_naming(result.output, "dev", 7)
    assert suggested(result.output) == ["export", "own.pth.tar", "--vocab", str(own)]
    assert sorted(path.name for path in world.folder.iterdir()) == ["own.pth.tar", "words.json"]


def test_other_words_than_those_of_the_training_are_refused(world: World) -> None:
    done("train", world.data, "--module", "SAF", "-o", "own.pth.tar", *SMALL)
    words = list(Vocabulary.load("own_vocab.json").words)
    Vocabulary([*words[:-2], words[-1], words[-2]]).save("own_vocab.json")

    result = run("export", "own.pth.tar", "--vocab", "own_vocab.json", "-o", "own.sgraf")

    trained = naming("own.pth.tar")
    refused_line(result, InputError, "own_vocab.json", expected=trained, hint="--vocab")
    assert not Path("own.sgraf").exists()


def test_what_is_suspicious_in_the_data_is_said(world: World) -> None:
    regions = np.load(world.data / "dev_ims.npy")
    regions[:, 4:] = 0
    captions = [f"b'{line}'" for line in (world.data / "dev_caps.txt").read_text().splitlines()]
    data = world.precomp(regions, captions)

    result = run("train", data, "--module", "SAF", "-o", "own.pth.tar", *SMALL)

    assert result.noted.count("zero-regions") == 2
    line_naming(result.stdout, "dev", 18, 42)
    assert result.warned.count("caption-form") == 2
    line_naming(result.stderr, "dev", 30)


def test_the_model_options_reach_the_checkpoint(world: World) -> None:
    switches = ("--uni-gru", "--no-imgnorm", "--no-txtnorm", "--num-layers", 2, "--sgr-steps", 1)
    done("train", world.data, "--module", "SGR", "-o", "own.pth.tar", *SMALL, *switches)
    config = read_checkpoint("own.pth.tar").config
    assert (config.bidirectional, config.image_norm, config.text_norm) == (False, False, False)
    assert (config.num_layers, config.sgr_steps) == (2, 1)
    assert (config.embed, config.sim_dim, config.word_dim) == (8, 4, 6)


def _there(world: World) -> Sequence[object]:
    world.write("own.pth.tar", b"mine")
    return [world.data, "-o", "own.pth.tar"]


def _vocabulary_there(world: World) -> Sequence[object]:
    world.write("own_vocab.json", b"mine")
    return [world.data, "-o", "own.pth.tar"]


OWN = ("-o", "own.pth")

BAD = [
    Bad("checkpoint-there", _there, InputError, ("own.pth.tar",), hint="--force"),
    Bad("vocabulary-there", _vocabulary_there, InputError, ("own_vocab.json",), hint="--force"),
    Bad(
        "no-folder",
        lambda world: [world.data, "-o", "nowhere/own.pth.tar"],
        InputError,
        ("-o", "nowhere/own.pth.tar"),
        got=naming("nowhere"),
        hint=naming(),
    ),
    Bad(
        "data",
        lambda world: ["absent", *OWN],
        DataError,
        ("absent",),
        got=os.strerror(errno.ENOENT),
    ),
    Bad("split", lambda world: [world.data, *OWN, "--split", "tiny"], DataError, ("'tiny'",)),
    Bad(
        "batch",
        lambda world: [world.data, *OWN, "--batch-size", 31],
        DataError,
        expected=naming(30),
        got=31,
    ),
    Bad(
        "margin", lambda world: [world.data, *OWN, "--margin", 0], InputError, ("margin",), got=0.0
    ),
    Bad(
        "device",
        lambda world: [world.data, *OWN, "--device", "cuda:99"],
        UnavailableError,
        ("cuda:99",),
        hint="--device cpu",
    ),
    Bad(
        "no-words",
        lambda world: [world.data, *OWN, "--min-count", 1000],
        DataError,
        ("vocabulary",),
        expected=naming(1000),
    ),
    Bad(
        "no-vocabulary",
        lambda world: [world.data, *OWN, "--vocab", "none.json"],
        DataError,
        ("none.json",),
        got=os.strerror(errno.ENOENT),
    ),
    Bad(
        "too-many-images",
        lambda world: [world.data, *OWN, "--val-images", 7],
        DataError,
        ("dev",),
        expected=naming(1, 6),
        got=7,
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_input_changes_nothing(world: World, bad: Bad) -> None:
    given = ["train", "--module", "SAF", *SMALL, *bad.arguments(world)]
    before = tree(world.folder)
    refused_line(run(*given), bad.kind, *bad.names, **bad.fields)
    assert tree(world.folder) == before


@pytest.mark.parametrize(
    ("option", "present"), [("--split", None), ("--split", "test"), ("--val-split", "train")]
)
def test_a_folder_without_the_split_says_how_to_get_one(
    world: World, option: str, present: str | None
) -> None:
    data = world.folder / "data"
    data.mkdir()
    for end in ("ims.npy", "caps.txt"):
        if present is not None:
            shutil.copy(world.data / f"dev_{end}", data / f"{present}_{end}")
    result = run("train", data, "--module", "SAF", "-o", "own.pth.tar")
    split = "train" if option == "--split" else "dev"
    refused_line(result, DataError, data, split, hint=[option, "sgraf-deploy synth"])


def test_a_folder_that_is_not_there_says_how_to_get_one(world: World) -> None:
    result = run("train", "none", "--module", "SAF", "-o", "own.pth.tar")
    refused_line(result, DataError, "none", hint="sgraf-deploy synth")


def test_regions_that_are_no_numbers_are_named(world: World) -> None:
    regions = np.load(world.data / "dev_ims.npy")
    regions[3, 1, 2] = np.nan
    data = world.precomp(regions)
    result = run("train", data, "--module", "SAF", "-o", "own.pth.tar", *SMALL)
    refused_line(result, DataError, "dev", "image 3", "region 1", got="nan")
    assert not Path("own.pth.tar").exists()


def test_force_replaces_both_files(world: World) -> None:
    world.write("own.pth.tar", b"old")
    Vocabulary(SPECIAL_WORDS).save("own_vocab.json")
    done("train", world.data, "--module", "SAF", "-o", "own.pth.tar", "--force", *SMALL)
    assert read_checkpoint("own.pth.tar").config.module == "SAF"
    assert Vocabulary.load("own_vocab.json").size > len(SPECIAL_WORDS)


def test_force_replaces_no_file_that_only_has_a_vocabularys_name(world: World) -> None:
    own = world.write("own_vocab.json", b'{"mine": 1}')
    result = run("train", world.data, "--module", "SAF", "-o", "own.pth.tar", "--force", *SMALL)
    refused_line(result, InputError, "own_vocab.json", got=naming("'mine'"), hint="-o")
    assert own.read_bytes() == b'{"mine": 1}'


@pytest.mark.parametrize("name", ["own.pth.tar", "own_vocab.json"])
def test_a_file_that_appears_during_the_training_is_not_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = TrainingData.of

    def appear(*arguments: Any) -> TrainingData:
        world.write(name, b"theirs")
        return before(*arguments)

    monkeypatch.setattr(TrainingData, "of", appear)
    result = run("train", world.data, "--module", "SAF", "-o", "own.pth.tar", *SMALL)
    kind = DataError if name == "own_vocab.json" else CheckpointError
    refused_line(result, kind, name, hint=naming())
    assert (world.folder / name).read_bytes() == b"theirs"


def test_threads_are_set(world: World) -> None:
    before = torch.get_num_threads()
    try:
        arguments = ("--module", "SAF", "-o", "own.pth.tar", "--threads", 1, *SMALL)
        done("train", world.data, *arguments)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
