"""CUDA graphs of the TensorRT engine: when a run is captured, and that no query fails by it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.closeness import assert_similar
from support.fake_cuda import FakeCuda
from support.refusals import holds, refused
from support.small_models import random_captions, random_regions
from support.trt_world import SIZES, TrtWorld, rounding_of

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.trt import runs as trt_runs
from sgraf_deploy.engines.trt.engine import TrtEngine
from sgraf_deploy.errors import DeviceError
from sgraf_deploy.runtime import EngineOptions, load

LENGTHS = (3, 17, 9)

MOST_ROUNDS = 50
"""Of queries of every length, until the pool gives each the addresses that it had before, in the
lane that its thread happens to have; about six are enough."""

FAILURES = ("begin", "capture", "end", "instantiate")


@pytest.fixture
def world(exported: Bundle, tmp_path: Path) -> TrtWorld:
    made = TrtWorld(exported, tmp_path / "engines")
    made.build()
    return made


@pytest.fixture
def regions(exported: Bundle) -> Any:
    return random_regions(exported.manifest.members["sgr"].config, SIZES.candidates)


@pytest.fixture
def captions(exported: Bundle) -> Any:
    """Of three lengths."""
    return random_captions(exported.manifest.members["sgr"].config, LENGTHS)


def fail(world: TrtWorld, step: str) -> None:
    """Let a step of every capture fail."""
    if step == "capture":
        world.tensorrt.refuses = step
    else:
        world.cuda.fails = step


def warnings_of(caplog: Any) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


class Encoder:
    """Engine `trt`'s image encoder, run at addresses that are the same for a number of images."""

    def __init__(self, world: TrtWorld, **options: Any) -> None:
        self.world = world
        self.engine: TrtEngine = world.engine("fp32", **options)
        self.graph = self.engine.open("sgr", "image_encoder")
        config = world.bundle.manifest.members["sgr"].config
        self.regions = random_regions(config, SIZES.images)
        self._bound = {}
        for count in range(1, SIZES.images + 1):
            inputs = {"regions": self.engine.put(self.regions[:count])}
            self._bound[count] = inputs, self.graph.run(inputs)

    def run(self, count: int) -> NDArray[Any]:
        inputs, outputs = self._bound[count]
        self.graph.run(inputs, outputs)
        return self.engine.fetch(outputs["region_embeddings"])

    @property
    def done(self) -> tuple[int, int, int]:
        """Graphs that there are, runs that were captured, launches."""
        world = self.world
        runs = world.tensorrt.runs["captured"]
        return len(world.cuda.graphs), runs, world.cuda.calls["launch"]


@pytest.fixture
def encoder(world: TrtWorld) -> Iterator[Encoder]:
    world.build("fp32")
    made = Encoder(world)
    yield made
    made.engine.close()
    assert world.cuda.graphs == []


def test_a_run_is_captured_when_it_comes_again_and_then_launched(encoder: Encoder) -> None:
    expected = encoder.run(2)
    assert encoder.done == (1, 1, 0)
    for _ in range(3):
        np.testing.assert_array_equal(encoder.run(2), expected)
    assert encoder.done == (1, 1, 3)


def test_shapes_that_take_turns_each_have_a_graph(encoder: Encoder) -> None:
    """The fake refuses to capture after a change of shapes, and graphs whose context changed."""
    expected = {count: encoder.run(count) for count in (1, 2, 3)}
    for count in (1, 2, 1, 3, 3, 2, 1):
        np.testing.assert_array_equal(encoder.run(count), expected[count])
    assert encoder.done == (3, 3, 7)


def test_of_more_shapes_than_graphs_some_stay_and_no_capture_is_wasted(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt_runs, "MOST_CAPTURED", 2)
    monkeypatch.setattr(trt_runs, "REMEMBERED", 8)
    for _ in range(5):
        for count in (1, 2, 3):
            encoder.run(count)
    assert encoder.done == (2, 2, 8)
    contexts = encoder.world.tensorrt.contexts
    for _ in range(12):  # The first two are not asked for any more: one makes room.
        encoder.run(3)
    graphs, captured, _ = encoder.done
    assert (graphs, captured) == (2, 3)
    assert encoder.world.tensorrt.contexts == contexts
    np.testing.assert_array_equal(encoder.run(3)[:1], encoder.run(1))


def test_graphs_go_with_the_scratch_memory_that_they_used(encoder: Encoder) -> None:
    expected = encoder.run(2)
    encoder.run(2)
    assert encoder.done == (1, 1, 1)
    lane = encoder.engine.lane()
    with lane:
        lane.scratch(2**20)
    np.testing.assert_array_equal(encoder.run(2), expected)
    assert encoder.done == (0, 1, 1)
    for _ in range(2):
        np.testing.assert_array_equal(encoder.run(2), expected)
    assert encoder.done == (1, 2, 2)


@pytest.mark.parametrize("step", FAILURES)
def test_a_capture_that_fails_is_given_up_and_everything_runs(
    world: TrtWorld, caplog: Any, step: str
) -> None:
    world.build("fp32")
    encoder = Encoder(world)
    fail(world, step)
    expected = encoder.run(3)
    fail(world, "nothing")
    world.tensorrt.refuses = None
    for _ in range(3):
        np.testing.assert_array_equal(encoder.run(3), expected)
        np.testing.assert_array_equal(encoder.run(1), expected[:1])
    assert encoder.done == (0, world.tensorrt.runs["captured"], 0)
    assert world.tensorrt.runs["captured"] <= 1
    assert [stream.capturing for stream in world.cuda.streams] == [None] * 2
    (warning,) = warnings_of(caplog)
    assert "sgr-fp32-image_encoder" in warning
    encoder.engine.close()
    assert world.cuda.blocks.keys() == {array.allocation.pointer for array in kept(encoder)}


