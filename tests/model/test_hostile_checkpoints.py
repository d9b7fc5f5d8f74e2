"""Checkpoints whose plain values no training writes: named, and shown no longer than needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from support.authors_checkpoint import SGR, authors_payload
from support.refusals import check_error, naming
from support.refusing import refusal

from sgraf_deploy.export.exporter import ExportOptions, export_bundle


def saved(folder: Path, payload: object) -> Path:
    path = folder / "model_best.pth.tar"
    torch.save(payload, path)
    return path


@pytest.mark.parametrize("digits", [20, 400, 600])
@pytest.mark.parametrize("field", ["epoch", "best_rsum", "Eiters"])
def test_progress_beyond_64_bits_is_refused(tmp_path: Path, field: str, digits: int) -> None:
    path = saved(tmp_path, authors_payload(SGR) | {field: 10**digits})
    check_error(refusal(path), path, field, expected=naming(64), got=naming())


def test_a_data_name_that_no_manifest_can_hold_is_refused(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["opt"].data_name = "f8k\udc80"
    check_error(refusal(saved(tmp_path, payload)), "opt.data_name", got='"f8k\\udc80"')


@pytest.mark.parametrize("option", ["img_dim", "bi_gru", "no_imgnorm", "module_name"])
@pytest.mark.parametrize("value", [10**600, "x" * 10_000, [10**600]], ids=["int", "str", "list"])
def test_an_option_that_is_too_long_to_print_is_shortened(
    tmp_path: Path, option: str, value: object
) -> None:
    payload = authors_payload(SGR)
    setattr(payload["opt"], option, value)
    path = saved(tmp_path, payload)
    error = refusal(path)
    check_error(error, f"opt.{option}")
    assert len(str(error).removeprefix(str(path))) < 300


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
