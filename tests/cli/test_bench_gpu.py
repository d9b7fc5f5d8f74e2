"""`sgraf-deploy bench gpu`, `prepare` and `summary`: what they run, write, show and refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.cli_world import IMAGES, World, done, error_line, run

from sgraf_deploy.bench.gpu import run as run_module
from sgraf_deploy.bench.gpu.run import DESCRIBE
from sgraf_deploy.bench.gpu.runner import Ended
from sgraf_deploy.bench.gpu.unpack import read_data, unpack

FEW = ("--engine", "ort", "--module", "SAF", "--small", "--results", "r")
MACHINE: dict[str, Any] = {
    "gpus": [],
    "cuda": None,
    "processor": "CPU A",
    "versions": {},
    "missing": {},
}


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Commands that only pretend: exit codes by a word of the command, 0 where none is named."""
    codes: dict[str, int] = {}
    world = run_module.World

    def pretend(command: Sequence[str], seconds: float, environment: Mapping[str, str]) -> Ended:
        if list(command) == DESCRIBE.command:
            return Ended(0, 1.0, json.dumps(MACHINE))
        if "--json" in command:
            report = {"recall": {}, "images": 1, "captions": 5, "seconds": 1.0, "cases": {}}
            Path(command[command.index("--json") + 1]).write_text(json.dumps(report))
        made = [word for word in command if "data-demo" in word or word.endswith(("demo", ".npz"))]
        for word in made:
            Path(word).mkdir(parents=True, exist_ok=True)
        code = next((codes[word] for word in codes if any(word in one for one in command)), 0)
        return Ended(code, 1.0, "", "the end\n")

    monkeypatch.setattr(run_module, "World", lambda: world(pretend, lambda: None, lambda: "now"))
    return codes


def state() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("r/gpu.json").read_text(encoding="utf-8"))
    return found


def test_dry_run_lists_the_steps_and_writes_nothing(world: World) -> None:
    stdout = done("bench", "gpu", "--dry-run", *FEW).stdout
    for name in ("unpack", "kernels", "recall-ort-fp32", "speed-SAF-ort-fp32", "-8GiB"):
        assert name in stdout
    assert "SGR" not in stdout
    assert "steps, " in stdout.splitlines()[-1]
    assert list(world.folder.iterdir()) == []


def test_steps_are_run_recorded_and_summarised(world: World, exits: dict[str, int]) -> None:
    words = ("bench", "gpu", *FEW, "--only", "reference", "--only", "kernels")
    stdout = done(*words).stdout

    names = ["prepare", "unpack", "kernels", "reference"]
    assert [one["step"] for one in state()["records"]] == names
    assert {one["outcome"] for one in state()["records"]} == {"ok"}
    assert state()["commands"] == [run_command_line()]
    summary = json.loads(Path("r/summary.json").read_text(encoding="utf-8"))
    assert summary["machines"][0]["machine"] == "CPU A"
    assert "trial, met" in stdout
    assert "not run" in stdout
    before = state()
    assert "==" not in done(*words).stdout.replace("====", "")
    assert state() == before


def run_command_line() -> str:
    """Of this process."""
    from sgraf_deploy.cli.bench_gpu import _command

    return _command()


def test_a_step_that_fails_is_exit_1_and_in_the_state(world: World, exits: dict[str, int]) -> None:
    exits["reference"] = 2
    result = run("bench", "gpu", *FEW, "--only", "reference")
    assert result.exit_code == 1
    assert "reference" in error_line(result)
    assert "--again" in error_line(result)
    assert state()["records"][-1]["error"] == ["the end"]
    exits.clear()
    assert run("bench", "gpu", *FEW, "--only", "reference").exit_code == 1
    done("bench", "gpu", *FEW, "--only", "reference", "--again")


def test_no_step_begins_after_the_minutes(world: World, exits: dict[str, int]) -> None:
    stdout = done("bench", "gpu", *FEW, "--only", "reference", "--minutes", "1e-9").stdout
    assert "prepare, unpack, reference" in stdout
    assert state()["records"] == []


