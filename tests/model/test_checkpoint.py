"""Reading and writing whole checkpoints and reference weights."""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.authors_checkpoint import SAF, SGR, authors_options, authors_payload
from support.python2_pickle import python2_checkpoint
from support.random_weights import random_weights
from support.refusals import holds, naming, refused
from support.refusing import check_notes

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.checkpoint import (
    Checkpoint,
    read_checkpoint,
    read_reference,
    write_checkpoint,
    write_reference,
)
from sgraf_deploy.model.infer import expected_shapes

CONFIGS = {
    "sgr": SGR,
    "saf": SAF,
    "sgr-unidirectional-2-layers": replace(SGR, bidirectional=False, num_layers=2),
    "saf-unnormalised": replace(SAF, image_norm=False, text_norm=False),
    "sgr-1-step": replace(SGR, sgr_steps=1),
}
GOLDEN = {
    "golden/sgr": "SGR",
    "golden/saf": "SAF",
    "golden/sgr-unidirectional": "SGR",
    "golden/sgr-1-step-2-layers": "SGR",
    "golden/saf-unnormalised": "SAF",
    "golden/saf-legacy-file": "SAF",
    "checkpoints/f8k_SGR.pth.tar": "SGR",
    "checkpoints/f8k_SAF.pth.tar": "SAF",
}
REGIONS = ("regions", 5)