def kept(encoder: Encoder) -> list[Any]:
    return [array for pair in encoder._bound.values() for each in pair for array in each.values()]


def test_the_first_reason_is_the_one_that_is_told(
    world: TrtWorld, regions: Any, captions: Any, caplog: Any
) -> None:
    """That of the run, not that of the end of a capture which it has spoilt."""
    world.tensorrt.refuses, world.cuda.fails = "capture", "end"
    with world.scorer() as scorer:
        images = scorer.encode_images(regions)
        for _ in range(20):  # Until the same addresses come again, which none need to do at once.
            scorer.rerank(captions[0], images)
            if warnings_of(caplog):
                break
    warnings = warnings_of(caplog)
    assert warnings
    assert all("the fake engine cannot run" in warning for warning in warnings)


def test_an_error_of_the_run_itself_is_raised_with_its_own_reason(
    world: TrtWorld, caplog: Any
) -> None:
    world.build("fp32")
    encoder = Encoder(world)
    world.tensorrt.refuses, world.cuda.fails = "execute_async_v3", "begin"
    with refused(DeviceError, got="the fake engine cannot run") as caught:
        encoder.run(3)
    assert "CUDA_ERROR" not in str(caught.error)


def test_no_memory_for_one_more_context_is_no_error(world: TrtWorld, caplog: Any) -> None:
    world.build("fp32")
    encoder = Encoder(world)
    world.tensorrt.refuses = "create_execution_context"
    expected = encoder.run(3)
    np.testing.assert_array_equal(encoder.run(3), expected)
    assert encoder.done == (0, 0, 0)
    assert len(warnings_of(caplog)) == 1
    encoder.engine.close()


def test_graphs_can_be_switched_off(world: TrtWorld, caplog: Any) -> None:
    world.build("fp32")
    encoder = Encoder(world, cuda_graphs=False)
    expected = encoder.run(3)
    for _ in range(3):
        np.testing.assert_array_equal(encoder.run(3), expected)
    assert encoder.done == (0, 0, 0)
    assert world.tensorrt.contexts == 1
    assert warnings_of(caplog) == []
    encoder.engine.close()


@pytest.mark.parametrize("loops", [False, True], ids=["loops-refuse", "loops-are-captured"])
def test_text_queries_of_mixed_lengths_come_again(
    world: TrtWorld, regions: Any, captions: Any, caplog: Any, loops: bool
) -> None:
    """The text encoder is a loop, which may never be capturable: it then says so, once."""
    world.tensorrt.captures_loops = loops
    with world.scorer() as scorer, load(world.bundle, engine="ort", precision="fp16") as other:
        images, others = scorer.encode_images(regions), other.encode_images(regions)
        expected = [other.rerank(caption, others).similarities for caption in captions]
        for turn in (0, 0, 1, 0, 2, 1, 1, 2, *(0, 2, 1) * MOST_ROUNDS):
            found = scorer.rerank(captions[turn], images).similarities
            assert_similar(found, expected[turn], **rounding_of(scorer))
            if world.cuda.calls["launch"] >= 12:
                break
    assert world.cuda.calls["launch"] >= 12
    warnings = warnings_of(caplog)
    names = set() if loops else {"saf-fp16-text_encoder", "sgr-fp16-text_encoder"}
    assert {name for name in names if any(holds(each, name) for each in warnings)} == names
    assert len(warnings) == len(names)


@pytest.mark.parametrize("step", [*FAILURES, "never"])
def test_a_service_works_whatever_becomes_of_captures(
    world: TrtWorld, regions: Any, captions: Any, step: str
) -> None:
    fail(world, step)
    with world.scorer() as scorer:
        images = scorer.encode_images(regions)
        first = [scorer.rerank(caption, images).similarities for caption in captions]
        for _ in range(MOST_ROUNDS if step == "never" else 4):
            for caption, expected in zip(captions, first, strict=True):
                found = scorer.rerank(caption, images).similarities
                np.testing.assert_array_equal(found, expected)
            if world.cuda.calls["launch"] >= 12:
                break
    assert (world.cuda.calls["launch"] > 0) == (step == "never")


def test_load_takes_the_option(world: TrtWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.install(monkeypatch)
    for wanted in (True, False):
        options = EngineOptions(engine_dir=world.folder, cuda_graphs=wanted)
        with load(world.bundle, "trt", options=options) as scorer:
            engine = scorer._context.engine
            assert isinstance(engine, TrtEngine)
            assert engine.captures is wanted


def test_the_fake_is_as_strict_as_the_documents(world: TrtWorld, regions: Any) -> None:
    """A capture is invalidated by whatever waits in its thread; its end then says so."""
    cuda = FakeCuda()
    cuda.activate()
    stream, event = cuda.create_stream(), cuda.create_event()
    for waits in (lambda: cuda.allocate(8), lambda: cuda.synchronize(event)):
        cuda.begin_capture(stream)
        with pytest.raises(DeviceError):
            waits()
        with refused(DeviceError, got="CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
            cuda.end_capture(stream)
        assert stream.capturing is None
