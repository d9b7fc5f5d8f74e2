"""Fixtures shared by every test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sgraf_deploy.bundle import Bundle

SHARED = Path(__file__).resolve().parents[2] / "shared"

# The tests' models are so small that torch's threads wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Engine fused needs a GPU or this, which counts only if it is set before anything imports triton.
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real checkpoints and data beside the repository; skips where it is absent."""
    if not (SHARED / "DESIGN.md").is_file():
        pytest.skip(f"needs the real data in {SHARED.name}/ beside the repository, which is absent")
    return SHARED


@pytest.fixture(scope="session")
def checkpoint_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints `sgr` and `saf` of random weights, of `small_models.SGR` and `SAF`."""
    from small_models import SAF, SGR, write_checkpoint_file

    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "sgr": write_checkpoint_file(folder / "small_SGR.pth.tar", SGR, seed=1),
        "saf": write_checkpoint_file(folder / "small_SAF.pth.tar", SAF, seed=2),
    }


@pytest.fixture(scope="session")
def vocabulary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of the small models' size: `small_models.WORDS`."""
    from small_models import write_vocabulary_file

    return write_vocabulary_file(tmp_path_factory.mktemp("vocabulary") / "small_vocab.json")


@pytest.fixture(scope="session")
def exported(
    checkpoint_files: dict[str, Path],
    vocabulary_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """An SGRAF bundle of both checkpoints, in both precisions; nobody changes it."""
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    target = tmp_path_factory.mktemp("exported") / "small.sgraf"
    options = ExportOptions(vocabulary=vocabulary_file)
    return export_bundle([*checkpoint_files.values()], target, options).bundle


@pytest.fixture(scope="session")
def second_sgr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SGR of another seed, and of other dimensions where members need not agree."""
    from dataclasses import replace

    from small_models import SGR, write_checkpoint_file

    config = replace(SGR, embed=24, sim_dim=12, sgr_steps=2)
    path = tmp_path_factory.mktemp("second") / "small_SGR.pth.tar"
    return write_checkpoint_file(path, config, seed=3)


@pytest.fixture(scope="session")
def three(
    checkpoint_files: dict[str, Path],
    second_sgr: Path,
    vocabulary_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """An ensemble of two SGR of different seeds and a SAF in fp32; nobody changes it."""
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    paths = [checkpoint_files["sgr"], second_sgr, checkpoint_files["saf"]]
    options = ExportOptions(vocabulary=vocabulary_file, precisions=("fp32",))
    return export_bundle(paths, tmp_path_factory.mktemp("three") / "three.sgraf", options).bundle


@pytest.fixture(scope="session")
def trained(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shared trained checkpoints, SGR and SAF, verified on their data; nobody changes it."""
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    paths = [shared / "checkpoints" / f"f8k_{module}.pth.tar" for module in ("SGR", "SAF")]
    options = ExportOptions(
        vocabulary=shared / "data" / "f8k_precomp_vocab.json",
        gate_data=shared / "data" / "f8k_precomp",
    )
    return export_bundle(paths, tmp_path_factory.mktemp("trained") / "f8k.sgraf", options).bundle


@pytest.fixture(scope="session")
def exported_fp8(
    checkpoint_files: dict[str, Path],
    vocabulary_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """An SGRAF bundle in fp32 and fp8, whose R@K nobody compared; nobody changes it."""
    from export.splits import write_split

    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    folder = tmp_path_factory.mktemp("exported_fp8")
    write_split(folder, "dev", images=12)
    options = ExportOptions(
        vocabulary=vocabulary_file, precisions=("fp32", "fp8"), gate_data=folder
    )
    paths = [*checkpoint_files.values()]
    unchecked = lambda bundle, split: {"on": split.name, "points": {}}  # noqa: E731
    return export_bundle(paths, folder / "small.sgraf", options, check=unchecked).bundle