def test_a_bundle_called_gpu_is_given_as_a_path(world: World) -> None:
    (world.folder / "gpu").mkdir()
    result = run("bench", "./gpu", "--engine", "ort")
    assert result.exit_code == 2
    assert "manifest.json" in error_line(result)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--engine", "turbo"), "got turbo"),
        (("--only", "nothing"), "--only nothing"),
        (("--prepared", "no"), "prepared.json"),
        (("--minutes", 0), "--minutes"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(world: World, arguments: tuple[object, ...], says: str) -> None:
    result = run("bench", "gpu", *arguments)
    assert result.exit_code == 2
    assert says in error_line(result)
    assert list(world.folder.iterdir()) == []


def test_summary_merges_files_and_folders(world: World, exits: dict[str, int]) -> None:
    done("bench", "gpu", *FEW, "--only", "kernels")
    stdout = done("bench", "gpu", "summary", "r", "r/gpu.json", "--json", "s.json").stdout
    assert "CPU A (a trial" in stdout
    merged = json.loads(Path("s.json").read_text(encoding="utf-8"))
    assert len(merged["machines"]) == 1
    assert "results nothing" in error_line(run("bench", "gpu", "summary", "nothing"))


def test_a_missed_bound_is_exit_1(world: World, exits: dict[str, int]) -> None:
    """Not of a trial, whose sizes prove nothing."""
    exits["kernels"] = 1
    done("bench", "gpu", *FEW, "--only", "kernels")
    full = ("bench", "gpu", "--engine", "ort", "--results", "f", "--only", "kernels")
    result = run(*full)
    assert result.exit_code == 1
    assert "gathered rows" in error_line(result)
    assert run("bench", "gpu", "summary", "f").exit_code == 1


def test_prepare_collects_a_bundle_and_a_split(world: World) -> None:
    data = ("--data", world.data, "--split", "dev", "--limit-images", 3)
    stdout = done("bench", "gpu", "prepare", world.bundle, *data, "-o", "p").stdout
    assert "3 images × 15 captions" in stdout
    assert "bench gpu --prepared p" in stdout
    unpack(Path("p"), Path("d"))
    found = read_data(Path("d"))
    assert (len(found.regions), len(found.token_ids)) == (3, 15)
    assert "--force" in error_line(run("bench", "gpu", "prepare", world.bundle, *data, "-o", "p"))
    done("bench", "gpu", "prepare", world.bundle, *data, "-o", "p", "--force")


def test_prepare_exports_checkpoints(world: World) -> None:
    given = ("--checkpoint", world.sgr, "--checkpoint", world.saf, "--vocab", world.vocabulary)
    data = ("--data", world.data, "--split", "dev")
    done("bench", "gpu", "prepare", *given, *data, "-o", "p")
    unpack(Path("p"), Path("d"))
    assert read_data(Path("d")).bundle.manifest.module == "SGRAF"
    assert len(read_data(Path("d")).regions) == IMAGES


def test_prepare_without_anything_takes_the_demo(world: World) -> None:
    assert (
        "2 images × 10 captions"
        in done("bench", "gpu", "prepare", "--limit-images", 2, "-o", "p").stdout
    )
    unpack(Path("p"), Path("d"))
    assert read_data(Path("d")).bundle.manifest.module == "SGRAF"


@pytest.mark.parametrize("given", ["bundle", "data", "both"])
def test_prepare_wants_all_or_nothing(world: World, given: str) -> None:
    words: dict[str, tuple[object, ...]] = {
        "bundle": (world.bundle,),
        "data": ("--data", world.data, "--split", "dev"),
        "both": (world.bundle, "--checkpoint", world.sgr, "--data", world.data, "--split", "dev"),
    }
    result = run("bench", "gpu", "prepare", *words[given], "-o", "p")
    assert result.exit_code == 2
    assert error_line(result)
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize("words", [("gpu",), ("gpu", "prepare"), ("gpu", "summary")], ids=" ".join)
def test_the_help_is_complete(words: tuple[str, ...]) -> None:
    stdout = done("bench", *words, "--help").stdout
    assert stdout.startswith(f"Usage: main bench {' '.join(words)} [OPTIONS]")
    assert max(map(len, stdout.splitlines())) <= 80
    assert "INTEGER" not in stdout
