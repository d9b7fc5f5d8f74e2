"""Where the compiled scorer's time goes: nothing is lost, every stage is seen, no bit changes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from support.native_cases import SMALL, Case, Inputs, make_inputs, native_model

from sgraf_deploy.engines.native import library
from sgraf_deploy.engines.native.library import NativeModel
from sgraf_deploy.engines.native.stages import KINDS, STAGES, Stages

pytestmark = [
    pytest.mark.skipif(not library.LIBRARY.exists(), reason="engine native was not compiled"),
    pytest.mark.usefixtures("instruction_set"),
]

IMAGES, LENGTHS = 5, [4, 30, 11, 2, 250, 8, 8, 25]


def profiled(model: NativeModel, inputs: Mapping[str, Any], *, pairs: int) -> tuple[Any, Stages]:
    """Logits, and stages by a clock that counts how often it was read, from 1."""
    logits, missing = np.full(pairs, np.nan, np.float32), list[int]()

    def clock() -> int:
        missing.append(int(np.isnan(logits).sum()))
        return len(missing)

    stages = model.no_time(clock)
    model.score(inputs, logits, stages)
    assert (missing[0], missing[-1]) == (pairs, 0), "the clock is read before and after it all"
    assert np.array(stages.spent).sum() == len(missing) - 1, "a tick is lost, or counted twice"
    return logits, stages


def variants(case: Case) -> Iterator[tuple[Inputs, int]]:
    """A matrix, with and without the products of regions, and listed pairs; and how many."""
    inputs = make_inputs(case, IMAGES, LENGTHS)
    yield inputs, IMAGES * len(LENGTHS)
    rng = np.random.default_rng(1)
    index = {
        "image_index": rng.integers(0, IMAGES, 90).astype(np.int32),
        "caption_index": rng.integers(0, len(LENGTHS), 90).astype(np.int32),
    }
    yield inputs | index, 90
    yield {name: array for name, array in inputs.items() if name != "region_gram"}, 40


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_no_time_is_lost_and_no_bit_changes(case: Case) -> None:
    model = native_model(case)
    for inputs, pairs in variants(case):
        plain = np.empty(pairs, np.float32)
        model.score(inputs, plain)
        logits, _ = profiled(model, inputs, pairs=pairs)
        assert plain.std() > 0
        assert np.array_equal(logits.view(np.int32), plain.view(np.int32))


@pytest.mark.parametrize("case", SMALL[:4], ids=str)
def test_every_stage_is_visited(case: Case) -> None:
    for inputs, pairs in variants(case):
        _, stages = profiled(native_model(case), inputs, pairs=pairs)
        seen = {name for name, spent in zip(STAGES, stages.spent, strict=True) if any(spent)}
        assert seen == set(STAGES) - {"SGR" if case.module == "SAF" else "SAF"}


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_products_are_those_of_the_paper(case: Case) -> None:
    model, lengths = native_model(case), np.array(LENGTHS)
    (inputs, pairs), _, (without, _) = variants(case)
    _, stages = profiled(model, inputs, pairs=pairs)

    words, captions = IMAGES * int(lengths.sum()), IMAGES * len(LENGTHS)
    nodes, edges = words + captions, IMAGES * int(((lengths + 1) ** 2).sum())
    embed, sim_dim, regions = case.embed, case.sim_dim, case.regions
    steps = max(0, case.config.sgr_steps - 1) * (4 * sim_dim**2 * nodes + 4 * sim_dim * edges)
    last = 4 * sim_dim**2 * captions + 4 * sim_dim * nodes if case.config.sgr_steps else 0
    expected = dict.fromkeys(STAGES, 0.0) | {
        "ATTENTION": 2 * regions * embed * words,
        "CONTEXT_NORM": 2 * regions**2 * words,
        "CONTEXT": 2 * regions * embed * words,
        "LOCAL": 2 * embed * sim_dim * words,
        "GLOBAL": 2 * embed * sim_dim * captions,
        "SGR": steps + last,
        "SAF": 4 * sim_dim * nodes if case.module == "SAF" else 0,
        "HEAD": 2 * sim_dim * captions,
    }
    assert dict(zip(STAGES, stages.flop, strict=True)) == expected
    _, stages = profiled(model, without, pairs=pairs)
    expected["CONTEXT_NORM"] = 2 * regions * embed * words
    assert dict(zip(STAGES, stages.flop, strict=True)) == expected


def test_runs_add_up() -> None:
    case = Case()
    model, inputs = native_model(case), make_inputs(case, IMAGES, LENGTHS)
    stages, logits = model.no_time(), np.empty(IMAGES * len(LENGTHS), np.float32)
    model.score(inputs, logits, stages)
    first, flop = np.array(stages.spent), np.array(stages.flop)
    model.score(inputs, logits, stages)
    assert (np.array(stages.spent) >= first).all()
    assert np.array(stages.spent).sum() > first.sum() > 0
    assert np.array_equal(np.array(stages.flop), 2 * flop)


def test_stages_are_those_of_the_header() -> None:
    header = library.LIBRARY.with_name("scorer.h").read_text(encoding="utf-8")
    enums = re.findall(
        r"enum \{(.*?)\}", re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL), re.DOTALL
    )
    names = [tuple(re.findall(r"SGRAF_(\w+)", enum)) for enum in enums]
    assert (*STAGES, "STAGES") in names
    (kinds,) = (enum for enum in names if enum[-1] == "KINDS")
    assert len(kinds) == len(KINDS) + 1
