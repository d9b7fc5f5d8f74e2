"""What an export refuses, and that one which fails publishes nothing and changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.export_splits import write_split
from support.refusals import is_number, naming, refused
from support.small_models import SAF, WORDS, write_checkpoint_file

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import DEFAULT_PRECISIONS, GraphName, Precision
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import BundleError, CheckpointError, DataError, GateError, InputError
from sgraf_deploy.evaluation import parity
from sgraf_deploy.export import writing
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.export.reading import RANKED_IMAGES
from sgraf_deploy.model.folding import FoldedWeights

FP32 = ExportOptions(precisions=("fp32",))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "made.sgraf"


def test_a_checkpoint_that_is_given_twice_is_refused(
    checkpoint_files: dict[str, Path], tmp_path: Path, target: Path
) -> None:
    """By another name, too."""
    sgr, saf = checkpoint_files["sgr"], checkpoint_files["saf"]
    copied = tmp_path / "copied.pth.tar"
    shutil.copyfile(sgr, copied)

    for paths in ([sgr, sgr], [sgr, saf, copied]):
        with refused(InputError, got=naming(sgr, paths[-1]), hint=naming()):
            export_bundle(paths, target)

    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [("vocab_size", 54), ("regions", 6), ("img_dim", 63)])
def test_members_that_read_other_images_or_words_are_refused(
    name: str, value: int, checkpoint_files: dict[str, Path], tmp_path: Path, target: Path
) -> None:
    changes: dict[str, Any] = {name: value}
    config = replace(SAF, **changes)
    other = write_checkpoint_file(tmp_path / "other.pth.tar", config)

    with refused(InputError, name, got=naming("saf", value)):
        export_bundle([checkpoint_files["sgr"], other], target)

    assert list(target.parent.iterdir()) == []


def test_a_vocabulary_of_another_size_is_refused(
    checkpoint_files: dict[str, Path], tmp_path: Path, target: Path
) -> None:
    Vocabulary([*WORDS, "more"]).save(tmp_path / "larger.json")
    options = ExportOptions(vocabulary=tmp_path / "larger.json")

    with refused(InputError, tmp_path / "larger.json", expected=naming(53), got=54):
        export_bundle([checkpoint_files["saf"]], target, options)

    assert list(target.parent.iterdir()) == []


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path, target: Path) -> None:
    (tmp_path / "notes.pth").write_text("no checkpoint")

    with refused(CheckpointError, tmp_path / "notes.pth"):
        export_bundle([tmp_path / "notes.pth"], target)

    assert list(target.parent.iterdir()) == []


def test_gate_data_needs_words(checkpoint_files: dict[str, Path], target: Path) -> None:
    options = ExportOptions(gate_data=target.parent)
    write_split(target.parent, "dev", images=3)

    with refused(InputError, "--gate-data", expected="--vocab FILE"):
        export_bundle([checkpoint_files["saf"]], target, options)


@pytest.mark.parametrize("asked", ["absent", None])
def test_gate_data_without_a_split_is_refused(
    asked: str | None,
    checkpoint_files: dict[str, Path],
    vocabulary_file: Path,
    tmp_path: Path,
    target: Path,
) -> None:
    options = ExportOptions(vocabulary=vocabulary_file, gate_data=tmp_path, gate_split=asked)

    with refused(DataError, tmp_path, asked or "dev"):
        export_bundle([checkpoint_files["saf"]], target, options)


def test_gate_data_that_does_not_fit_the_model_is_refused(
    checkpoint_files: dict[str, Path], vocabulary_file: Path, tmp_path: Path, target: Path
) -> None:
    write_split(tmp_path, "dev", images=3, regions=SAF.regions + 1)
    options = ExportOptions(vocabulary=vocabulary_file, gate_data=tmp_path)

    with refused(
        DataError, expected=naming(f"{SAF.regions}, {SAF.img_dim}"), got=naming("(3, 8, 64)")
    ):
        export_bundle([checkpoint_files["saf"]], target, options)

    assert list(target.parent.iterdir()) == []


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Precision], None]:
    """Make the exporter write a wrong scorer in one precision."""

    def break_it(where: Precision) -> None:
        def wrong(
            weights: FoldedWeights, graph: GraphName, precision: Precision, opset: None
        ) -> onnx.ModelProto:
            if (graph, precision) == ("scorer", where):
                bias = replace(weights.similarity, bias=weights.similarity.bias + 0.5)
                weights = replace(weights, similarity=bias)
            return build_graph(weights, graph, precision)

        monkeypatch.setattr(writing, "build_graph", wrong)

    return break_it


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
def test_a_failed_gate_publishes_nothing(
    precision: Precision,
    broken: Callable[[Precision], None],
    checkpoint_files: dict[str, Path],
    target: Path,
) -> None:
    broken(precision)

    hint = "--precision fp32" if precision == "fp16" else None
    with refused(GateError, "saf", precision, hint=hint) as caught:
        export_bundle([checkpoint_files["saf"]], target)

    assert caught.error.exit_code == 1
    assert list(target.parent.iterdir()) == []


def test_a_failed_fp16_gate_is_passed_by_leaving_fp16_out(
    broken: Callable[[Precision], None], checkpoint_files: dict[str, Path], target: Path
) -> None:
    broken("fp16")

    export_bundle([checkpoint_files["saf"]], target, FP32)

    assert Bundle.open(target).manifest.precisions == ("fp32",)


def test_a_failed_gate_leaves_the_bundle_that_was_there(
    broken: Callable[[Precision], None], checkpoint_files: dict[str, Path], target: Path
) -> None:
    before = export_bundle([checkpoint_files["saf"]], target, FP32).bundle
    broken("fp32")

    with pytest.raises(GateError):
        export_bundle([checkpoint_files["sgr"]], target, replace(FP32, force=True))

    assert Bundle.open(target).sha256 == before.sha256
    assert Bundle.open(target).verify_files() == ()
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_an_existing_bundle_is_replaced_only_by_force(
    checkpoint_files: dict[str, Path], target: Path
) -> None:
    old = export_bundle([checkpoint_files["saf"]], target, FP32).bundle

    with refused(BundleError, target, hint="--force"):
        export_bundle([checkpoint_files["sgr"]], target, FP32)
    assert Bundle.open(target).sha256 == old.sha256

    new = export_bundle([checkpoint_files["sgr"]], target, replace(FP32, force=True)).bundle
    assert new.manifest.module == "SGR"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.fixture
def fp8(vocabulary_file: Path, tmp_path: Path) -> ExportOptions:
    write_split(tmp_path, "dev", images=12)
    return ExportOptions(vocabulary=vocabulary_file, precisions=("fp8",), gate_data=tmp_path)


def test_fp8_without_real_data_to_judge_it_on_is_refused(fp8: ExportOptions) -> None:
    with refused(InputError, "fp8", expected=naming("--gate-data DIR")):
        replace(fp8, gate_data=None)


def test_fp8_that_does_not_keep_recall_publishes_nothing(
    fp8: ExportOptions,
    checkpoint_files: dict[str, Path],
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parity, "SHARES", {"fp8": 1e-9})

    with refused(GateError, "fp8-rounded", "split dev", "12 images", hint="--precision fp16"):
        export_bundle([checkpoint_files["saf"]], target, fp8)

    assert list(target.parent.iterdir()) == []


def test_fp8_graphs_that_are_not_what_pytorch_rounds_are_refused(
    fp8: ExportOptions,
    checkpoint_files: dict[str, Path],
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here: FP16's graphs in their place, which no bound on R@K would notice."""
    monkeypatch.setattr(
        writing,
        "build_graph",
        lambda folded, graph, precision, opset: build_graph(folded, graph, "fp16"),
    )

    with refused(GateError, "saf", "fp8", hint="--precision fp16") as caught:
        export_bundle([checkpoint_files["saf"]], target, fp8)
    assert is_number(caught.error.got)

    assert list(target.parent.iterdir()) == []


def test_what_is_not_finite_anywhere_in_the_gate_data_is_refused_at_once(
    checkpoint_files: dict[str, Path], vocabulary_file: Path, tmp_path: Path, target: Path
) -> None:
    write_split(tmp_path, "dev", images=RANKED_IMAGES + 5)
    regions = np.load(tmp_path / "dev_ims.npy")
    regions[RANKED_IMAGES + 2, 1, 0] = np.nan
    np.save(tmp_path / "dev_ims.npy", regions)
    options = ExportOptions(vocabulary=vocabulary_file, gate_data=tmp_path)
    steps: list[str] = []

    with refused(DataError, f"image {RANKED_IMAGES + 2}", "region 1", got="nan"):
        export_bundle([checkpoint_files["saf"]], target, options, step=steps.append)

    assert steps == []
    assert not target.exists()
