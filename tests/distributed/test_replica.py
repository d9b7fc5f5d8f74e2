"""A process that scores, without Ray: what it answers, what it does not start with, its health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.ray_service import sharded_galleries
from support.refusals import refused
from support.small_galleries import IMAGE_IDS, caption_gallery

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.distributed import replica
from sgraf_deploy.distributed.metrics import Told
from sgraf_deploy.distributed.replica import Found, ScorerReplica, ScorerSpec, try_out
from sgraf_deploy.errors import BundleError, DataError, InputError
from sgraf_deploy.runtime import load
from sgraf_deploy.serve.calls import (
    Answer,
    Call,
    CaptionText,
    FailedError,
    NotFoundError,
    StoredId,
    UnprocessableError,
)
from sgraf_deploy.serve.worker import Outcomes, Run

_T = TypeVar("_T")


@pytest.fixture
def spec(bundle: Bundle) -> ScorerSpec:
    return ScorerSpec(str(bundle.path), "ort")


@pytest.fixture
def gallery(bundle: Bundle, tmp_path: Path) -> str:
    with load(bundle, engine="ort") as scorer:
        return sharded_galleries(scorer, tmp_path / "galleries", 1)[0]


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "listen_at_the_node", lambda: None)
    monkeypatch.setattr(replica, "replica_id", lambda: "r1")


def ask(act: Callable[[Any], Coroutine[Any, Any, _T]], *given: Any) -> _T:
    """What a replica answers; it is gone afterwards."""

    async def asked() -> _T:
        made: Any = ScorerReplica.__new__(ScorerReplica)
        try:
            await made.__init__(*given)
            return await act(made)
        finally:
            if hasattr(made, "_batcher"):
                await made._batcher.__aexit__(None, None, None)
            made._open.close()

    return asyncio.run(asked())


def test_it_answers_and_names_its_bundle(bundle: Bundle, spec: ScorerSpec, gallery: str) -> None:
    call = Call(CaptionText("a dog"), tuple(StoredId(id_) for id_ in (*IMAGE_IDS, "none")))

    async def act(made: Any) -> list[Any]:
        made.check_health()
        return [
            await made.answer(call.part(0, 9), 30.0, False),
            await made.answer(replace(call, missing="told"), 30.0, True),
            await made.answer(call, 30.0, False),
            await made.answer(replace(call, query=CaptionText(" ")), 30.0, False),
            await made.details("photo3.jpg"),
            await made.details("none"),
        ]

    whole, told, missing, refused_, details, unknown = ask(act, spec, bundle.sha256, gallery)

    assert isinstance(whole, Answer)
    assert whole.bundles == (bundle.sha256,)
    assert (len(told.items), told.missing, told.warnings) == (9, (9,), ())
    assert type(missing) is type(unknown) is NotFoundError
    assert type(refused_) is UnprocessableError
    assert details == {"id": "photo3.jpg"}


def test_it_tells_what_it_has_scored(bundle: Bundle, spec: ScorerSpec, gallery: str) -> None:
    call = Call(CaptionText("a dog"), tuple(StoredId(id_) for id_ in IMAGE_IDS))

    async def act(made: Any) -> Told:
        await made.answer(call, 30.0, False)
        found: Told = await made.told()
        return found

    told = ask(act, spec, bundle.sha256, gallery)

    found = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in told.metrics
        for sample in metric.samples
    }
    assert told.replica == "r1"
    assert found["sgraf_gallery_images",] == len(IMAGE_IDS)
    pairs = 1 + len(IMAGE_IDS)  # with the one that was scored before
    assert found["sgraf_batch_pairs_sum",] == pairs
    for name in ("queue", "encode", "score"):
        assert found[f"sgraf_{name}_duration_seconds_count",] == 2
    for member in bundle.manifest.members:
        assert found["sgraf_scored_pairs_total", member] == pairs
    assert not any(name.startswith("sgraf_request") for name, *_ in found)


def test_one_that_cannot_score_is_never_there(
    bundle: Bundle, spec: ScorerSpec, gallery: str
) -> None:
    calls: list[Call] = []

    def broken(*_: Any) -> Run:
        def run(given: Sequence[Call]) -> Outcomes:
            calls.extend(given)
            raise RuntimeError

        return run

    async def nothing(_: Any) -> None:
        raise AssertionError

    with refused(FailedError):
        ask(nothing, spec, bundle.sha256, gallery, broken)
    assert sum(call.pairs for call in calls) == 1


def test_another_bundle_or_gallery_than_is_expected_is_refused(
    bundle: Bundle, spec: ScorerSpec, gallery: str, tmp_path: Path
) -> None:
    async def nothing(_: Any) -> None:
        pass

    with refused(BundleError, bundle.path, expected="another", got=bundle.sha256):
        ask(nothing, spec, "another", gallery)
    with load(bundle, engine="ort") as scorer:
        captions = caption_gallery(scorer, tmp_path / "captions")
    with refused(InputError, "gallery"):
        ask(nothing, spec, bundle.sha256, str(captions.path))


def test_a_bundle_is_tried_out_with_its_gallery(
    bundle: Bundle, sgr_bundle: Bundle, spec: ScorerSpec, gallery: str, tmp_path: Path
) -> None:
    manifest = bundle.manifest
    assert try_out(spec, gallery) == Found(bundle.sha256, manifest.regions, manifest.img_dim)
    other = replace(spec, bundle=str(sgr_bundle.path))
    for one, path, kind in (
        (other, gallery, DataError),
        (replace(spec, bundle=str(tmp_path / "none")), gallery, BundleError),
        (spec, str(tmp_path / "none"), InputError),
    ):
        assert isinstance(try_out(one, path), kind)


def test_a_replica_whose_engine_hangs_or_has_ended_is_not_well(
    bundle: Bundle, spec: ScorerSpec, gallery: str
) -> None:
    async def act(made: Any) -> None:
        made.check_health()
        made._watchdog_s = -1.0
        with pytest.raises(RuntimeError):
            made.check_health()
        made._watchdog_s = 60.0
        made._batcher.close()
        with pytest.raises(RuntimeError):
            made.check_health()

    ask(act, spec, bundle.sha256, gallery)
