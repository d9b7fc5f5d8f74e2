"""Bad checkpoints given to `sgraf-deploy export`."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from support.authors_checkpoint import authors_payload
from support.bad_input import Arguments, Bad
from support.cli_world import World
from support.refusals import naming
from support.small_models import SAF, SGR, write_checkpoint_file

from sgraf_deploy.errors import CheckpointError, InputError

_MODEL = authors_payload(SGR)["model"]


class Hostile:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("open('hacked', 'w').close()",)


def export_of(*checkpoints: Path) -> Sequence[object]:
    return ("export", *checkpoints, "-o", "new.sgraf")


def _file(content: bytes) -> Arguments:
    return lambda world: export_of(world.write("model.pth.tar", content))


def _saved(payload: object) -> Arguments:
    def arguments(world: World) -> Sequence[object]:
        torch.save(payload, world.folder / "model.pth.tar")
        return export_of(world.folder / "model.pth.tar")

    return arguments


def _truncated(world: World) -> Sequence[object]:
    content = world.sgr.read_bytes()
    return export_of(world.write("model.pth.tar", content[: len(content) // 2]))


def _twice(world: World) -> Sequence[object]:
    shutil.copyfile(world.sgr, world.folder / "other.pth.tar")
    return export_of(world.sgr, world.saf, Path("other.pth.tar"))


def _other_words(world: World) -> Sequence[object]:
    config = replace(SAF, vocab_size=54)
    return export_of(world.sgr, write_checkpoint_file(world.folder / "other.pth.tar", config))


def _contradicting(world: World) -> Sequence[object]:
    payload = authors_payload(SGR)
    payload["opt"].embed_size = 64
    torch.save(payload, world.folder / "model.pth.tar")
    return export_of(world.folder / "model.pth.tar")


MODEL = ("model.pth.tar",)

BAD_CHECKPOINTS = [
    Bad("no-checkpoint", lambda world: export_of(Path("no.pth")), CheckpointError, ("no.pth",)),
    Bad(
        "folder-as-checkpoint",
        lambda world: export_of(world.data),
        CheckpointError,
        ("small_precomp",),
        hint=naming(),
    ),
    Bad("empty-checkpoint", _file(b""), CheckpointError, MODEL, got=naming(0), hint=naming()),
    Bad(
        "text-as-checkpoint", _file(b"weights\n"), CheckpointError, MODEL, got=naming("b'weights'")
    ),
    Bad("truncated-checkpoint", _truncated, CheckpointError, MODEL, got=naming(), hint=naming()),
    Bad(
        "hostile-pickle",
        _saved(Hostile()),
        CheckpointError,
        MODEL,
        got=naming("builtins.exec"),
        hint="argparse.Namespace",
    ),
    Bad(
        "bare-state-dict",
        _saved(authors_payload(SGR)["model"][0]),
        CheckpointError,
        MODEL,
        got=naming("fc.weight"),
        hint="model",
    ),
    Bad(
        "html-as-checkpoint",
        _file(b"<html>quota"),
        CheckpointError,
        MODEL,
        got=naming("HTML"),
        hint=naming(),
    ),
    Bad(
        "lfs-pointer-as-checkpoint",
        _file(b"version https://git-lfs.git"),
        CheckpointError,
        MODEL,
        hint="git lfs pull",
    ),
    Bad(
        "gzip-as-checkpoint",
        _file(gzip.compress(b"1" * 99)),
        CheckpointError,
        MODEL,
        got=naming("gzip"),
        hint="gzip -dc FILE",
    ),
    Bad(
        "two-part-model",
        _saved({"model": authors_payload(SGR)["model"][:2]}),
        CheckpointError,
        MODEL,
        got=naming(2, "fc.weight", "(32, 64)"),
    ),
    Bad(
        "two-models",
        _saved({"model_A": _MODEL, "model_B": _MODEL}),
        CheckpointError,
        MODEL,
        got=naming("model_A", "model_B"),
        hint=["--key", "model_A", "model_B"],
    ),
    Bad(
        "key-that-is-not-there",
        lambda world: (*export_of(world.sgr), "--key", "net"),
        CheckpointError,
        ("--key", "net"),
        expected=naming("model"),
    ),
    Bad(
        "key-without-reference",
        lambda world: (*export_of(world.sgr), "--key", "model", "--no-reference"),
        InputError,
        ("--key",),
        got=naming("--no-reference"),
        hint="--no-reference",
    ),
    Bad(
        "opt-against-tensors",
        _contradicting,
        CheckpointError,
        (*MODEL, "opt.embed_size"),
        expected=naming(32, "fc.weight"),
        got=64,
    ),
    Bad(
        "twice",
        _twice,
        InputError,
        got=naming("small_SGR.pth.tar", "other.pth.tar"),
        hint=naming(),
    ),
    Bad(
        "members-of-other-words",
        _other_words,
        InputError,
        ("vocab_size",),
        got={"sgr": 53, "saf": 54},
    ),
]
