"""`sgraf-deploy train`: from a precomp folder to a checkpoint that exports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli.world import World, done, error_line, run, tree

from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.train.batches import TrainingData

Arguments = Callable[[World], Sequence[object]]

SMALL = (
    *("--split", "dev", "--embed", 8, "--sim-dim", 4, "--word-dim", 6, "--epochs", 2),
    *("--batch-size", 10, "--min-count", 1, "--warmup-epochs", 1),
)


@pytest.mark.parametrize("module", ["SGR", "SAF"])
def test_what_is_trained_can_be_exported_and_evaluated(world: World, module: str) -> None:
    result = done("train", world.data, "--module", module, "-o", "own.pth.tar", *SMALL)

    assert f"training {module} on {world.data}: 6 images, 30 captions" in result.output
    lines = [line for line in result.output.splitlines() if line[:5].strip().isdigit()]
    assert len(lines) == 2
    assert lines[0].endswith("best, saved")
    assert "wrote own.pth.tar and own_vocab.json" in result.output
    (following,) = (line for line in result.output.splitlines() if line.startswith("next: "))
    exported = done(*following.removeprefix("next: sgraf-deploy ").split(), "-o", "own.sgraf")
    assert "Warning" not in exported.stderr  # the checkpoint knows its words, whatever their name
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

    assert "vocabulary of 7 words" in result.output
    assert f"next: sgraf-deploy export own.pth.tar --vocab {own}" in result.output
    assert sorted(path.name for path in world.folder.iterdir()) == ["own.pth.tar", "words.json"]


def test_other_words_than_those_of_the_training_are_refused(world: World) -> None:
    done("train", world.data, "--module", "SAF", "-o", "own.pth.tar", *SMALL)
    words = list(Vocabulary.load("own_vocab.json").words)
    Vocabulary([*words[:-2], words[-1], words[-2]]).save("own_vocab.json")

    result = run("export", "own.pth.tar", "--vocab", "own_vocab.json", "-o", "own.sgraf")

    assert "expected the words that own.pth.tar was trained with" in error_line(result)
    assert not Path("own.sgraf").exists()


def test_what_is_suspicious_in_the_data_is_said(world: World) -> None:
    regions = np.load(world.data / "dev_ims.npy")
    regions[:, 4:] = 0
    captions = [f"b'{line}'" for line in (world.data / "dev_caps.txt").read_text().splitlines()]
    data = world.precomp(regions, captions)

    result = run("train", data, "--module", "SAF", "-o", "own.pth.tar", *SMALL)

    assert result.stdout.count("note: split dev: 18 of 42 regions are all zero") == 2
    found = "Warning: split dev: 30 of 30 captions are Python's text of bytes"
    assert result.stderr.count(found) == 2


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(_there, "own.pth.tar exists already; --force", id="checkpoint-there"),
        pytest.param(_vocabulary_there, "own_vocab.json exists already", id="vocabulary-there"),
        pytest.param(
            lambda world: [world.data, "-o", "none/own.pth.tar"], "no folder none", id="no-folder"
        ),
        pytest.param(lambda world: ["absent", "-o", "own.pth"], "absent cannot be read", id="data"),
        pytest.param(
            lambda world: [world.data, "-o", "own.pth", "--split", "tiny"], "no split", id="split"
        ),
        pytest.param(
            lambda world: [world.data, "-o", "own.pth", "--batch-size", 31],
            "batch size: expected at most the 30 captions, got 31",
            id="batch",
        ),
        pytest.param(
            lambda world: [world.data, "-o", "own.pth", "--margin", 0], "margin", id="margin"
        ),
        pytest.param(
            lambda world: [world.data, "-o", "own.pth", "--device", "cuda:99"],
            "PyTorch sees no device cuda:99",
            id="device",
        ),
        pytest.param(
            lambda world: [world.data, "-o", "own.pth", "--min-count", 1000],
            "vocabulary: expected words seen 1000 times",
            id="no-words",
        ),
        pytest.param(
            lambda world: [world.data, "-o", "own.pth", "--vocab", "none.json"],
            "none.json cannot be read",
            id="no-vocabulary",
        ),
        pytest.param(
            lambda world: [world.data, "-o", "own.pth", "--val-images", 7],
            "expected 1 … 6",
            id="too-many-images",
        ),
    ],
)
def test_bad_input_changes_nothing(world: World, arguments: Arguments, says: str) -> None:
    given = ["train", "--module", "SAF", *SMALL, *arguments(world)]
    before = tree(world.folder)
    result = run(*given)
    assert result.exit_code == 2
    assert says in error_line(result)
    assert tree(world.folder) == before


def test_regions_that_are_no_numbers_are_named(world: World) -> None:
    regions = np.load(world.data / "dev_ims.npy")
    regions[3, 1, 2] = np.nan
    data = world.precomp(regions)
    result = run("train", data, "--module", "SAF", "-o", "own.pth.tar", *SMALL)
    assert result.exit_code == 2
    assert "image 3" in error_line(result)
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
    assert result.exit_code == 2
    assert "own_vocab.json is not replaced" in error_line(result)
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
    assert result.exit_code == 2
    assert f"{name} exists already" in error_line(result)
    assert (world.folder / name).read_bytes() == b"theirs"


def test_threads_are_set(world: World) -> None:
    before = torch.get_num_threads()
    try:
        arguments = ("--module", "SAF", "-o", "own.pth.tar", "--threads", 1, *SMALL)
        done("train", world.data, *arguments)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
