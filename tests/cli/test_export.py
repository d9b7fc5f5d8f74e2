"""`sgraf-deploy export`: what it writes and says, and what it leaves behind when it fails."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.authors_checkpoint import authors_payload
from support.cli_world import (
    IMAGES,
    World,
    captions_of,
    done,
    line_naming,
    recall_rows,
    refused_line,
    run,
    suggested,
    tree,
    write_precomp,
)
from support.refusals import holds, naming
from support.small_models import SAF, SGR, WORDS, random_regions

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.cli.common import megabytes
from sgraf_deploy.errors import BundleError, DataError, GateError, InputError, UnavailableError
from sgraf_deploy.export.exporter import default_target


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
    line_naming(result.stdout, name, module, "fp32", "fp16")
    line_naming(result.stdout, "--vocab")
    assert suggested(result.stdout) == ["inspect", name]
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

    *members, _ = said = result.stderr.splitlines()
    assert len(set(said)) == 5  # graphs and reference of each, and the gate
    for line, number in zip(members, (1, 1, 2, 2), strict=True):
        assert holds(line, number)
        assert holds(line, 2)
    assert not set(said) & set(result.stdout.splitlines())


def test_it_tells_what_it_inferred(world: World) -> None:
    result = done("export", world.sgr, "--precision", "fp32")

    line_naming(result.stdout, "note:", world.sgr, "regions", 7)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_precision_leaves_the_other_out(world: World, precision: str) -> None:
    target = world.folder / "a folder.sgraf"
    arguments = ("--vocab", world.vocabulary, "--precision", precision)

    result = done("export", world.sgr, "-o", target, *arguments)

    assert Bundle.open(target).manifest.precisions == (precision,)
    found = {path.name for path in (target / "sgr").iterdir()}
    assert found == {precision, "explain.onnx"}
    command = suggested(result.stdout)
    assert command[:5] == ["eval", str(target), "--data", "DIR", "--split"]
    command[command.index("DIR")] = str(world.data)
    assert "SGR i" in recall_rows(done(*command, "--limit-images", 2).stdout)


def test_words_make_a_bundle_for_captions(world: World) -> None:
    result = done("export", world.sgr, "--vocab", world.vocabulary, "--precision", "fp32")

    manifest = Bundle.open("small_SGR.sgraf").manifest
    assert manifest.tokenizer == "nltk-vocabulary-punkt"
    assert manifest.vocabulary is not None
    assert manifest.vocab_size == len(WORDS)
    assert not holds(result.stdout, "--vocab")


def test_gate_data_replaces_the_synthetic_regions(world: World) -> None:
    data = ("--gate-data", world.data, "--vocab", world.vocabulary)

    result = done("export", world.sgr, "--precision", "fp32", *data)

    line_naming(result.stdout, IMAGES, 24, "dev")
    statistics = Bundle.open("small_SGR.sgraf").manifest.region_statistics
    assert statistics is not None
    assert statistics["images"] == IMAGES
    assert suggested(result.stdout)[2:6] == ["--data", str(world.data), "--split", "dev"]


def test_what_is_exported_is_ranked_on_the_gates_data(world: World) -> None:
    data = write_precomp(world.folder / "data", random_regions(SGR, 120), captions_of(120))
    gate = ("--gate-data", data, "--vocab", world.vocabulary, "--precision", "fp32")

    result = done("export", world.sgr, world.saf, *gate)

    line_naming(result.stdout, 100, 500, "dev")
    models = [name.split()[0] for name in recall_rows(result.stdout)]
    assert list(dict.fromkeys(models)) == ["SGR", "SAF", "SGRAF", "chance"]
    assert result.warned == ["vocabulary-name", "at-chance"]  # the weights are random
    line_naming(result.stderr, "SGR", "SAF", "SGRAF")


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_bundle_without_weights_is_ranked_too(world: World, precision: str) -> None:
    gate = ("--gate-data", world.data, "--vocab", world.vocabulary)

    result = done("export", world.sgr, *gate, "--precision", precision, "--no-reference")

    line_naming(result.stdout, IMAGES, 30, "dev")


def test_gate_data_that_cannot_be_ranked_are_refused(world: World) -> None:
    regions = random_regions(SGR, 120)
    regions[50, 2, 3] = np.nan  # not among the images that the gate's values are compared on
    data = write_precomp(world.folder / "data", regions, captions_of(120))

    result = run("export", world.sgr, "--gate-data", data, "--vocab", world.vocabulary)

    refused_line(result, DataError, "dev", "image 50", "region 2", got="nan")
    assert [path.name for path in world.folder.iterdir()] == ["data"]


def test_the_vocabulary_should_have_the_name_of_the_data(world: World) -> None:
    """The authors' code reads `{opt.data_name}_vocab.json`; the checkpoints say f30k_precomp."""
    right = world.folder / "f30k_precomp_vocab.json"
    shutil.copyfile(world.vocabulary, right)

    named = done("export", world.sgr, "--vocab", right, "--precision", "fp32")
    other = done("export", world.saf, "--vocab", world.vocabulary, "--precision", "fp32")

    assert named.warned == []
    assert other.warned == ["vocabulary-name"]
    line_naming(other.stderr, world.vocabulary, "f30k_precomp_vocab.json")


def test_members_of_other_data_are_warned_of(world: World) -> None:
    payload = authors_payload(SAF, seed=2)
    payload["opt"].data_name = "coco_\x1b[31mprecomp"
    torch.save(payload, "coco_SAF.pth.tar")

    result = done("export", world.sgr, "coco_SAF.pth.tar", "--precision", "fp32")

    assert result.warned == ["members-of-other-data"]
    line_naming(result.stderr, "sgr", "f30k_precomp", "saf", r"coco_\x1b[31mprecomp")


