"""Opening a scorer, closing it, and sharing it between threads, tasks and processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from support import fake_engine
from support.auto_engine import auto_engine
from support.fake_engine import FakeEngine
from support.refusals import check_error, holds, naming, refused
from support.scorers import CAPTIONS, Faked, make_regions, make_token_ids

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import Precision
from sgraf_deploy.engines.base import LARGEST_TILES
from sgraf_deploy.engines.registry import ENGINES, EngineEntry
from sgraf_deploy.errors import BundleError, InputError, SgrafDeployError
from sgraf_deploy.runtime import EngineOptions, Scorer, TileShape, load

MakeFaked = Callable[..., Faked]
THREADS = 4


@pytest.fixture
def with_fake(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """Register the fake engine; the list holds those that were opened."""
    opened: list[FakeEngine] = []

    class Registered(FakeEngine):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            opened.append(self)

    monkeypatch.setattr(fake_engine, "Registered", Registered, raising=False)
    entry = EngineEntry("support.fake_engine:Registered", "none", "tests")
    monkeypatch.setitem(ENGINES, "fake", entry)
    return opened


def test_a_bundle_is_opened_by_path_or_as_it_is(
    bundle: Bundle, with_fake: list[FakeEngine], regions: NDArray[np.float32]
) -> None:
    with load(str(bundle.path), engine="fake") as one, load(bundle, engine="fake") as two:
        assert one.bundle.sha256 == two.bundle.sha256 == bundle.sha256
        assert np.array_equal(one.score(regions, CAPTIONS), two.score(regions, CAPTIONS))
    assert [engine.closed for engine in with_fake] == [True, True]


def test_a_scorer_says_what_it_is(bundle: Bundle, with_fake: list[FakeEngine]) -> None:
    options = EngineOptions(threads=2)
    scorer = load(bundle, engine="fake", precision="fp16", options=options)
    assert scorer.engine_name == "fake"
    assert (scorer.precision, scorer.executed, scorer.device) == ("fp16", "fake fp16", "cpu")
    assert scorer.members == ("sgr", "saf")
    assert repr(scorer) == "Scorer(small.sgraf, fake, fake fp16 on cpu)"
    assert with_fake[0].options == replace(options, device="cpu")
    scorer.close()
    assert repr(scorer) == "Scorer(small.sgraf, fake, fake fp16 on cpu, closed)"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_auto_takes_an_engine_that_runs_the_precision_and_says_which(
    exported: Bundle, precision: Precision, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"), load(exported, precision=precision) as scorer:
        assert (scorer.engine_name, scorer.device) == (auto_engine(precision), "cpu")
        assert scorer.executed == {"fp32": "fp32", "fp16": "fp16-rounded"}[precision]
    (record,) = caplog.records
    assert record.levelname == "INFO"
    for name in (scorer.engine_name, precision, "cpu"):
        assert holds(record.getMessage(), name)


def test_a_bundle_without_fp32_is_slow_on_a_cpu_and_that_is_said(
    exported: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    members = {
        name: replace(member, graphs={"fp16": member.graphs["fp16"]})
        for name, member in exported.manifest.members.items()
    }
    half = Bundle(exported.path, replace(exported.manifest, members=members), exported.sha256)
    with load(half) as scorer:
        assert (scorer.engine_name, scorer.precision) == ("torch", "fp16")
        assert scorer.executed == "fp16-rounded"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for name in (half.path.name, "fp32", "torch", "fp16"):
        assert holds(record.getMessage(), name)


def test_an_engine_takes_its_own_precision_of_those_there_are(
    bundle: Bundle, sgr_bundle: Bundle, with_fake: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    halves_first = replace(ENGINES["fake"], precisions=("fp16", "fp32"))
    monkeypatch.setitem(ENGINES, "fake", halves_first)
    found = [load(one, "fake").precision for one in (bundle, sgr_bundle)]
    assert found == ["fp16", "fp32"]


def test_engine_precision_device_and_threads_stand_beside_the_bundle(
    bundle: Bundle, with_fake: list[FakeEngine]
) -> None:
    load(bundle, "fake", "fp16", "cpu", 3).close()
    load(bundle, "fake", threads=3, options=EngineOptions(threads=3, device="cpu")).close()
    load(bundle, "fake", device="cpu", options=EngineOptions(threads=3)).close()
    assert [one.options for one in with_fake] == [EngineOptions(3, "cpu")] * 3


@pytest.mark.parametrize(
    ("wanted", "inside"),
    [({"device": "cpu"}, {"device": "cuda"}), ({"threads": 2}, {"threads": 3})],
    ids=["device", "threads"],
)
def test_what_is_given_twice_must_agree(
    bundle: Bundle, with_fake: list[FakeEngine], wanted: Any, inside: Any
) -> None:
    (name,) = wanted
    with refused(InputError, name, f"options.{name}"):
        load(bundle, "fake", **wanted, options=EngineOptions(**inside))
    assert with_fake == []


def test_the_memory_budget_and_the_tile_reach_the_tiling(
    bundle: Bundle, with_fake: list[FakeEngine]
) -> None:
    tilings = []
    wanted: list[dict[str, Any]] = [{}, {"memory_budget": 10_000}, {"tile": TileShape(1, 1)}]
    for limits in wanted:
        with load(bundle, engine="fake", **limits) as scorer:
            images = scorer.encode_images(make_regions(20))
            tilings.append(scorer.tiling(images, scorer.encode_captions(make_token_ids(20))))
    assert len(tilings[0]) < len(tilings[1]) < len(tilings[2]) == 400
    assert tilings[1].tile_bytes <= 10_000


def test_the_largest_tiles_take_the_whole_budget(
    bundle: Bundle, with_fake: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "tile_advice", LARGEST_TILES)
    with load(bundle, engine="fake") as scorer:
        images = scorer.encode_images(make_regions(2000))
        tiling = scorer.tiling(images, scorer.encode_captions([[1, 2, 3]] * 2000))
    assert len(tiling) < 10
    assert tiling.tile_bytes > 2**28


@pytest.mark.parametrize(
    ("wanted", "name", "expected", "got"),
    [
        ({"precision": "int8"}, "int8", naming("fp32", "fp16"), "int8"),
        ({"engine": "fastest"}, "engine", naming("ort", "native"), "fastest"),
        ({"engine": "ort:fp31"}, "ort:fp31", naming("ort:fp32"), None),
        ({"engine": "ort:fp32", "precision": "fp16"}, "precision", naming("ort:fp32"), "fp16"),
        ({"memory_budget": 0}, "memory_budget", naming(1), naming(0)),
        ({"engine": "ort", "options": EngineOptions(device="cuda")}, "device", "cpu", "cuda"),
        ({"engine": "native", "device": "cuda"}, "device", "cpu", "cuda"),
        ({"engine": "ort", "options": EngineOptions(threads=0)}, "threads", naming(1), naming(0)),
        ({"engine": "native", "threads": 2**31}, "threads", naming(1024), naming(2**31)),
    ],
    ids=[
        "precision",
        "engine",
        "other",
        "both",
        "memory_budget",
        "ort-device",
        "native-device",
        "none",
        "many",
    ],
)
def test_what_is_not_there_is_refused(
    bundle: Bundle, wanted: Any, name: str, expected: Any, got: Any
) -> None:
    hint = naming() if name == "device" else None
    with refused(InputError, name, expected=expected, got=got, hint=hint):
        load(bundle, **wanted)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        *(
            ({"memory_budget": value}, "memory_budget")
            for value in (float("nan"), 1e9, float("inf"), True, "1 GB", -1, [1])
        ),
        *(({"tile": value}, "tile") for value in ((2, 3), 4, "2x3")),
        *(({"options": value}, "options") for value in (4, {"threads": 2})),
        *(({"engine": value}, "engine") for value in (None, ["ort"], b"ort")),
        *(({"precision": value}, "precision") for value in (16, ["fp32"])),
        *(({"device": value}, "device") for value in (0, b"cpu", ["cpu"])),
        *(({"threads": value}, "threads") for value in (0, -1, 1.5, True, "2")),
        *(({"max_words": value}, "max_words") for value in (2, 0, 1.5, True)),
        *(({"caption_cache": value}, "caption_cache") for value in (-1, 1.5, True, "2", None)),
        *(
            ({"options": EngineOptions(**cast(Any, {field: value}))}, f"options.{field}")
            for field, value in [
                *(("threads", value) for value in (2.0, True, "2", float("nan"))),
                *(("device", 0), ("device", b"cpu"), ("checkpoints", "a.pth"), ("checkpoints", 3)),
                *(("checkpoints", (None,)), ("engine_dir", 3), ("allow_unverified", "no")),
            ]
        ),
    ],
    ids=str,
)
def test_arguments_of_another_type_are_refused_before_anything_is_opened(
    bundle: Bundle, with_fake: list[FakeEngine], wanted: Any, name: str
) -> None:
    with refused(InputError, expected=naming(), got=naming()) as caught:
        load(bundle, **{"engine": "fake", **wanted})
    assert caught.error.what == name
    assert with_fake == []


@pytest.mark.parametrize(
    "path", [None, 3, b"small.sgraf", ["small.sgraf"], "a\0b", "\ud800", 1.5], ids=repr
)
def test_what_is_no_path_is_refused(path: Any) -> None:
    with refused(InputError, "bundle", expected=naming("Bundle"), got=naming(type(path).__name__)):
        load(path)


@pytest.mark.parametrize("size", [0, -1, 1.5, float("nan"), True, "2", None], ids=repr)
def test_a_tile_has_whole_sides(size: Any) -> None:
    for sides in ((size, 2), (2, size)):
        with refused(InputError, expected=naming(1), got=naming(size)):
            TileShape(*sides)


def test_a_scorer_says_how_long_a_caption_may_be(
    bundle: Bundle, with_fake: list[FakeEngine]
) -> None:
    asked: list[tuple[dict[str, Any], int | None]] = [
        *(({}, 512), ({"max_words": 20}, 20), ({"max_words": None}, None))
    ]
    for wanted, words in asked:
        with load(bundle, engine="fake", **wanted) as scorer:
            assert scorer.max_words == words


def test_a_precision_that_was_not_exported_is_refused(sgr_bundle: Bundle) -> None:
    with refused(InputError, sgr_bundle.path, expected=naming("fp32"), got="fp16"):
        load(sgr_bundle, precision="fp16")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, tmp_path, "manifest.json", hint="sgraf-deploy export"):
        load(tmp_path)


def test_a_graph_that_cannot_be_opened_closes_the_engine(
    bundle: Bundle, with_fake: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise BundleError("damaged")

    monkeypatch.setattr(FakeEngine, "open", fail)
    with refused(BundleError, "damaged"):
        load(bundle, engine="fake")
    assert with_fake[0].closed


def test_another_process_may_not_use_it(
    faked: MakeFaked, regions: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, parent = faked(), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: -5)
    with refused(InputError, expected=naming(parent), got=naming(-5), hint=naming()):
        made.scorer.score(regions, CAPTIONS)
    made.scorer.close()
    assert not made.engine.closed, "the engine belongs to the parent"


FORK = """
import os, sys
import numpy as np
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import EngineOptions, load

