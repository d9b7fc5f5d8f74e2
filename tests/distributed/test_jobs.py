"""Jobs in pieces, without Ray: the result is that of one process, whoever was killed in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.jobs import (
    IMAGES,
    check_equal,
    drive,
    files_of,
    local,
    of_one_process,
    request,
    run_killed,
    write_tied,
)
from support.refusals import ANY, refused
from support.small_models import SGR

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.distributed import planning, worker
from sgraf_deploy.distributed.actors import Slots
from sgraf_deploy.distributed.offline import best_candidates, count_ranks, run_pieces
from sgraf_deploy.distributed.parts import Job, Piece, Request
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime import Scorer, encode


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tied(tmp_path_factory.mktemp("jobs") / "precomp")


@pytest.fixture(scope="module")
def wanted(exported: Bundle, data: Path) -> Request:
    return request(exported.path, data)


@pytest.fixture(scope="module")
def finished(wanted: Request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished job; nobody changes it."""
    folder = tmp_path_factory.mktemp("finished") / "job"
    drive(wanted, folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "job")


def test_ranks_are_those_of_one_process(finished: Path, wanted: Request) -> None:
    job = Job(finished)
    assert len(job.plan.tiles) > 1
    check_equal(count_ranks(job), of_one_process(wanted))


def test_the_best_candidates_are_those_of_one_process(wanted: Request, tmp_path: Path) -> None:
    drive(replace(wanted, k=4), tmp_path / "job")
    found = best_candidates(Job(tmp_path / "job")).result()
    with wanted.settings.load(Bundle.open(wanted.bundle)) as scorer:
        split = wanted.source.open(scorer.bundle)
        expected = scorer.top_k_tiles(split.regions, split.captions, 4).result()
    assert list(found) == list(expected)
    for direction, best in expected.items():
        for name, array in vars(best).items():
            assert np.array_equal(getattr(found[direction], name), array), (direction, name)
    assert not list((tmp_path / "job").glob("truths*"))


def test_a_finished_job_is_not_done_again(copied: Path, wanted: Request) -> None:
    before = files_of(copied)
    ran = drive(wanted, copied)
    assert (ran.done, ran.found) == (0, len(before))
    assert files_of(copied) == before


