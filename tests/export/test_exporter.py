"""Checkpoints in, a bundle out: what is in it, what is refused, and that failures leave nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.export_splits import write_split
from support.random_weights import random_weights
from support.refusals import naming, refused
from support.small_models import SAF, SGR, WORDS, write_checkpoint_file, write_vocabulary_file

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import DEFAULT_PRECISIONS, GRAPHS, Precision
from sgraf_deploy.data.tokenizer import VOCABULARY
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import BundleError
from sgraf_deploy.evaluation import parity
from sgraf_deploy.export.exporter import (
    STEPS,
    ExportOptions,
    default_target,
    export_bundle,
)
from sgraf_deploy.export.writing import image_encoder_fingerprint
from sgraf_deploy.files.folders import FRESH_STEPS
from sgraf_deploy.gate.executors import EVALUATOR
from sgraf_deploy.gate.inputs import read_gate
from sgraf_deploy.model.checkpoint import read_checkpoint, read_reference

FP32 = ExportOptions(precisions=("fp32",))
MEMBERS = ("sgr", "saf")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "made.sgraf"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["f8k_SGR.pth.tar"], "f8k_SGR.sgraf"),
        (["runs/first/model_best.pth.tar"], "model_best.sgraf"),
        (["f8k_SGR.pth.tar", "f8k_SAF.pth.tar"], "f8k.sgraf"),
        (["f30k-SAF.pth", "f30k-SGR.pth"], "f30k.sgraf"),
        (["f8k.pth", "f8k_SAF.pth"], "f8k.sgraf"),
        (["f8k_SGR_1.pth", "f8k_SGR_2.pth", "f8k_SAF.pth"], "f8k.sgraf"),
        (["seed1/model_best.pth.tar", "seed2/model_best.pth.tar"], "model_best.sgraf"),
        (["SGR.pth", "SAF.pth"], "sgraf.sgraf"),
        (["one.pth", "two.pth"], "sgraf.sgraf"),
        ([".pth"], "sgraf.sgraf"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else value,
)
def test_the_default_target_is_named_after_the_checkpoints(names: list[str], expected: str) -> None:
    assert default_target([Path(name) for name in names]) == Path(expected)


def test_an_ensemble_has_all_that_a_service_needs(
    exported: Bundle, checkpoint_files: dict[str, Path], vocabulary_file: Path
) -> None:
    manifest = exported.manifest

    graphs = {
        f"{member}/{precision}/{graph}.onnx"
        for member in MEMBERS
        for precision in DEFAULT_PRECISIONS
        for graph in GRAPHS
    }
    graphs |= {f"{member}/explain.onnx" for member in MEMBERS}
    references = {
        f"reference/{name}" for name in ("sgr.safetensors", "saf.safetensors", "gate.npz")
    }
    assert files(exported.path) == graphs | references | {"manifest.json", "vocab.json"}
    assert exported.verify_files() == ()
    assert manifest.module == "SGRAF"
    assert list(manifest.members) == ["sgr", "saf"]
    assert {name: member.config for name, member in manifest.members.items()} == {
        "sgr": SGR,
        "saf": SAF,
    }
    assert manifest.tokenizer == VOCABULARY
    vocabulary = Vocabulary.load(exported.vocabulary_path())
    assert vocabulary.words == Vocabulary.load(vocabulary_file).words == WORDS
    assert manifest.region_statistics is None
    assert {"sgraf-deploy", "python", "torch", "onnx", "numpy"} <= set(manifest.tools)
    for name, member in manifest.members.items():
        checkpoint = read_checkpoint(checkpoint_files[name])
        assert member.checkpoint.sha256 == checkpoint.sha256
        assert member.checkpoint.file == checkpoint_files[name].name
        assert (member.checkpoint.epoch, member.checkpoint.best_rsum) == (17, 498.25)
        weights = read_reference(exported.reference_path(name), member.config)
        assert weights.keys() == checkpoint.weights.keys()
        assert all(np.array_equal(weights[key], checkpoint.weights[key]) for key in weights)


def test_the_manifest_has_the_parity_report(exported: Bundle) -> None:
    parity = exported.manifest.parity

    naming("synthetic", "6 images").check("source", parity["source"])
    for member in MEMBERS:
        for precision in DEFAULT_PRECISIONS:
            report = parity["members"][member][precision]
            for name in ("embeddings", "logits", "similarities"):
                assert 0 < report[name]["value"] <= report[name]["bound"]


def test_the_members_are_in_one_order_whatever_the_callers(
    checkpoint_files: dict[str, Path], target: Path, exported: Bundle
) -> None:
    paths = [checkpoint_files["saf"], checkpoint_files["sgr"]]

    bundle = export_bundle(paths, target, FP32).bundle

    assert list(bundle.manifest.members) == ["sgr", "saf"]
    ours, theirs = (made.manifest.members["saf"].graphs["fp32"] for made in (bundle, exported))
    assert {name: file.ref.sha256 for name, file in ours.items()} == {
        name: file.ref.sha256 for name, file in theirs.items()
    }


@pytest.mark.parametrize("member", MEMBERS)
def test_one_checkpoint_gives_a_bundle_of_one_that_works_on_ids(
    member: str, checkpoint_files: dict[str, Path], target: Path
) -> None:
    exported = export_bundle([checkpoint_files[member]], target, FP32)

    manifest = exported.bundle.manifest
    assert manifest.module == member.upper()
    assert list(manifest.members) == [member]
    assert manifest.tokenizer is None
    assert manifest.vocabulary is None
    assert "vocab.json" not in files(target)
    with refused(BundleError, target, hint="--vocab FILE"):
        exported.bundle.vocabulary_path()
    (note,) = exported.notes
    naming(checkpoint_files[member], f"regions {SGR.regions}").check("note", note)


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
def test_precisions_that_are_not_asked_for_are_left_out(
    precision: Precision, checkpoint_files: dict[str, Path], target: Path
) -> None:
    options = ExportOptions(precisions=(precision,))

    bundle = export_bundle([checkpoint_files["saf"]], target, options).bundle

    assert bundle.manifest.precisions == (precision,)
    assert {path.name for path in (target / "saf").iterdir()} == {precision, "explain.onnx"}
    assert list(bundle.manifest.parity["members"]["saf"]) == [precision]


def test_without_its_reference_a_bundle_has_no_reference_files(
    checkpoint_files: dict[str, Path], target: Path
) -> None:
    options = replace(FP32, keep_reference=False)

    bundle = export_bundle([checkpoint_files["saf"]], target, options).bundle

    assert {name for name in files(target) if "onnx" not in name} == {"manifest.json"}
    assert not (target / "reference").exists()
    assert bundle.manifest.gate is None
    assert bundle.manifest.members["saf"].reference is None
    assert bundle.manifest.parity["members"]["saf"]["fp32"]["logits"]["value"] > 0
    with refused(BundleError, target, hint="--checkpoint FILE"):
        bundle.reference_path("saf")


def test_two_exports_of_one_checkpoint_are_the_same_bundle(
    checkpoint_files: dict[str, Path], vocabulary_file: Path, tmp_path: Path
) -> None:
    options = ExportOptions(vocabulary=vocabulary_file)
    paths = [checkpoint_files["saf"]]

    one = export_bundle(paths, tmp_path / "one.sgraf", options).bundle
    two = export_bundle(paths, tmp_path / "two.sgraf", options).bundle

    assert one.manifest.files == two.manifest.files
    assert one.sha256 == two.sha256


def test_the_steps_are_told_in_order(checkpoint_files: dict[str, Path], target: Path) -> None:
    told: list[str] = []

    export_bundle([*checkpoint_files.values()], target, FP32, step=told.append)

    created, *published = FRESH_STEPS
    graphs, reference, *last = STEPS
    assert told == [created, graphs, reference, graphs, reference, *last, *published]


def test_members_may_differ_in_what_they_do_not_share(
    checkpoint_files: dict[str, Path], tmp_path: Path, target: Path
) -> None:
    config = replace(SAF, embed=20, sim_dim=9, word_dim=10, bidirectional=False)
    other = write_checkpoint_file(tmp_path / "other.pth.tar", config)

    bundle = export_bundle([checkpoint_files["sgr"], other], target, FP32).bundle

    assert bundle.manifest.members["saf"].config == config


@pytest.mark.parametrize(
    ("splits", "asked", "used"),
    [
        (["train", "dev", "test"], None, "dev"),
        (["train", "test"], None, "test"),
        (["train"], None, "train"),
        (["another", "val"], None, "val"),
        (["mine"], None, "mine"),
        (["train", "dev"], "train", "train"),
    ],
    ids=["dev-first", "then-test", "then-train", "val", "any", "as-asked"],
)
def test_the_gate_runs_on_a_split_of_the_data(
    splits: list[str],
    asked: str | None,
    used: str,
    checkpoint_files: dict[str, Path],
    vocabulary_file: Path,
    tmp_path: Path,
    target: Path,
) -> None:
    for split in splits:
        write_split(tmp_path, split, images=20)
    options = replace(FP32, vocabulary=vocabulary_file, gate_data=tmp_path, gate_split=asked)

    exported = export_bundle([checkpoint_files["saf"]], target, options)

    bundle = exported.bundle
    assert bundle.manifest.parity["source"] == (
        f"data: 12 images × 24 captions of split {used}, and one image of zeros"
    )
    assert bundle.manifest.region_statistics is not None
    with np.load(bundle.gate_path()) as gate:
        assert gate["regions"].shape == (13, SAF.regions, SAF.img_dim)
        assert gate["token_ids"].max() < SAF.vocab_size
        assert gate["real"]
    assert exported.ranks is not None
    assert (exported.ranks.run["split"], exported.ranks.run["images"]) == (used, 20)
    assert exported.ranks.reports.keys() == {"SAF"}


@pytest.mark.parametrize("keep", [True, False], ids=["weights-kept", "weights-left-out"])
def test_recall_in_fp8_is_in_the_parity_report(
    keep: bool,
    checkpoint_files: dict[str, Path],
    vocabulary_file: Path,
    tmp_path: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parity, "SHARES", {"fp8": 10.0})
    monkeypatch.setattr(parity, "RECALL_POINTS", 100.0)
    monkeypatch.setattr(parity, "RSUM_POINTS", 600.0)
    write_split(tmp_path, "dev", images=20)
    options = ExportOptions(
        vocabulary_file, precisions=("fp8",), gate_data=tmp_path, keep_reference=keep
    )
    stages: list[str] = []

    exported = export_bundle([checkpoint_files["saf"]], target, options, stage=stages.append)

    recall = exported.bundle.manifest.parity["recall"]
    assert recall["executed"] == "fp8-rounded"
    assert recall["points"].keys() == {"SAF"}
    assert exported.ranks is not None
    assert exported.ranks.run["engine"] == "torch"
    assert stages[0] == "literal loop"


@pytest.mark.parametrize(
    ("weight", "same"),
    [
        ("image_encoder.projection.bias", False),
        ("image_global.local_norm.running_mean", False),
        ("text_encoder.embedding.weight", True),
        ("similarity.bias", True),
    ],
)
def test_the_fingerprint_is_that_of_the_image_encoder(weight: str, same: bool) -> None:
    weights = random_weights(SAF, 3)
    before = image_encoder_fingerprint(weights)
    assert before == image_encoder_fingerprint(dict(reversed(weights.items())))

    weights[weight] = weights[weight] + np.float32(1)

    assert (image_encoder_fingerprint(weights) == before) == same


def test_a_vocabulary_file_is_rewritten_in_the_authors_format(
    exported: Bundle, tmp_path: Path
) -> None:
    again = write_vocabulary_file(tmp_path / "again.json")

    assert exported.vocabulary_path().read_text() == again.read_text()


def test_a_bundle_with_fp8_has_its_graphs_its_logits_and_its_recall(exported_fp8: Bundle) -> None:
    manifest = exported_fp8.manifest
    _, references = read_gate(exported_fp8.gate_path(), MEMBERS)

    assert manifest.precisions == ("fp32", "fp8")
    assert manifest.parity["recall"] == {"on": "dev", "points": {}}
    for name, member in manifest.members.items():
        assert {file.opset for file in member.graphs["fp8"].values()} == {19}
        report = manifest.parity["members"][name]["fp8"]
        assert report["executor"] == EVALUATOR
        assert 0 < report["logits"]["value"] <= report["logits"]["bound"]
        rounded = references[name].logits_of("fp8")
        gap = np.abs(rounded - references[name].logits).max() / rounded.std()
        assert report["logits"]["value"] / rounded.std() < 0.1 * gap


def test_fp8_has_to_be_asked_for(exported: Bundle) -> None:
    assert exported.manifest.precisions == DEFAULT_PRECISIONS == ("fp32", "fp16")
    assert "recall" not in exported.manifest.parity
