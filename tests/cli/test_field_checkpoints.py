"""Checkpoints and vocabularies as people really have them, through `export`.

Each folder's README says what is expected of it; a folder that has none here fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.cli_world import done, line_naming, lines_with, refused_line, run, tree
from support.refusals import naming

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.demo.assets import PACKAGED
from sgraf_deploy.errors import CheckpointError, DataError, InputError

LOADS: dict[str, tuple[tuple[object, ...], ...]] = {
    "01-dataparallel/sgr.pth.tar": (),
    "04-opt-with-objects/datetime.pth.tar": (("started", "datetime.datetime"),),
    "04-opt-with-objects/device.pth.tar": (("opt", "device"),),
    "04-opt-with-objects/nparray.pth.tar": (("noise", "numpy.ndarray"),),
    "04-opt-with-objects/path.pth.tar": (("output", "pathlib.PosixPath"),),
    "05-unpacked/model_best.pth.tar": (),
    "05-unpacked/saf.pth.tar": (),
    "09-bare/list.pth": (("state dicts",), ("opt",)),
    "09-bare/state_dict_key.pth": (("'state_dict'",),),
    "13-no-opt/noopt.pth.tar": (
        ("opt",),
        ("embed_size", 32, "fc.weight"),
        ("no_imgnorm", "False"),
    ),
    "16-no-bn-counters/nobn.pth.tar": (("num_batches_tracked", 0, 2),),
}
"""What is read, and the names that are in notes of it, by note."""

THREE = naming("img_enc.", "txt_enc.", "sim_enc.")
PACK = "zip -0 -r"


def _lies(option: str, tensor: str, got: object) -> dict[str, Any]:
    return {"names": [f"opt.{option}"], "expected": naming(tensor), "got": got}


NAMED: dict[str, dict[str, Any]] = {
    "02-ncr-two-models/sgr.pth.tar": {
        "got": naming("epoch", "opt", "model_A", "model_B"),
        "hint": ["export --key", "model_A", "model_B"],
    },
    "05-unpacked/model_best": {"hint": [PACK, "model_best.pth"]},
    "05-unpacked/model_best/model_best.pth": {"hint": PACK},
    "05-unpacked/model_best/model_best.pth/data.pkl": {"got": naming("data.pkl"), "hint": PACK},
    "05-unpacked/model_best/model_best.pth/version": {"hint": PACK},
    "05-unpacked/model_best/model_best.pth/data/0": {"hint": PACK},
    "06-gdrive-html/model_best.pth.tar": {"got": naming("HTML"), "hint": naming()},
    "07-really-a-tar/model_best.pth.tar": {"got": naming("tar"), "hint": "tar -xf"},
    "07-really-a-tar/model_best.tar.gz": {"got": naming("tar", "gzip"), "hint": "tar -xzf"},
    "09-bare/flat.pth": {"got": THREE, "hint": "torch.save("},
    "09-bare/model_flat.pth": {"names": ["model"], "got": THREE, "hint": "torch.save("},
    "11-nan-weights/nan.pth.tar": {"names": ["embed.weight"], "got": naming(1, 1272)},
    "12-opt-lies/bigru.pth.tar": _lies("bi_gru", "cap_rnn.weight_ih_l0_reverse", False),
    "12-opt-lies/embed.pth.tar": _lies("embed_size", "fc.weight", 1024),
    "12-opt-lies/imgdim.pth.tar": _lies("img_dim", "fc.weight", 2048),
    "12-opt-lies/lower.pth.tar": _lies("module_name", "SGR_module.0.", "'sgr'"),
    "12-opt-lies/module.pth.tar": _lies("module_name", "SGR_module.0.", "'SAF'"),
    "12-opt-lies/steps.pth.tar": _lies("sgr_step", "SGR_module.2.", 2),
    "12-opt-lies/strnum.pth.tar": _lies("embed_size", "fc.weight", "'32'"),
    "12-opt-lies/vocab.pth.tar": _lies("vocab_size", "embed.weight", 8481),
    "14-extra-tensors/bert.pth.tar": {
        "names": ["'bert.embeddings.word_embeddings.weight'"],
        "hint": "BERT",
    },
    "14-extra-tensors/glove.pth.tar": {"names": ["'glove.weight'", "(3, 3)"]},
    "17-whole-module/module.pth": {
        "got": naming("__main__.Enc"),
        "hint": ["c.state_dict()", "torch.save("],
    },
}
"""What is refused, and what the error holds beside the file's path."""

KEYS = naming("word2idx", "idx2word", "idx")