@pytest.mark.parametrize("lost", ["images-00000", "captions-00000", "truths-00000", "part-00001"])
def test_only_what_is_missing_is_done(copied: Path, wanted: Request, lost: str) -> None:
    file = copied / f"{lost}.npz"
    before, content = files_of(copied), file.read_bytes()
    file.unlink()
    steps: list[str] = []
    ran = drive(wanted, copied, steps.append)
    assert steps == ["planned", lost, "finished"]
    assert (ran.done, ran.found) == (1, len(before) - 1)
    after = files_of(copied)
    assert {name for name in after if after[name] != before[name]} == {file.name}
    with np.load(file) as again:
        arrays = {name: again[name] for name in again.files}
    file.write_bytes(content)
    with np.load(file) as first:
        assert all(np.array_equal(first[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("step", ["planned", "captions-00001", "truths-00000", "part-00002"])
def test_a_killed_driver_goes_on(wanted: Request, tmp_path: Path, step: str) -> None:
    folder = tmp_path / "job"
    assert run_killed(wanted, folder, step) == -signal.SIGKILL
    before = files_of(folder)
    assert step == "planned" or f"{step}.npz" in before
    ran = drive(wanted, folder)
    assert ran.found == len(before)
    after = files_of(folder)
    assert {name: after[name] for name in before} == before
    assert ran.done == len(after) - len(before) > 0
    check_equal(count_ranks(Job(folder)), of_one_process(wanted))


def test_captions_are_encoded_as_if_together(finished: Path, wanted: Request) -> None:
    """Bit for bit, though each batch is encoded by itself."""
    with wanted.settings.load(Bundle.open(wanted.bundle)) as scorer:
        split = wanted.source.open(scorer.bundle)
        expected = scorer.encode_captions(split.captions).to_host()
        images = scorer.encode_images(split.regions).to_host()
    found = worker.JobWorker(wanted, finished)
    assert found._captions.lengths.sum() == len(expected["sgr"]["word_embeddings"])
    for member, rows in found._captions.to_host().items():
        for name, array in rows.items():
            assert np.array_equal(array, expected[member][name]), (member, name)
    shards = range(len(Job(finished).plan.images))
    for member, rows in found._load_images(shards).to_host().items():
        for name, array in rows.items():
            assert np.array_equal(array, images[member][name]), (member, name)
    found.close()


def test_shards_of_several_batches(
    wanted: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts read the shards that they need, and batches are encoded one by one."""
    monkeypatch.setattr(encode, "_image_step", lambda context: 6)
    monkeypatch.setattr(encode, "SMALLEST_TEXT_BATCH", 0)
    monkeypatch.setattr(encode, "_word_bytes", lambda config: 2**18)
    monkeypatch.setattr(planning, "LEAST", 12)
    encoded: list[int] = []
    encode_captions = Scorer.encode_captions

    def record(scorer: Scorer, captions: Any, *more: Any) -> Any:
        encoded.append(len(captions))
        return encode_captions(scorer, captions, *more)

    monkeypatch.setattr(Scorer, "encode_captions", record)
    drive(wanted, tmp_path / "job")
    job = Job(tmp_path / "job")
    assert job.plan.images == (*range(6, IMAGES, 6), IMAGES)
    assert len(job.plan.batches) > len(job.plan.captions) > 2
    assert encoded == np.diff([0, *job.plan.batches]).tolist()
    check_equal(count_ranks(job), of_one_process(wanted))


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=200), words=st.integers(1, 300))
def test_a_batch_by_itself_is_one_batch(lengths: list[int], words: int) -> None:
    """Else it would be cut where it is not cut among all captions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "SMALLEST_TEXT_BATCH", words)
        context: Any = SimpleNamespace(
            configs={"sgr": SGR},
            limits=SimpleNamespace(advice=SimpleNamespace(encoder_bytes=0)),
            at_most=lambda graph, axis, most: most,
        )
        ordered = np.sort(np.array(lengths, np.int32))
        for batch in list(encode._text_batches(context, ordered)):
            (alone,) = encode._text_batches(context, ordered[batch.rows])
            assert (alone.stop, alone.row_cost) == (batch.stop - batch.start, batch.row_cost)


CHANGES: dict[str, Callable[[Request, Path], Request]] = {
    "bundle": lambda wanted, other: replace(wanted, bundle=str(other)),
    "images": lambda wanted, _: replace(wanted, source=replace(wanted.source, limit_images=9)),
    "engine": lambda wanted, _: replace(wanted, settings=replace(wanted.settings, engine="ort")),
    "max_words": lambda wanted, _: replace(wanted, settings=replace(wanted.settings, max_words=9)),
    "k": lambda wanted, _: replace(wanted, k=3),
    "models": lambda wanted, _: replace(wanted, ensemble_only=True),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_folder_of_another_job_is_refused(
    copied: Path, wanted: Request, three: Bundle, what: str
) -> None:
    before = files_of(copied)
    changed = CHANGES[what](wanted, three.path)
    # The captions of fewer images are others, too, and their hash stands first.
    named = "captions" if what == "images" else what
    with refused(InputError, f"job {copied}", named, expected=ANY, got=ANY, hint=ANY):
        drive(changed, copied)
    assert files_of(copied) == before


@pytest.mark.parametrize("file", ["dev_ims.npy", "dev_caps.txt"])
def test_changed_data_are_refused(
    copied: Path, wanted: Request, data: Path, tmp_path: Path, file: str
) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    changed = replace(wanted, source=replace(wanted.source, folder=other))
    drive(changed, copied)
    content = (other / file).read_bytes()
    (other / file).write_bytes(content.replace(b"\n", b" dog\n", 1))
    os.utime(other / file, ns=(1, 1))
    named = {"dev_ims.npy": "regions", "dev_caps.txt": "captions"}[file]
    with refused(InputError, f"job {copied}", named, expected=ANY, got=ANY, hint=ANY):
        drive(changed, copied)


def test_a_part_of_another_job_is_refused(copied: Path, wanted: Request) -> None:
    drive(wanted, copied)
    shutil.copyfile(copied / "part-00001.npz", copied / "part-00002.npz")
    with refused(InputError, "tile", expected=ANY, got=ANY, hint=ANY):
        count_ranks(Job(copied))


def test_a_damaged_piece_is_named(copied: Path, wanted: Request) -> None:
    file = copied / "part-00001.npz"
    file.write_bytes(file.read_bytes()[:-40])
    with refused(DataError, file, got=ANY, hint=ANY):
        count_ranks(Job(copied))


def test_a_damaged_plan_is_named(copied: Path, wanted: Request) -> None:
    (copied / "plan.json").write_text("{}")
    with refused(DataError, "plan.json", "format", hint=ANY):
        drive(wanted, copied)


def test_another_tiling_is_refused(copied: Path, wanted: Request) -> None:
    plan = json.loads((copied / "plan.json").read_text())
    plan["tiling"] = "0" * 64
    (copied / "plan.json").write_text(json.dumps(plan))
    (copied / "part-00000.npz").unlink()
    with refused(DataError, "tiling", expected="0" * 64, got=ANY, hint=ANY):
        drive(wanted, copied)


def test_a_worker_with_another_engine_is_refused(copied: Path, wanted: Request) -> None:
    """As where `auto` takes another engine on another node."""
    (copied / "part-00000.npz").unlink()
    plan = json.loads((copied / "plan.json").read_text())
    plan["execution"]["engine"] = "ort"
    (copied / "plan.json").write_text(json.dumps(plan))
    with refused(InputError, "scorer", "engine", expected="ort", got="native", hint=ANY):
        drive(wanted, copied)


def test_a_second_driver_is_refused(copied: Path, wanted: Request) -> None:
    job = Job(copied)
    with local(wanted, copied) as runner, job.only_driver():
        run_pieces(runner, job)
        with refused(InputError, f"job {copied}", os.getpid(), hint=ANY):
            drive(wanted, copied)


def test_a_worker_that_does_not_see_the_folder_says_so(wanted: Request, tmp_path: Path) -> None:
    with (
        local(wanted, tmp_path / "elsewhere") as runner,
        refused(DataError, "plan.json", got=ANY, hint=ANY),
    ):
        list(runner.run([Piece("part", 0)]))


def test_what_an_actor_takes_of_its_node() -> None:
    node = {"CPU": 16.0, "GPU": 3.0, "memory": 1e9}
    for options, room in (
        (EngineOptions(), 16),
        (EngineOptions(5, "cpu"), 3),
        (EngineOptions(1, "cuda"), 3),
        (EngineOptions(8, "cuda"), 2),
    ):
        slots = Slots.of(options)
        assert slots.on(node) == room, options
        assert slots.on({"memory": 1e9}) == 0
    with refused(InputError, "--device", expected="cpu or cuda", got="cuda:1", hint=ANY):
        Slots.of(EngineOptions(device="cuda:1"))


@pytest.mark.parametrize(
    ("images", "batch", "image_bytes", "expected"),
    [
        (10, 4, 1, (4, 8, 10)),
        (100, 1, 1, (*range(7, 100, 7), 100)),
        (100, 1, planning.SHARD_BYTES // 3, (*range(3, 100, 3), 100)),
        (3, 8, 2 * planning.SHARD_BYTES, (3,)),
    ],
)
def test_shards_of_images_hold_whole_batches(
    images: int, batch: int, image_bytes: int, expected: tuple[int, ...]
) -> None:
    assert planning.image_shards(images, batch, image_bytes) == expected


def test_shards_of_captions_hold_whole_batches() -> None:
    lengths = np.sort(np.random.default_rng(1).integers(4, 30, 1000)).astype(np.int32)
    batches = (*range(7, 1000, 7), 1000)
    shards = planning.caption_shards(lengths, batches, 1)
    assert shards[-1] == len(batches)
    assert list(shards) == sorted(set(shards))
    assert planning.LEAST - 2 <= len(shards) <= planning.LEAST + 2
    assert planning.caption_shards(lengths[:1], (1,), 1) == (1,)
    assert planning.caption_shards(lengths, batches, planning.SHARD_BYTES) == tuple(
        range(1, len(batches) + 1)
    )


@pytest.mark.parametrize(
    ("pairs", "parts"), [(1, 16), (5_000_000, 20), (10**15, 4096), (4_000_001, 17)]
)
def test_parts_follow_the_pairs(pairs: int, parts: int) -> None:
    assert planning.count_parts(pairs) == parts


def test_the_plan_does_not_depend_on_threads(
    finished: Path, wanted: Request, tmp_path: Path
) -> None:
    options: Any = replace(wanted.settings.options, threads=2)
    settings = replace(wanted.settings, options=options)
    drive(replace(wanted, settings=settings), tmp_path / "job")
    one, two = (Job(folder).plan for folder in (finished, tmp_path / "job"))
    assert replace(one, tile_bytes=two.tile_bytes) == two
    assert two.identity.images == IMAGES