def test_without_reference_the_weights_stay_out(world: World) -> None:
    done("export", world.sgr, "-o", "with.sgraf", "--precision", "fp32")
    done("export", world.sgr, "-o", "without.sgraf", "--precision", "fp32", "--no-reference")

    one, other = (Bundle.open(f"{name}.sgraf").manifest for name in ("with", "without"))
    assert {file.file for file in one.files} - {file.file for file in other.files} == {
        "reference/sgr.safetensors",
        "reference/gate.npz",
    }
    assert not Path("without.sgraf/reference").exists()


def test_one_more_graph_is_of_all_members(world: World) -> None:
    result = done("export", world.sgr, world.saf, "--combined", "-o", "all.sgraf")

    line_naming(result.stdout, "combined", "fp32", "onnxruntime")
    line_naming(result.stdout, "combined", "fp16")
    line_naming(done("verify", "all.sgraf").stdout, "combined", "fp32", "onnxruntime")
    shown = done("inspect", "all.sgraf").stdout
    line_naming(shown, "combined", "regions (images, 7, 64) float32")
    line_naming(shown, "similarities (images, captions) float32")
    files = Bundle.open("all.sgraf").manifest.combined
    line_naming(shown, "combined", *(megabytes(file.ref.bytes) for file in files.values()))


def test_an_opset_that_graphs_cannot_have_is_refused_at_once(world: World) -> None:
    before = tree(world.folder)

    result = run("export", world.saf, "--precision", "fp16", "--opset", "14")

    refused_line(result, InputError, "opset", "fp16", got=14, expected=naming(15, 23))
    assert tree(world.folder) == before


def test_force_replaces_a_bundle(world: World) -> None:
    done("export", world.sgr, "-o", "a.sgraf", "--precision", "fp32")
    old = Bundle.open("a.sgraf").sha256

    result = run("export", world.saf, "-o", "a.sgraf", "--precision", "fp32")
    refused_line(result, BundleError, "a.sgraf", hint="--force")
    assert Bundle.open("a.sgraf").sha256 == old

    done("export", world.saf, "-o", "a.sgraf", "--precision", "fp32", "--force")
    assert Bundle.open("a.sgraf").manifest.module == "SAF"
    assert [path.name for path in world.folder.iterdir()] == ["a.sgraf"]


@pytest.mark.parametrize(
    ("bound", "names", "hint"),
    [
        ("FP32_SIMILARITIES", ("fp32", "similarities"), None),
        ("FP16_SIMILARITIES", ("fp16", "similarities"), "--precision fp32"),
        ("FP16_LOGITS_SHARE", ("fp16", "logits"), "--precision fp32"),
    ],
)
def test_a_failed_gate_writes_nothing_and_exits_1(
    world: World, bound: str, names: tuple[str, ...], hint: str | None
) -> None:
    world.monkeypatch.setattr(f"sgraf_deploy.gate.values.{bound}", 0.0)

    result = run("export", world.sgr)

    refused_line(result, GateError, "sgr", *names, expected=naming(0), got=naming(), hint=hint)
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("stage", "force"),
    [
        ("writing.build_graph", False),
        ("exporter.gate_members", False),
        ("exporter.gate_members", True),
    ],
    ids=["first-graph", "gate", "gate-with-force"],
)
@pytest.mark.parametrize(
    ("error", "code", "names"),
    [
        (KeyboardInterrupt(), 130, ()),
        (OSError(errno.ENOSPC, "it is full"), 2, ("Error:", "it is full")),
        (PermissionError(errno.EACCES, "it is denied", "/x"), 2, ("Error:", "/x", "it is denied")),
        (MemoryError("12 GB"), 2, ("Error:", "12 GB", "--limit-images")),
        (GateError("a bound"), 1, ("Error:", "a bound")),
    ],
    ids=["ctrl-c", "full-disk", "permission", "memory", "gate"],
)
def test_whatever_stops_it_leaves_all_as_it_was(
    world: World, stage: str, force: bool, error: BaseException, code: int, names: tuple[str, ...]
) -> None:
    def fail(*_: object) -> None:
        raise error

    arguments = ["export", world.sgr, "-o", "a.sgraf", "--precision", "fp32"]
    if force:
        world.copy(world.bare).rename("a.sgraf")
        arguments.append("--force")
    before = tree(world.folder)
    world.monkeypatch.setattr(f"sgraf_deploy.export.{stage}", fail)

    result = run(*arguments)

    assert result.exit_code == code
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ") == ("Error:" in names)
    assert all(holds(last, name) for name in names)
    hinted = result.error is not None and result.error.hint is not None
    assert hinted == (code == 2)
    assert "Traceback" not in result.output
    assert tree(world.folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(world: World) -> None:
    world.folder.chmod(0o500)
    try:
        result = run("export", world.sgr, "-o", "a.sgraf")
    finally:
        world.folder.chmod(0o700)
    refused_line(result, BundleError, "a.sgraf", got=os.strerror(errno.EACCES))


def test_without_torch_it_names_the_command(world: World) -> None:
    world.monkeypatch.setitem(sys.modules, "sgraf_deploy.export.exporter", None)

    result = run("export", world.sgr)

    hint = "pip install 'sgraf-deploy[torch,cpu]'"
    refused_line(result, UnavailableError, "sgraf_deploy.export.exporter", hint=hint)
