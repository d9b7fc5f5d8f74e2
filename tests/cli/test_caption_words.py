"""`--max-caption-words`: every command that reads captions refuses those that are too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from support.cli_world import IMAGES, World, captions_of, done, left_by, refused_line, run
from support.refusals import naming

from sgraf_deploy.errors import DataError, InputError

LONG = " ".join(["word1"] * 511)
"""513 words with `<start>` and `<end>`."""

ONCE = ("--repeats", 1, "--warmup", 0, "--threads", 1, "--engine", "ort")
SMALL = ("--embed", 8, "--sim-dim", 4, "--word-dim", 6, "--epochs", 1, "--batch-size", 10)

Command = Callable[[World, Path], Sequence[object]]

COMMANDS: dict[str, Command] = {
    "eval": lambda world, data: ("eval", world.bundle, "--data", data, "--split", "dev"),
    "rerank": lambda world, data: (
        *("rerank", world.bundle, "--data", data, "--split", "dev", "--image", 0),
    ),
    "bench": lambda world, data: ("bench", world.bundle, "--data", data, "--split", "dev", *ONCE),
    "export": lambda world, data: (
        *("export", world.sgr, "--vocab", world.vocabulary, "-o", "own.sgraf"),
        *("--gate-data", data, "--precision", "fp32"),
    ),
    "train": lambda world, data: (
        *("train", data, "--module", "SAF", "-o", "own.pth.tar", "--split", "dev", *SMALL),
        *("--min-count", 1),
    ),
}


def long_captions(world: World, caption: str = LONG) -> Path:
    """A split whose fourth caption is that."""
    captions = captions_of(IMAGES)
    captions[3] = caption
    return world.precomp(captions=captions)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's speed is not what is tested."""
    monkeypatch.setattr("sgraf_deploy.bench.measure.PRODUCTS", ((8, 8, 8),))
    monkeypatch.setattr("sgraf_deploy.bench.latency.CANDIDATES", (2,))
    monkeypatch.setattr("sgraf_deploy.bench.speed.SETTLE_SECONDS", 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_caption_that_is_too_long_is_refused(world: World, name: str) -> None:
    arguments = COMMANDS[name](world, long_captions(world))
    before = left_by(world)

    result = run(*arguments)

    place = f"caption {18 if name == 'export' else 3}"  # of the gate's data, four of each image
    refused_line(
        result, DataError, place, expected=naming(512), got=513, hint="--max-caption-words"
    )
    assert left_by(world) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_nought_lifts_the_bound(world: World, name: str) -> None:
    done(*COMMANDS[name](world, long_captions(world)), "--max-caption-words", 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_bound_can_be_lower(world: World, name: str) -> None:
    data = long_captions(world, " ".join(["word1"] * 18))
    result = run(*COMMANDS[name](world, data), "--max-caption-words", 19)
    refused_line(result, DataError, expected=naming(19), got=20, hint="--max-caption-words")


@pytest.mark.parametrize("caption", [". " * 100_000, "." * 100_000, LONG], ids=["a", "b", "c"])
def test_a_query_is_bounded_like_a_caption(world: World, caption: str) -> None:
    query = ("rerank", world.bundle, "--data", world.data, "--split", "dev", "--caption", caption)
    line = refused_line(run(*query), DataError, expected=naming(512), hint="--max-caption-words")
    assert len(line) < 300


@pytest.mark.parametrize("value", [1, 2, -1])
@pytest.mark.parametrize("name", [*COMMANDS, "compile"])
def test_what_is_no_bound_is_refused(world: World, name: str, value: int) -> None:
    commands: dict[str, Command] = {
        **COMMANDS,
        "compile": lambda world, _: ("compile", world.bundle),
    }
    result = run(*commands[name](world, world.data), "--max-caption-words", value)
    refused_line(result, InputError, "--max-caption-words", expected=naming(3, 0), got=value)


def test_compile_reads_captions_of_that_length(world: World) -> None:
    """As the other commands, before it builds anything; its profiles are sized apart."""
    world.monkeypatch.setattr("sgraf_deploy.engines.trt.library.find_tensorrt", lambda: None)
    world.monkeypatch.setattr("sgraf_deploy.compile.build.target", lambda _: "portable")
    command = ("compile", world.bundle, "--data", long_captions(world), "--split", "dev")
    refused_line(run(*command), DataError, "caption 3", expected=naming(512), got=513)


def test_the_long_caption_of_the_field(world: World, shared: Path) -> None:
    """One of 3,000 words among those of five images."""
    case = shared / "field" / "32c-long-caption"
    regions = np.load(case / "test_ims.npy")
    longest = max((case / "test_caps.txt").read_text().splitlines(), key=len)
    assert len(longest.split()) > 2900
    assert len(regions)
    query = ("--data", world.data, "--split", "dev", "--caption", longest)
    result = run("rerank", world.bundle, *query)
    refused_line(result, DataError, expected=naming("8,192", 512), got=f"{len(longest):,}")
