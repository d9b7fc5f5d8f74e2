"""The command line has no policy of its own: it asks `choose` for what `load` would ask."""

from __future__ import annotations

from typing import Any

import pytest
from support.auto_engine import auto_engine
from support.cli_world import World, done, line_naming, refused_line, run
from support.refusals import holds

from sgraf_deploy.engines import policy
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.policy import Choice, Facts, Request
from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.runtime import load, scorer

ASKED: dict[tuple[str, ...], dict[str, Any]] = {
    (): {},
    ("--engine", "ort"): {"engine": "ort"},
    ("--engine", "trt"): {"engine": "trt"},
    ("--precision", "fp16"): {"precision": "fp16"},
    ("--device", "cuda"): {"device": "cuda"},
    ("--engine", "torch", "--device", "cuda:1"): {"engine": "torch", "device": "cuda:1"},
    ("--engine", "native", "--device", "cuda"): {"engine": "native", "device": "cuda"},
}


@pytest.fixture
def asked(world: World) -> list[Request]:
    """The requests that reach the policy, each answered with engine ort."""
    found: list[Request] = []

    def choose(request: Request, facts: Facts) -> Choice:
        found.append(request)
        return Choice("ort", "fp32", "cpu")

    for module in (scorer, policy):
        world.monkeypatch.setattr(module, "choose", choose)
    return found


@pytest.mark.parametrize("arguments", ASKED, ids=lambda value: " ".join(value) or "nothing")
@pytest.mark.parametrize("command", ["eval", "rerank", "bench"])
def test_a_command_asks_for_what_load_asks_for(
    world: World, asked: list[Request], command: str, arguments: tuple[str, ...]
) -> None:
    load(world.bundle, **ASKED[arguments]).close()
    (expected,) = asked
    asked.clear()
    data = ("--data", world.data, "--split", "dev")
    if command == "bench":
        world.monkeypatch.setattr("sgraf_deploy.bench.scaling.measure_scaling", enough)
        result = run("bench", "scaling", world.bundle, *arguments)
        refused_line(result, SgrafDeployError, "it was asked")
    else:
        query = ("--image", 0) if command == "rerank" else ()
        done(command, world.bundle, *data, *query, *arguments)
    assert asked == [expected]


def enough(*_: Any) -> None:
    """In place of what takes long."""
    raise SgrafDeployError("it was asked")


def test_inspect_says_what_auto_takes(world: World) -> None:
    line = line_naming(done("inspect", world.bundle).stdout, "--engine auto", auto_engine())
    assert holds(line, "fp32")
    assert holds(line, "cpu")


def test_wishes_that_contradict_each_other_name_what_works(world: World) -> None:
    data = ("--data", world.data, "--split", "dev")
    result = run("eval", world.bundle, *data, "--engine", "trt", "--device", "cpu")
    hint = [auto_engine(), "cpu"]
    refused_line(result, InputError, "trt", "device", expected="cuda", got="cpu", hint=hint)


def test_options_reach_the_policy_whole(world: World, asked: list[Request]) -> None:
    seen: list[EngineOptions] = []
    world.monkeypatch.setattr(
        "sgraf_deploy.runtime.scorer.Machine", lambda bundle, options: seen.append(options)
    )
    done(
        *("eval", world.bundle, "--data", world.data, "--split", "dev"),
        *("--threads", 2, "--device", "cpu", "--engine-dir", "e", "--allow-unverified"),
    )
    (options,) = seen
    assert (options.threads, options.device, str(options.engine_dir)) == (2, "cpu", "e")
    assert options.allow_unverified
