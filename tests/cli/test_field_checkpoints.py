"""Checkpoints and vocabularies as people really have them, through `export`.

Each folder's README says what is expected of it; a folder that has none here fails.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.world import error_line, run, tree

from sgraf_deploy.bundle import Bundle
from sgraf_deploy.demo.assets import PACKAGED

LOADS: dict[str, tuple[str, ...]] = {
    "01-dataparallel/sgr.pth.tar": (),
    "04-opt-with-objects/datetime.pth.tar": ("started (datetime.datetime)",),
    "04-opt-with-objects/device.pth.tar": ("device (device)",),
    "04-opt-with-objects/nparray.pth.tar": ("noise (numpy.ndarray)",),
    "04-opt-with-objects/path.pth.tar": ("output (pathlib.PosixPath)",),
    "05-unpacked/model_best.pth.tar": (),
    "05-unpacked/saf.pth.tar": (),
    "09-bare/list.pth": ("bare list of three state dicts", "the file has no opt"),
    "09-bare/state_dict_key.pth": ("model read from 'state_dict'",),
    "13-no-opt/noopt.pth.tar": (
        "the file has no opt",
        "embed_size 32 from image part: fc.weight",
        "no_imgnorm False assumed",
    ),
    "16-no-bn-counters/nobn.pth.tar": ("num_batches_tracked 0 for 2 BatchNorms without it",),
}
"""What is read, and what is said of it."""

NAMED: dict[str, tuple[str, ...]] = {
    "02-ncr-two-models/sgr.pth.tar": ("epoch", "opt", "model_A", "model_B", "export --key NAME"),
    "05-unpacked/model_best": ("give the file itself, not what is in it", "zip -0 -r"),
    "05-unpacked/model_best/model_best.pth": ("give the file itself, not what is in it",),
    "05-unpacked/model_best/model_best.pth/data.pkl": ("give the file itself", "data.pkl"),
    "05-unpacked/model_best/model_best.pth/version": ("give the file itself",),
    "05-unpacked/model_best/model_best.pth/data/0": ("give the file itself",),
    "06-gdrive-html/model_best.pth.tar": ("an HTML page", "download it again"),
    "07-really-a-tar/model_best.pth.tar": ("a tar archive", "unpack it", "tar -xf"),
    "07-really-a-tar/model_best.tar.gz": ("a tar archive", "gzip", "tar -xzf"),
    "09-bare/flat.pth": ("one state dict", "img_enc., txt_enc., sim_enc.", "torch.save("),
    "09-bare/model_flat.pth": ("one state dict", "img_enc., txt_enc., sim_enc.", "torch.save("),
    "11-nan-weights/nan.pth.tar": ("text part: embed.weight holds NaN",),
    "12-opt-lies/bigru.pth.tar": ("opt.bi_gru", "cap_rnn.weight_ih_l0_reverse", "got False"),
    "12-opt-lies/embed.pth.tar": ("opt.embed_size", "image part: fc.weight", "got 1024"),
    "12-opt-lies/imgdim.pth.tar": ("opt.img_dim", "image part: fc.weight", "got 2048"),
    "12-opt-lies/lower.pth.tar": ("opt.module_name", "SGR_module.0.", "got 'sgr'"),
    "12-opt-lies/module.pth.tar": ("opt.module_name", "SGR_module.0.", "got 'SAF'"),
    "12-opt-lies/steps.pth.tar": ("opt.sgr_step", "SGR_module.2.", "got 2"),
    "12-opt-lies/strnum.pth.tar": ("opt.embed_size", "image part: fc.weight", "got '32'"),
    "12-opt-lies/vocab.pth.tar": ("opt.vocab_size", "text part: embed.weight", "got 8481"),
    "14-extra-tensors/bert.pth.tar": ("'bert.embeddings.word_embeddings.weight'", "BERT"),
    "14-extra-tensors/glove.pth.tar": ("'glove.weight' (3, 3)",),
    "17-whole-module/module.pth": ("__main__.Enc", "c.state_dict()", "torch.save("),
}
"""What is refused, and what the error says."""

VOCABULARIES: dict[str, tuple[str, ...]] = {
    "extra_key.json": ("those and 'freq'",),
    "html.json": ("an HTML page", "download it again"),
    "list.json": ("a list of 67 words", "json.dumps("),
    "long.json": ("expected 67 words", "got 68"),
    "no_idx.json": ("without idx", "json.dumps("),
    "no_unk.json": ("got no <unk>",),
    "one_based.json": ("ids from 1",),
    "short.json": ("expected 67 words", "got 66"),
    "upper.json": ("lower case", "'A'"),
    "vocab.pkl": ("a pickle, of '__main__.Vocabulary'", "pickle.Unpickler", "json.dumps("),
    "word2idx_only.json": ("the ids of 67 words", "json.dumps("),
}
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


@pytest.mark.parametrize(("name", "says"), LOADS.items(), ids=LOADS)
def test_a_checkpoint_that_can_be_read_is(
    shared: Path, tmp_path: Path, name: str, says: tuple[str, ...]
) -> None:
    result = run(*_export(shared / "field" / name, tmp_path))
    assert result.exit_code == 0, result.output
    notes = "\n".join(line for line in result.stdout.splitlines() if line.startswith("note: "))
    for part in says:
        assert part in notes
    assert Bundle.open(tmp_path / "new.sgraf").manifest.members


@pytest.mark.parametrize(("name", "says"), NAMED.items(), ids=NAMED)
def test_a_checkpoint_that_cannot_be_read_is_named(
    shared: Path, tmp_path: Path, name: str, says: tuple[str, ...]
) -> None:
    path = shared / "field" / name
    result = run(*_export(path, tmp_path))
    message = error_line(result)
    assert result.exit_code == 2
    assert message.startswith(f"Error: {path}: ")
    for part in says:
        assert part in message
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("key", ["model_A", "model_B"])
def test_a_key_makes_one_of_two_models_usable(shared: Path, tmp_path: Path, key: str) -> None:
    path = shared / "field/02-ncr-two-models/sgr.pth.tar"
    result = run(*_export(path, tmp_path), "--key", key)
    assert result.exit_code == 0, result.output
    assert f"model read from '{key}'" in result.stdout


def test_a_key_that_is_not_there_lists_those_that_are(shared: Path, tmp_path: Path) -> None:
    path = shared / "field/02-ncr-two-models/sgr.pth.tar"
    message = error_line(run(*_export(path, tmp_path), "--key", "model_C"))
    assert "model_A, model_B" in message


@pytest.mark.parametrize(("name", "says"), VOCABULARIES.items(), ids=VOCABULARIES)
def test_a_vocabulary_that_does_not_fit_is_named(
    shared: Path, tmp_path: Path, name: str, says: tuple[str, ...]
) -> None:
    path = shared / "field/40-vocabs" / name
    result = run(*_export(PACKAGED / "sgr.pth.tar", tmp_path), "--vocab", path)
    message = error_line(result)
    assert result.exit_code == 2
    assert message.startswith(f"Error: vocabulary {path}")
    for part in says:
        assert part in message
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", CANNOT_BE_TOLD)
def test_a_vocabulary_of_other_ids_cannot_be_told(shared: Path, tmp_path: Path, name: str) -> None:
    vocabulary = shared / "field/40-vocabs" / name
    result = run(*_export(PACKAGED / "sgr.pth.tar", tmp_path), "--vocab", vocabulary)
    assert result.exit_code == 0, result.output


def _export(path: Path, folder: Path) -> tuple[object, ...]:
    return ("export", path, "-o", folder / "new.sgraf", "--precision", "fp32")