VOCABULARIES: dict[str, dict[str, Any]] = {
    "extra_key.json": {"expected": KEYS, "got": naming("'freq'")},
    "html.json": {"got": naming("HTML"), "hint": naming()},
    "list.json": {"expected": KEYS, "got": naming("list", 67), "hint": "json.dumps("},
    "long.json": {"expected": naming(67), "got": 68},
    "no_idx.json": {"expected": KEYS, "got": naming("idx"), "hint": "json.dumps("},
    "no_unk.json": {"names": ["word2idx"], "got": naming("<unk>")},
    "one_based.json": {"names": ["word2idx"], "expected": naming(0), "got": naming(1)},
    "short.json": {"expected": naming(67), "got": 66},
    "upper.json": {"got": naming(62, 67, "'A'")},
    "vocab.pkl": {
        "expected": naming("JSON"),
        "got": naming("'__main__.Vocabulary'"),
        "hint": ["pickle.Unpickler", "json.dumps("],
    },
    "word2idx_only.json": {"expected": KEYS, "got": naming(67), "hint": "json.dumps("},
}
"""What is refused, and what the error holds beside the file's path."""

OF_OTHER_SIZE = {"long.json", "short.json"}
"""Good files, but not the checkpoint's."""

CANNOT_BE_TOLD = ("sorted.json", "swapped.json")


def field_files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "README.md"
    }


def test_every_file_of_every_folder_has_its_expectation(shared: Path) -> None:
    folders = [path for path in (shared / "field").iterdir() if path.name[:2] <= "17"]
    files = set().union(*map(field_files, folders))
    pieces = {name for name in files if name.startswith("05-unpacked/model_best/")}
    assert (
        files - pieces
        == {name for name in {*LOADS, *NAMED} if (shared / "field" / name).is_file()} - pieces
    )
    words = {path.name for path in (shared / "field/40-vocabs").iterdir()} - {"README.md"}
    assert words == {*VOCABULARIES, *CANNOT_BE_TOLD}


@pytest.mark.parametrize("name", LOADS)
def test_a_checkpoint_that_can_be_read_is(shared: Path, tmp_path: Path, name: str) -> None:
    path = shared / "field" / name
    result = done(*_export(path, tmp_path))
    notes = "\n".join(lines_with(f"note: {path}: ", result.stdout))
    for names in LOADS[name]:
        line_naming(notes, *names)
    assert Bundle.open(tmp_path / "new.sgraf").manifest.members


@pytest.mark.parametrize("name", NAMED)
def test_a_checkpoint_that_cannot_be_read_is_named(shared: Path, tmp_path: Path, name: str) -> None:
    path, wrong = shared / "field" / name, dict(NAMED[name])
    result = run(*_export(path, tmp_path))
    line = refused_line(result, CheckpointError, *wrong.pop("names", ()), **wrong)
    assert line.startswith(f"Error: {path}: ")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("key", ["model_A", "model_B"])
def test_a_key_makes_one_of_two_models_usable(shared: Path, tmp_path: Path, key: str) -> None:
    path = shared / "field/02-ncr-two-models/sgr.pth.tar"
    result = done(*_export(path, tmp_path), "--key", key)
    line_naming(result.stdout, "note:", f"'{key}'")


def test_a_key_that_is_not_there_lists_those_that_are(shared: Path, tmp_path: Path) -> None:
    path = shared / "field/02-ncr-two-models/sgr.pth.tar"
    result = run(*_export(path, tmp_path), "--key", "model_C")
    keys = naming("model_A", "model_B")
    refused_line(result, CheckpointError, path, "--key", "model_C", expected=keys)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_vocabulary_that_does_not_fit_is_named(shared: Path, tmp_path: Path, name: str) -> None:
    path, wrong = shared / "field/40-vocabs" / name, dict(VOCABULARIES[name])
    result = run(*_export(PACKAGED / "sgr.pth.tar", tmp_path), "--vocab", path)
    kind = InputError if name in OF_OTHER_SIZE else DataError
    refused_line(result, kind, path, *wrong.pop("names", ()), **wrong)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", CANNOT_BE_TOLD)
def test_a_vocabulary_of_other_ids_cannot_be_told(shared: Path, tmp_path: Path, name: str) -> None:
    vocabulary = shared / "field/40-vocabs" / name
    done(*_export(PACKAGED / "sgr.pth.tar", tmp_path), "--vocab", vocabulary)


def _export(path: Path, folder: Path) -> tuple[object, ...]:
    return ("export", path, "-o", folder / "new.sgraf", "--precision", "fp32")
