"""`sgraf-deploy export`: what it writes and says, and what it leaves behind when it fails."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from authors_checkpoint import authors_payload
from cli.world import IMAGES, World, captions_of, done, error_line, run, tree, write_precomp
from small_models import SAF, SGR, WORDS, random_regions

from sgraf_deploy.bundle import Bundle
from sgraf_deploy.errors import GateError
from sgraf_deploy.export.exporter import default_target


def next_command(stdout: str) -> list[str]:
    """The words of the command that an export suggests, without its name."""
    (line,) = (line for line in stdout.splitlines() if line.startswith("next: "))
    name, *words = shlex.split(line.removeprefix("next: "))
    assert name == "sgraf-deploy"
    return words


@pytest.mark.parametrize(
    ("members", "name", "module"),
    [
        (("sgr",), "small_SGR.sgraf", "SGR"),
        (("saf",), "small_SAF.sgraf", "SAF"),
        (("saf", "sgr"), "small.sgraf", "SGRAF"),
    ],
    ids=["sgr", "saf", "both"],
)
def test_it_writes_a_bundle_and_names_it(
    world: World, members: tuple[str, ...], name: str, module: str
) -> None:
    result = done("export", *(world.checkpoints[member] for member in members))

    bundle = Bundle.open(world.folder / name)
    assert bundle.verify_files() == ()
    assert bundle.manifest.module == module
    assert bundle.manifest.precisions == ("fp32", "fp16")
    assert set(bundle.manifest.members) == set(members)
    assert [path.name for path in world.folder.iterdir()] == [name]
    assert f"wrote {name}: {module}, fp32 + fp16, " in result.stdout
    assert "no --vocab was given: this bundle scores token ids" in result.stdout
    assert next_command(result.stdout) == ["inspect", name]
    for member in members:
        for precision in ("fp32", "fp16"):
            assert re.search(rf"^{member} {precision} .* ≤ .* ≤ .* ≤ ", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("names", "target"),
    [
        (["f8k_SGR.pth.tar", "f8k_SAF.pth.tar"], "f8k"),
        (["a/model_best.pth.tar", "b/model_best.pth.tar"], "model_best"),
        (["run-3-sgr.pth", "run-3-saf.pth"], "run-3"),
        (["best.pth", "best_saf.pth"], "best"),
        (["sgr.pth", "saf.pth"], "sgraf"),
        (["model_best.pth.tar"], "model_best"),
        ([".pth"], "sgraf"),
    ],
    ids=str,
)
def test_the_default_name_is_of_whole_words(names: list[str], target: str) -> None:
    assert default_target([Path(name) for name in names]) == Path(f"{target}.sgraf")


def test_it_says_what_it_does_on_stderr_only(world: World) -> None:
    result = done("export", world.sgr, world.saf, "--precision", "fp32")

    assert result.stderr.splitlines() == [
        "writing graphs (1 of 2) …",
        "running the PyTorch reference in float64 (1 of 2) …",
        "writing graphs (2 of 2) …",
        "running the PyTorch reference in float64 (2 of 2) …",
        "gate: comparing every graph with the reference …",
    ]
    assert not result.stdout.count("…")


def test_it_tells_what_it_inferred(world: World) -> None:
    result = done("export", world.sgr, "--precision", "fp32")

    assert f"note: {world.sgr}: regions 7 from the region BatchNorm" in result.stdout


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_precision_leaves_the_other_out(world: World, precision: str) -> None:
    target = world.folder / "a folder.sgraf"
    arguments = ("--vocab", world.vocabulary, "--precision", precision)

    result = done("export", world.sgr, "-o", target, *arguments)

    assert Bundle.open(target).manifest.precisions == (precision,)
    assert [path.name for path in (target / "sgr").iterdir()] == [precision]
    suggested = next_command(result.stdout)
    assert suggested[:5] == ["eval", str(target), "--data", "DIR", "--split"]
    suggested[suggested.index("DIR")] = str(world.data)
    assert "R@1" in done(*suggested, "--limit-images", 2).stdout


def test_words_make_a_bundle_for_captions(world: World) -> None:
    result = done("export", world.sgr, "--vocab", world.vocabulary, "--precision", "fp32")

    manifest = Bundle.open("small_SGR.sgraf").manifest
    assert manifest.tokenizer == "nltk-vocabulary-punkt"
    assert manifest.vocabulary is not None
    assert manifest.vocab_size == len(WORDS)
    assert "token ids" not in result.stdout


def test_gate_data_replaces_the_synthetic_regions(world: World) -> None:
    data = ("--gate-data", world.data, "--vocab", world.vocabulary)

    result = done("export", world.sgr, "--precision", "fp32", *data)

    assert f"data: {IMAGES} images × 24 captions of split dev" in result.stdout
    statistics = Bundle.open("small_SGR.sgraf").manifest.region_statistics
    assert statistics is not None
    assert statistics["images"] == IMAGES
    assert next_command(result.stdout)[2:6] == ["--data", str(world.data), "--split", "dev"]


def test_what_is_exported_is_ranked_on_the_gates_data(world: World) -> None:
    data = write_precomp(world.folder / "data", random_regions(SGR, 120), captions_of(120))
    gate = ("--gate-data", data, "--vocab", world.vocabulary, "--precision", "fp32")

    result = done("export", world.sgr, world.saf, *gate)

    assert "on the first 100 images × 500 captions of split dev, by engine " in result.stdout
    rows = [line.split()[0] for line in result.stdout.splitlines() if "image → text" in line]
    assert rows == ["SGR", "SAF", "SGRAF", "chance"]
    warned = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warned) == 2  # the vocabulary's name, and ranks of random weights
    assert "R@K of SGR, SAF, SGRAF is not clearly above chance" in warned[1]


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_bundle_without_weights_is_ranked_too(world: World, precision: str) -> None:
    gate = ("--gate-data", world.data, "--vocab", world.vocabulary)

    result = done("export", world.sgr, *gate, "--precision", precision, "--no-reference")

    assert f"on the first {IMAGES} images × 30 captions of split dev" in result.stdout


def test_gate_data_that_cannot_be_ranked_are_refused(world: World) -> None:
    regions = random_regions(SGR, 120)
    regions[50, 2, 3] = np.nan  # not among the images that the gate's values are compared on
    data = write_precomp(world.folder / "data", regions, captions_of(120))

    result = run("export", world.sgr, "--gate-data", data, "--vocab", world.vocabulary)

    assert "image 50 (counted from 0), region 2" in error_line(result)
    assert [path.name for path in world.folder.iterdir()] == ["data"]


def test_the_vocabulary_should_have_the_name_of_the_data(world: World) -> None:
    """The authors' code reads `{opt.data_name}_vocab.json`; the checkpoints say f30k_precomp."""
    right = world.folder / "f30k_precomp_vocab.json"
    shutil.copyfile(world.vocabulary, right)

    named = done("export", world.sgr, "--vocab", right, "--precision", "fp32")
    other = done("export", world.saf, "--vocab", world.vocabulary, "--precision", "fp32")

    assert "Warning" not in named.stderr
    assert f"{world.vocabulary} is not named f30k_precomp_vocab.json" in other.stderr


