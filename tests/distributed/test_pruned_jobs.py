"""Jobs that leave members out: the ranks of every pair, and the work and shares of one process."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from support.jobs import check_equal, local, of_one_process, request, run_killed, write_tied

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.distributed.offline import Progressed, count_ranks, evaluate_job
from sgraf_deploy.distributed.parts import Job, Request
from sgraf_deploy.evaluation.evaluate import EvalOptions, Evaluation, evaluate_split
from sgraf_deploy.runtime import PartialRanks


@pytest.fixture(scope="module")
def ensemble(spread: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """The ensemble's ranks, of a bundle whose members can be left out of many pairs."""
    data = write_tied(tmp_path_factory.mktemp("jobs") / "precomp")
    return replace(request(spread.path, data), ensemble_only=True)


def evaluated(wanted: Request, folder: Path) -> tuple[Evaluation, Progressed]:
    """An evaluation in pieces, in this process."""
    with local(wanted, folder) as runner:
        return evaluate_job(runner, Job(folder), Bundle.open(wanted.bundle), wanted.source.name)


def shares_of_one_process(wanted: Request) -> dict[str, float]:
    """What one scorer reports."""
    with wanted.settings.load(Bundle.open(wanted.bundle)) as scorer:
        split = wanted.source.open(scorer.bundle)
        options = EvalOptions(ensemble_only=wanted.ensemble_only)
        shares: dict[str, float] = evaluate_split(scorer, split, options).run["scored_share"]
        return shares


@pytest.mark.parametrize("engine", ["native", "ort"])
def test_members_are_left_out_as_in_one_process(
    ensemble: Request, tmp_path: Path, engine: str
) -> None:
    """Where the engine lets them be; the ranks are those of every member's every pair."""
    wanted = replace(ensemble, settings=replace(ensemble.settings, engine=engine))
    found, _ = evaluated(wanted, tmp_path / "job")
    counts = count_ranks(Job(tmp_path / "job"))
    check_equal(counts, of_one_process(wanted))
    every = of_one_process(replace(wanted, ensemble_only=False))
    check_equal(counts, {"sgraf": every["sgraf"]})
    assert list(found.reports) == ["SGRAF"]
    shares = found.run["scored_share"]
    assert shares == shares_of_one_process(wanted)
    assert shares["saf"] == 1.0
    assert (shares["sgr"] < 0.9) == (engine == "native")


def test_the_shares_of_pieces_that_were_there(ensemble: Request, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    assert run_killed(ensemble, folder, "part-00002") == -signal.SIGKILL
    found, ran = evaluated(ensemble, folder)
    assert ran.found
    assert ran.workers("part")
    assert found.run["scored_share"] == shares_of_one_process(ensemble)
    again, ran = evaluated(ensemble, folder)
    assert not ran.done
    assert again.run["scored_share"] == found.run["scored_share"]


def test_the_times_of_stages_that_this_run_did(ensemble: Request, tmp_path: Path) -> None:
    """Those that an earlier run did, wholly or in part, are not known."""
    folder = tmp_path / "job"
    whole, _ = evaluated(ensemble, folder)
    assert all(seconds is not None and seconds > 0 for seconds in whole.seconds.values())
    for lost in ("part-00001", "images-00000", "part-*"):
        for file in folder.glob(f"{lost}.npz"):
            file.unlink()
        found, ran = evaluated(ensemble, folder)
        assert ran.done
        assert dict(found.seconds) == {"encode": None, "score": None}
    for file in (*folder.glob("part-*.npz"), *folder.glob("truths-*.npz")):
        file.unlink()
    found, _ = evaluated(ensemble, folder)
    assert found.seconds["encode"] is None
    assert found.seconds["score"] is not None


def test_whoever_prunes_or_not_works_on_one_job(ensemble: Request, tmp_path: Path) -> None:
    """The parts are the same, apart from how many pairs members scored for them."""
    pruned, _ = evaluated(ensemble, tmp_path / "job")
    parts = sorted((tmp_path / "job").glob("part*.npz"))
    before = [PartialRanks.load(part).digest for part in parts]
    for part in parts[::2]:
        part.unlink()
    whole = replace(ensemble, settings=replace(ensemble.settings, prune=False))
    mixed, _ = evaluated(whole, tmp_path / "job")
    assert [PartialRanks.load(part).digest for part in parts] == before
    full, _ = evaluated(whole, tmp_path / "other")
    assert full.run["scored_share"] == {"sgr": 1.0, "saf": 1.0}
    shares = [each.run["scored_share"]["sgr"] for each in (pruned, mixed, full)]
    assert shares == sorted(set(shares))