def saved(folder: Path, payload: object, **options: Any) -> Path:
    path = folder / "checkpoint.pth.tar"
    torch.save(payload, path, **options)
    return path


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal names in equal order, types, shapes and bits."""
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


def assert_is_the_authors(checkpoint: Checkpoint, config: ModelConfig) -> None:
    assert checkpoint.config == config
    assert same(checkpoint.weights, random_weights(config, 0))
    assert (checkpoint.epoch, checkpoint.best_rsum, checkpoint.iterations) == (17, 498.25, 12000)
    assert checkpoint.data_name == "f30k_precomp"
    assert checkpoint.options == authors_options(config)
    check_notes(checkpoint.inferred, REGIONS)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_checkpoint_is_read(tmp_path: Path, config: ModelConfig, zipped: bool) -> None:
    path = saved(tmp_path, authors_payload(config), _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    assert_is_the_authors(checkpoint, config)
    assert checkpoint.path == path
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_checkpoint_of_python_2_is_read(tmp_path: Path, config: ModelConfig) -> None:
    path = tmp_path / "python2.pth.tar"
    path.write_bytes(python2_checkpoint(authors_payload(config)))
    assert_is_the_authors(read_checkpoint(path), config)


@pytest.mark.parametrize("rsum", [0.0, 300.7, 498.25, -1.5e300])
def test_numpy_numbers_of_python_2_are_read(tmp_path: Path, rsum: float) -> None:
    path = tmp_path / "python2.pth.tar"
    path.write_bytes(python2_checkpoint(authors_payload(SGR) | {"best_rsum": np.float64(rsum)}))
    assert read_checkpoint(path).best_rsum == rsum


def test_numpy_numbers_of_a_big_endian_machine_are_read(tmp_path: Path) -> None:
    content = python2_checkpoint(authors_payload(SGR) | {"best_rsum": np.float64(300.7)})
    little, big = struct.pack("<d", 300.7), struct.pack(">d", 300.7)
    assert content.count(b"U\x01<") == content.count(little) == 1
    path = tmp_path / "python2.pth.tar"
    path.write_bytes(content.replace(b"U\x01<", b"U\x01>").replace(little, big))
    assert read_checkpoint(path).best_rsum == 300.7


@pytest.mark.parametrize(
    ("zipped", "module"),
    [
        (True, b"numpy._core.multiarray\n"),
        (False, b"numpy._core.multiarray\n"),
        (False, b"numpy.core.multiarray\n"),
    ],
    ids=["zip-numpy-2", "legacy-numpy-2", "legacy-numpy-1"],
)
def test_numpy_numbers_are_read(tmp_path: Path, zipped: bool, module: bytes) -> None:
    payload = authors_payload(SGR) | {"best_rsum": np.float32(311.5), "epoch": np.int64(-3)}
    payload["opt"].img_dim = np.uint16(12)
    payload["opt"].bi_gru = np.bool_(True)
    path = saved(tmp_path, payload, _use_new_zipfile_serialization=zipped)
    written = path.read_bytes()
    assert b"numpy._core.multiarray\n" in written
    path.write_bytes(written.replace(b"numpy._core.multiarray\n", module))
    checkpoint = read_checkpoint(path)
    assert (checkpoint.best_rsum, checkpoint.epoch) == (311.5, -3)
    assert checkpoint.options == authors_options(SGR)
    assert type(checkpoint.options["img_dim"]) is int


@pytest.mark.parametrize("part", [0, 1, 2], ids=["image", "text", "similarity"])
def test_prefixes_of_data_parallel_are_read(tmp_path: Path, part: int) -> None:
    payload = authors_payload(SAF)
    state = payload["model"][part]
    payload["model"][part] = {f"module.{key}": value for key, value in state.items()}
    assert_is_the_authors(read_checkpoint(saved(tmp_path, payload)), SAF)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_of_a_gpu_are_read(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a GPU's tensors add to a file is this tag.
    monkeypatch.setattr("torch.serialization.location_tag", lambda storage: "cuda:3")
    path = saved(tmp_path, authors_payload(SGR), _use_new_zipfile_serialization=zipped)
    assert b"cuda:3" in path.read_bytes()
    assert_is_the_authors(read_checkpoint(path), SGR)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_and_said(tmp_path: Path, dtype: torch.dtype) -> None:
    payload = authors_payload(SAF)
    payload["model"][0] = {key: value.to(dtype) for key, value in payload["model"][0].items()}
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    expected = payload["model"][0]["fc.weight"].to(torch.float32).numpy()
    assert checkpoint.weights["image_encoder.projection.weight"].dtype == np.float32
    np.testing.assert_array_equal(checkpoint.weights["image_encoder.projection.weight"], expected)
    kind = str(dtype).removeprefix("torch.")
    check_notes(checkpoint.inferred, REGIONS, (2, kind))


def test_views_parameters_and_shared_storages_become_arrays_of_their_own(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    part = payload["model"][2]
    part["sim_tranloc_w.weight"] = part["sim_tranloc_w.weight"].T.contiguous().T
    part["sim_tranglo_w.weight"] = torch.nn.Parameter(part["sim_tranglo_w.weight"])
    part["sim_tranloc_w.bias"] = part["sim_tranglo_w.bias"]
    weights = read_checkpoint(saved(tmp_path, payload)).weights
    assert all(weight.flags.owndata and weight.flags.c_contiguous for weight in weights.values())
    expected = random_weights(SGR, 0)
    for name in ("local_alignment.weight", "global_alignment.weight"):
        np.testing.assert_array_equal(weights[name], expected[name])
    np.testing.assert_array_equal(
        weights["local_alignment.bias"], expected["global_alignment.bias"]
    )


def test_counters_that_old_files_lack_are_added_and_said(tmp_path: Path) -> None:
    payload = authors_payload(SAF)
    part = payload["model"][2]
    for key in [key for key in part if key.endswith("num_batches_tracked")]:
        del part[key]
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    assert checkpoint.weights["filtration.norm.num_batches_tracked"] == 0
    check_notes(checkpoint.inferred, ("num_batches_tracked", 0, 3), REGIONS)


@pytest.mark.parametrize("value", [None, "12", float("nan"), True, [1]], ids=repr)
def test_progress_that_is_no_number_is_unknown(tmp_path: Path, value: object) -> None:
    payload = authors_payload(SGR) | {"epoch": value, "best_rsum": value, "Eiters": value}
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    assert (checkpoint.epoch, checkpoint.best_rsum, checkpoint.iterations) == (None, None, None)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_written_is_read_back(tmp_path: Path, config: ModelConfig) -> None:
    first = read_checkpoint(saved(tmp_path, authors_payload(config)))
    write_checkpoint(tmp_path / "copy.pth.tar", first)
    again = read_checkpoint(tmp_path / "copy.pth.tar")
    assert_is_the_authors(again, config)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pth.tar",
        "copy.pth.tar",
    ]


def test_the_same_checkpoint_is_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(tmp_path, authors_payload(SAF)))
    for name in ("one.pth.tar", "other.pth.tar"):
        write_checkpoint(tmp_path / name, checkpoint)
    one, other = (tmp_path / f"{name}.pth.tar" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_written_is_what_the_authors_code_saves(
    tmp_path: Path, config: ModelConfig
) -> None:
    fresh = Checkpoint(config, random_weights(config, 0), 17, 498.25, "f30k_precomp", {})
    write_checkpoint(tmp_path / "fresh.pth.tar", fresh)
    written = torch.load(tmp_path / "fresh.pth.tar", weights_only=False)
    theirs = authors_payload(config)
    assert list(written) == list(theirs)
    for ours, expected in zip(written["model"], theirs["model"], strict=True):
        assert list(ours) == list(expected)
        assert all(torch.equal(ours[key], expected[key]) for key in expected)
        assert all(ours[key].dtype == expected[key].dtype for key in expected)
    read = ["img_dim", "word_dim", "embed_size", "sim_dim", "num_layers", "bi_gru", "no_imgnorm"]
    read += ["no_txtnorm", "module_name", "sgr_step", "vocab_size", "data_name"]
    assert isinstance(written["opt"], argparse.Namespace)
    assert vars(written["opt"]) == {name: authors_options(config)[name] for name in read}


@pytest.mark.parametrize(
    ("change", "key", "got"),
    [
        (
            {"filtration.norm.running_var": np.full(1, -1, np.float32)},
            "SAF_module.bn.running_var",
            "-1.0",
        ),
        ({"similarity.bias": np.full(1, np.nan, np.float32)}, "sim_eval_w.bias", naming(1)),
        ({"similarity.bias": np.zeros(1)}, "sim_eval_w.bias", "float64"),
    ],
    ids=["negative-variance", "nan", "float64"],
)
def test_unusable_weights_are_not_written(
    tmp_path: Path, change: dict[str, Any], key: str, got: object
) -> None:
    checkpoint = Checkpoint(SAF, random_weights(SAF, 0) | change, None, None, None, {})
    with refused(CheckpointError, key, got=got):
        write_checkpoint(tmp_path / "a.pth.tar", checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(payload: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    path = saved(tmp_path, authors_payload(SAF))
    before = path.read_bytes()
    checkpoint = read_checkpoint(path)
    monkeypatch.setattr(torch, "save", fail)
    with refused(CheckpointError, path, got="No space left on device"):
        write_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_whoever_reads_the_old_file_reads_it_to_its_end(tmp_path: Path) -> None:
    path = saved(tmp_path, authors_payload(SAF))
    before = path.read_bytes()
    with path.open("rb") as reader:
        write_checkpoint(path, replace(read_checkpoint(path), epoch=18))
        assert reader.read() == before
    assert read_checkpoint(path).epoch == 18


@pytest.mark.parametrize("kind", ["checkpoint", "reference"])
def test_a_missing_folder_cannot_be_written_to(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "absent" / "file"
    checkpoint = Checkpoint(SAF, random_weights(SAF, 0), None, None, None, {})
    writing = {
        "checkpoint": lambda: write_checkpoint(path, checkpoint),
        "reference": lambda: write_reference(path, checkpoint.weights),
    }
    with refused(CheckpointError, path, got=naming(path.parent)):
        writing[kind]()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_reference_weights_are_read_back(tmp_path: Path, config: ModelConfig) -> None:
    weights = random_weights(config, 1)
    shuffled = {name: np.asarray(weights[name], order="F") for name in sorted(weights)}
    write_reference(tmp_path / "sgr.safetensors", shuffled)
    assert same(read_reference(tmp_path / "sgr.safetensors", config), weights)


def test_new_files_are_as_readable_as_any(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    write_reference(tmp_path / "a.safetensors", random_weights(SAF, 0))
    write_checkpoint(
        tmp_path / "a.pth.tar", Checkpoint(SAF, random_weights(SAF, 0), None, None, None, {})
    )
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {plain.stat().st_mode}


def test_reference_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_reference(path, random_weights(SGR, 0))
    with refused(CheckpointError, "filtration.attention.weight", got=None):
        read_reference(path, SAF)
    expected, got = naming("embed 8", "img_dim 99"), (8, 12)
    with refused(CheckpointError, "image_encoder.projection.weight", expected=expected, got=got):
        read_reference(path, replace(SGR, img_dim=99))


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 64], ids=["empty", "text", "bytes"])
def test_reference_weights_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with refused(CheckpointError, path, got=naming()):
        read_reference(path, SAF)
    with refused(CheckpointError, tmp_path / "absent", got=naming()):
        read_reference(tmp_path / "absent", SAF)


def test_reference_weights_need_no_torch(tmp_path: Path) -> None:
    write_reference(tmp_path / "a.safetensors", random_weights(SAF, 0))
    code = (
        "import json, sys; sys.modules['torch'] = None\n"
        "from sgraf_deploy.config import ModelConfig\n"
        "from sgraf_deploy.model.checkpoint import read_checkpoint, read_reference\n"
        "from sgraf_deploy.errors import UnavailableError\n"
        "config = ModelConfig(**json.loads(sys.argv[2]))\n"
        "print(len(read_reference(sys.argv[1], config)))\n"
        "try: read_checkpoint(sys.argv[3])\n"
        "except UnavailableError as error: print(error.hint)\n"
    )
    path = saved(tmp_path, authors_payload(SAF))
    arguments = [str(tmp_path / "a.safetensors"), json.dumps(vars(SAF)), str(path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, hint = done.stdout.splitlines()
    assert int(count) == len(expected_shapes(SAF))
    assert holds(hint, "sgraf-deploy[torch]")


@pytest.mark.parametrize(("name", "module"), GOLDEN.items(), ids=GOLDEN)
def test_real_checkpoints_are_read_and_written_as_they_are(
    shared: Path, tmp_path: Path, name: str, module: str
) -> None:
    path = shared / name
    path = path / "checkpoint.pth.tar" if path.is_dir() else path
    theirs = torch.load(path, map_location="cpu", weights_only=False)
    checkpoint = read_checkpoint(path)
    options = vars(theirs["opt"])
    assert checkpoint.config.module == module
    assert checkpoint.config.image_norm is not options["no_imgnorm"]
    assert checkpoint.config.text_norm is not options["no_txtnorm"]
    assert checkpoint.config.bidirectional is options["bi_gru"]
    assert checkpoint.config.num_layers == options["num_layers"]
    assert checkpoint.options == options
    check_notes(checkpoint.inferred, ("regions", 36))
    write_checkpoint(tmp_path / "copy.pth.tar", checkpoint)
    ours = torch.load(tmp_path / "copy.pth.tar", weights_only=False)
    assert {key: ours[key] for key in ours if key != "model"} == {
        key: theirs[key] for key in theirs if key != "model"
    }
    for mine, their in zip(ours["model"], theirs["model"], strict=True):
        assert list(mine) == list(their)
        assert all(torch.equal(mine[key], their[key]) for key in their)