path, options = sys.argv[1], EngineOptions(threads=2)
regions = np.random.default_rng(0).normal(size=(9, 4, 6)).astype(np.float32)
scorer = load(path, engine="ort", options=options)
expected = scorer.score(regions, ["a dog", "a red cat"])
child = os.fork()
if child == 0:
    try:
        scorer.score(regions, ["a dog"])
    except InputError as error:
        refused = str(os.getpid()) in str(error.got)
    with load(path, engine="ort", options=options) as own:
        same = np.array_equal(own.score(regions, ["a dog", "a red cat"]), expected)
    os._exit(0 if refused and same else 1)
_, status = os.waitpid(child, 0)
again = np.array_equal(scorer.score(regions, ["a dog", "a red cat"]), expected)
print(os.waitstatus_to_exitcode(status), again)
"""


def test_a_forked_worker_is_refused_and_may_load_its_own(bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(bundle.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(sgraf_deploy.__file__).parents[1],
    )
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_threads_share_a_scorer(scorer: Scorer) -> None:
    images = scorer.encode_images(make_regions(12))
    batches = [make_token_ids(15, seed) for seed in range(3 * THREADS)]

    def work(captions: list[NDArray[Any]]) -> tuple[NDArray[Any], list[int]]:
        similarities = scorer.score(images, captions)
        result = scorer.rerank(captions[0], images)
        return similarities, result.indices.tolist()

    expected = [work(captions) for captions in batches]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, batches))
    assert len(found) == 3 * THREADS
    for (similarities, ranked), (wanted, order) in zip(found, expected, strict=True):
        assert np.array_equal(similarities, wanted)
        assert ranked == order


def test_threads_that_come_first_open_a_vocabulary_once(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    path = scorer.bundle.vocabulary_path()

    together = Barrier(2)

    def counting(_: Bundle) -> Path:
        asked.append(1)
        # A second thread that comes this far is met; behind the lock nobody comes.
        with suppress(BrokenBarrierError):
            together.wait(timeout=0.2)
        return path

    monkeypatch.setattr(Bundle, "vocabulary_path", counting)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(scorer.encode_captions, [CAPTIONS] * 8))
    assert [len(captions) for captions in found] == [7] * 8
    assert len(asked) == 1


def test_tasks_share_a_scorer(scorer: Scorer, regions: NDArray[np.float32]) -> None:
    async def work() -> list[Any]:
        calls = (asyncio.to_thread(scorer.rerank, caption, regions) for caption in CAPTIONS)
        return await asyncio.gather(*calls)

    found = asyncio.run(work())
    expected = [scorer.rerank(caption, regions) for caption in CAPTIONS]
    assert [result.indices.tolist() for result in found] == [
        result.indices.tolist() for result in expected
    ]


def test_an_error_in_one_thread_is_its_own(scorer: Scorer, regions: NDArray[np.float32]) -> None:
    def work(captions: Any) -> Any:
        try:
            return scorer.score(regions, captions)
        except SgrafDeployError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, [CAPTIONS, [""], CAPTIONS, [[99]]]))
    assert np.array_equal(found[0], found[2])
    check_error(found[1], 0, got="''")
    check_error(found[3], 0, got=99)