def test_members_of_other_data_are_warned_of(world: World) -> None:
    payload = authors_payload(SAF, seed=2)
    payload["opt"].data_name = "coco_\x1b[31mprecomp"
    torch.save(payload, "coco_SAF.pth.tar")

    result = done("export", world.sgr, "coco_SAF.pth.tar", "--precision", "fp32")

    (warned,) = (line for line in result.stderr.splitlines() if line.startswith("Warning: "))
    assert r"sgr on f30k_precomp, saf on coco_\x1b[31mprecomp" in warned


def test_without_reference_the_weights_stay_out(world: World) -> None:
    done("export", world.sgr, "-o", "with.sgraf", "--precision", "fp32")
    done("export", world.sgr, "-o", "without.sgraf", "--precision", "fp32", "--no-reference")

    one, other = (Bundle.open(f"{name}.sgraf").manifest for name in ("with", "without"))
    assert {file.file for file in one.files} - {file.file for file in other.files} == {
        "reference/sgr.safetensors",
        "reference/gate.npz",
    }
    assert not Path("without.sgraf/reference").exists()


def test_force_replaces_a_bundle(world: World) -> None:
    done("export", world.sgr, "-o", "a.sgraf", "--precision", "fp32")
    old = Bundle.open("a.sgraf").sha256

    result = run("export", world.saf, "-o", "a.sgraf", "--precision", "fp32")
    assert "exists already; replace it with --force" in error_line(result)
    assert Bundle.open("a.sgraf").sha256 == old

    done("export", world.saf, "-o", "a.sgraf", "--precision", "fp32", "--force")
    assert Bundle.open("a.sgraf").manifest.module == "SAF"
    assert [path.name for path in world.folder.iterdir()] == ["a.sgraf"]


@pytest.mark.parametrize(
    ("bound", "label", "mend"),
    [
        ("FP32_SIMILARITIES", "sgr fp32: largest difference of similarities", ""),
        ("FP16_SIMILARITIES", "sgr fp16: largest difference of similarities", "--precision fp32"),
        ("FP16_LOGITS_SHARE", "sgr fp16: largest difference of logits", "--precision fp32"),
    ],
)
def test_a_failed_gate_writes_nothing_and_exits_1(
    world: World, bound: str, label: str, mend: str
) -> None:
    world.monkeypatch.setattr(f"sgraf_deploy.runtime.gate.{bound}", 0.0)

    result = run("export", world.sgr)

    assert result.exit_code == 1
    message = error_line(result)
    assert f"gate failed for {label}: expected at most 0, got " in message
    assert mend in message
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("stage", "force"),
    [("build_graph", False), ("gate_members", False), ("gate_members", True)],
    ids=["first-graph", "gate", "gate-with-force"],
)
@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "No space left on device; free"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "/x: got Permission denied"),
        (MemoryError("12 GB"), 2, "out of memory: got 12 GB; free memory"),
        (GateError("a bound"), 1, "a bound"),
    ],
    ids=["ctrl-c", "full-disk", "permission", "memory", "gate"],
)
def test_whatever_stops_it_leaves_all_as_it_was(
    world: World, stage: str, force: bool, error: BaseException, code: int, says: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    arguments = ["export", world.sgr, "-o", "a.sgraf", "--precision", "fp32"]
    if force:
        world.copy(world.bare).rename("a.sgraf")
        arguments.append("--force")
    before = tree(world.folder)
    world.monkeypatch.setattr(f"sgraf_deploy.export.exporter.{stage}", fail)

    result = run(*arguments)

    assert result.exit_code == code
    assert says in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert tree(world.folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(world: World) -> None:
    world.folder.chmod(0o500)
    try:
        result = run("export", world.sgr, "-o", "a.sgraf")
    finally:
        world.folder.chmod(0o700)
    assert result.exit_code == 2
    assert "got Permission denied" in error_line(result)


def test_without_torch_it_names_the_command(world: World) -> None:
    world.monkeypatch.setitem(sys.modules, "sgraf_deploy.export.exporter", None)

    result = run("export", world.sgr)

    assert result.exit_code == 2
    assert "pip install 'sgraf-deploy[torch,cpu]'" in error_line(result)
