"""Bad bundles and options of the commands that work on a bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.bad_input import Arguments, Bad
from support.bad_splits import evaluation, options
from support.cli_world import World, edit_manifest, replace_file
from support.refusals import naming

from sgraf_deploy.bundle.manifest import SCHEMA_VERSION
from sgraf_deploy.errors import (
    BundleError,
    CheckpointError,
    DataError,
    InputError,
    UnavailableError,
)

EXPORT = "sgraf-deploy export"


def _rerank(*more: object) -> Arguments:
    return lambda world: ("rerank", world.bundle, "--data", world.data, "--split", "dev", *more)


def _on(bundle: Callable[[World], object], *more: object) -> Arguments:
    """Evaluate another bundle."""
    return lambda world: ("eval", bundle(world), "--data", world.data, "--split", "dev", *more)


def _manifest(change: Callable[[dict[str, Any]], object]) -> Arguments:
    return _on(lambda world: edit_manifest(world.copy(), change))


def _damaged(file: str, content: bytes | None) -> Callable[[World], Path]:
    """A copy of the bundle with a file changed, or removed."""

    def make(world: World) -> Path:
        bundle = world.copy()
        (bundle / file).unlink()
        if content is not None:
            (bundle / file).write_bytes(content)
        return bundle

    return make


def _verify(bundle: Callable[[World], object], *more: object) -> Arguments:
    return lambda world: ("verify", bundle(world), *more)


def _pipe(world: World) -> Path:
    os.mkfifo(world.folder / "pipe")
    return Path("pipe")


def _link(world: World) -> Path:
    (world.folder / "link.json").symlink_to("nowhere/r.json")
    return Path("link.json")


def _no_gpu(world: World) -> Sequence[object]:
    world.monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    return evaluation(world, "--engine", "torch", "--device", "cuda")


def _without_torch(world: World) -> Sequence[object]:
    world.monkeypatch.setitem(sys.modules, "sgraf_deploy.engines.torch.engine", None)
    return evaluation(world, "--engine", "torch")


def _checkpoint(checkpoint: Callable[[World], Path], *command: str) -> Arguments:
    """Give original weights for the bundle without them."""

    def arguments(world: World) -> Sequence[object]:
        if command == ("verify",):
            return ("verify", world.bare, "--checkpoint", checkpoint(world))
        data = ("--data", world.data, "--split", "dev", "--engine", "torch")
        return ("eval", world.bare, *data, "--checkpoint", checkpoint(world))

    return arguments


def _test_split(world: World) -> Sequence[object]:
    data = world.precomp()
    for name in ("ims.npy", "caps.txt"):
        (data / f"dev_{name}").rename(data / f"test_{name}")
    return ("eval", world.bundle, "--data", data, "--split", "test", "--authors-dev")


MANIFEST = ("copy.sgraf/manifest.json",)

BAD_BUNDLES = [
    Bad("no-bundle", _on(lambda w: "no.sgraf"), BundleError, ("no.sgraf",), hint=EXPORT),
    Bad(
        "checkpoint-as-bundle",
        _on(lambda world: world.sgr),
        BundleError,
        ("small_SGR.pth.tar",),
        hint=[EXPORT, "small_SGR.pth.tar"],
    ),
    Bad(
        "folder-as-bundle",
        _on(lambda world: world.data),
        BundleError,
        ("small_precomp", "manifest.json"),
        hint=EXPORT,
    ),
    Bad(
        "inspect-no-bundle",
        lambda world: ("inspect", "no.sgraf"),
        BundleError,
        ("no.sgraf",),
        hint=EXPORT,
    ),
    Bad(
        "manifest-no-json",
        _on(_damaged("manifest.json", b"{")),
        BundleError,
        MANIFEST,
        got=naming(),
    ),
    Bad(
        "manifest-newer",
        _manifest(lambda manifest: manifest.update(schema_version=99)),
        BundleError,
        (*MANIFEST, "schema_version"),
        expected=naming(SCHEMA_VERSION),
        got=99,
        hint="sgraf-deploy",
    ),
    Bad(
        "manifest-without-a-field",
        _manifest(lambda manifest: manifest["members"]["saf"].pop("config")),
        BundleError,
        (*MANIFEST, "members.saf.config"),
        hint=EXPORT,
    ),
    Bad(
        "graph-tampered-with",
        _on(_damaged("sgr/fp32/scorer.onnx", b"graph")),
        BundleError,
        ("sgr/fp32/scorer.onnx", "copy.sgraf"),
        got=naming(5),
        hint="--force",
    ),
    Bad(
        "graph-missing",
        _on(_damaged("saf/fp32/scorer.onnx", None)),
        BundleError,
        ("saf/fp32/scorer.onnx", "copy.sgraf"),
        got=naming(),
        hint="--force",
    ),
    Bad(
        "graph-of-noise",
        _on(lambda world: replace_file(world.copy(), "sgr/fp32/scorer.onnx", b"noise")),
        BundleError,
        ("sgr/fp32/scorer.onnx", "ONNX"),
        hint="--force",
    ),
    Bad(
        "words-missing",
        _on(_damaged("vocab.json", None)),
        BundleError,
        ("vocab.json", "copy.sgraf"),
        got=naming(),
        hint="--force",
    ),
    Bad(
        "verify-damaged",
        _verify(_damaged("reference/gate.npz", b"")),
        BundleError,
        ("reference/gate.npz", "copy.sgraf"),
        got=naming(0),
        hint=EXPORT,
    ),
    Bad(
        "verify-graph-of-noise",
        _verify(lambda world: replace_file(world.copy(), "sgr/fp16/scorer.onnx", b"noise")),
        BundleError,
        ("sgr/fp16/scorer.onnx", "ONNX"),
        hint=EXPORT,
    ),
    Bad(
        "verify-gate-of-noise",
        _verify(lambda w: replace_file(w.copy(), "reference/gate.npz", b"PK\x03\x04noise")),
        BundleError,
        ("copy.sgraf/reference/gate.npz",),
        got=naming("zip"),
        hint=naming(),
    ),
    Bad(
        "verify-bare", _verify(lambda w: w.bare), BundleError, ("bare.sgraf",), hint="--checkpoint"
    ),
    Bad(
        "verify-other",
        _checkpoint(lambda world: world.saf, "verify"),
        CheckpointError,
        ("sgr",),
        expected=naming("small_SGR.pth.tar"),
        got=naming("small_SAF.pth.tar"),
        hint="--checkpoint",
    ),
]

BAD_ENGINES = [
    Bad(
        "unknown-engine",
        options("--engine", "tensorflow"),
        InputError,
        ("engine",),
        expected=naming("auto", "torch-reference"),
        got="tensorflow",
    ),
    Bad(
        "engine-without-package",
        _without_torch,
        UnavailableError,
        ("torch", "sgraf_deploy.engines.torch.engine"),
        hint="pip install 'sgraf-deploy[torch]'",
    ),
    Bad(
        "precision-not-there",
        _on(lambda world: world.bare, "--precision", "fp16"),
        InputError,
        ("bare.sgraf", "fp16"),
        expected=naming("fp32"),
        got="fp16",
    ),
    Bad(
        "reference-in-fp16",
        options("--engine", "torch-reference", "--precision", "fp16"),
        UnavailableError,
        ("torch-reference",),
        expected=naming("fp32"),
        got="fp16",
        hint="--engine torch",
    ),
    Bad("no-gpu", _no_gpu, UnavailableError, ("torch",), hint="--engine native"),
    Bad(
        "gpu-for-ort",
        options("--engine", "ort", "--device", "cuda"),
        InputError,
        ("ort", "device"),
        expected="cpu",
        got="cuda",
    ),
    *(
        Bad(
            f"device-{name}",
            options("--engine", "torch", "--device", name),
            InputError,
            ("device",),
            expected=naming("cpu", "cuda", "cuda:N"),
            got=name,
        )
        for name in ("nonsense", "meta")
    ),
    Bad(
        "torch-without-weights",
        _on(lambda world: world.bare, "--engine", "torch"),
        BundleError,
        ("bare.sgraf", "sgr"),
        hint="--checkpoint",
    ),
    Bad(
        "other-weights",
        _checkpoint(lambda world: world.saf),
        CheckpointError,
        ("sgr",),
        expected=naming("small_SGR.pth.tar"),
        got=naming("small_SAF.pth.tar"),
        hint="--checkpoint",
    ),
    Bad("no-weights", _checkpoint(lambda world: Path("no.pth")), CheckpointError, ("no.pth",)),
]

BAD_REPORTS = [
    Bad(
        "json-without-folder",
        options("--json", "nowhere/r.json"),
        InputError,
        ("--json", "nowhere/r.json"),
        got=naming("nowhere"),
        hint=naming(),
    ),
    Bad(
        "json-onto-a-pipe",
        lambda w: evaluation(w, "--json", _pipe(w)),
        InputError,
        ("--json", "pipe"),
    ),
    Bad(
        "json-by-a-link-to-no-folder",
        lambda world: evaluation(world, "--json", _link(world)),
        InputError,
        ("--json", "link.json"),
        got=naming("nowhere"),
        hint=naming(),
    ),
    Bad(
        "json-onto-a-folder",
        lambda world: evaluation(world, "--json", world.data),
        InputError,
        ("--json", "small_precomp"),
        hint=naming(),
    ),
]

QUERIES = naming("--caption", "--image")

BAD_QUERIES = [
    Bad("no-query", _rerank(), InputError, expected=QUERIES, got=naming()),
    Bad(
        "two-queries",
        _rerank("--caption", "a", "--image", 1),
        InputError,
        expected=QUERIES,
        got=QUERIES,
    ),
    *(
        Bad(
            name,
            _rerank("--image", row),
            InputError,
            ("--image",),
            expected=naming(0, 5),
            got=row,
        )
        for name, row in (("image-too-high", 6), ("image-below-zero", -1))
    ),
    *(
        Bad(
            name,
            _rerank("--caption", text),
            InputError,
            ("--caption",),
            expected=naming(),
            got=repr(text),
        )
        for name, text in (("empty-caption", ""), ("blank-caption", " \t"))
    ),
    Bad(
        "caption-without-words",
        lambda world: ("rerank", world.bare, *_rerank("--caption", "a")(world)[2:]),
        BundleError,
        ("bare.sgraf",),
        hint="--vocab",
    ),
]

BAD_OPTIONS = [
    Bad("authors-dev-of-test", _test_split, DataError, expected=naming("dev"), got="test"),
    Bad("eval-without-words", _on(lambda w: w.bare), BundleError, ("bare.sgraf",), hint="--vocab"),
    *BAD_ENGINES,
    *BAD_REPORTS,
    *BAD_QUERIES,
]
