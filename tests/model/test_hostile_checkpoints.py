"""Checkpoints whose plain values no training writes: named, and shown no longer than needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from authors_checkpoint import SGR, authors_payload

from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.model.checkpoint import read_checkpoint


def saved(folder: Path, payload: object) -> Path:
    path = folder / "model_best.pth.tar"
    torch.save(payload, path)
    return path


@pytest.mark.parametrize("digits", [20, 400, 600])
@pytest.mark.parametrize("field", ["epoch", "best_rsum", "Eiters"])
def test_progress_beyond_64_bits_is_refused(tmp_path: Path, field: str, digits: int) -> None:
    path = saved(tmp_path, authors_payload(SGR) | {field: 10**digits})
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert caught.value.what == f"{path}: {field}"
    assert caught.value.expected == "an integer of 64 bits"
    assert str(caught.value.got).startswith("an integer of ")


def test_a_data_name_that_no_manifest_can_hold_is_refused(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["opt"].data_name = "f8k\udc80"
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(saved(tmp_path, payload))
    assert "opt.data_name" in caught.value.what
    assert caught.value.got == '"f8k\\udc80"'


@pytest.mark.parametrize("option", ["img_dim", "bi_gru", "no_imgnorm", "module_name"])
@pytest.mark.parametrize("value", [10**600, "x" * 10_000, [10**600]], ids=["int", "str", "list"])
def test_an_option_that_is_too_long_to_print_is_shortened(
    tmp_path: Path, option: str, value: object
) -> None:
    payload = authors_payload(SGR)
    setattr(payload["opt"], option, value)
    path = saved(tmp_path, payload)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert f": opt.{option}" in caught.value.what
    assert len(str(caught.value).removeprefix(str(path))) < 300


def test_a_checkpoint_whose_name_is_no_text_is_exported(
    checkpoint_files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"model_\xff\xfe.pth.tar")
    try:
        path.write_bytes(checkpoint_files["saf"].read_bytes())
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    options = ExportOptions(precisions=("fp32",))
    made = export_bundle([path], tmp_path / "small.sgraf", options).bundle
    assert made.manifest.members["saf"].checkpoint.file == r"model_\xff\xfe.pth.tar"
