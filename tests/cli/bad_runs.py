"""Bad inputs of the commands that work on a bundle: what is run, and what the error must say."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cli.bad_exports import Arguments, Bad
from cli.world import IMAGES, World, captions_of, edit_manifest, replace_file
from numpy.typing import NDArray
from small_models import SGR, random_regions

EXPORT = "sgraf-deploy export"


def _eval(world: World, *more: object, data: Path | None = None) -> Sequence[object]:
    return ("eval", world.bundle, "--data", data or world.data, "--split", "dev", *more)


def _rerank(*more: object) -> Arguments:
    return lambda world: ("rerank", world.bundle, "--data", world.data, "--split", "dev", *more)


def _options(*more: object) -> Arguments:
    return lambda world: _eval(world, *more)


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


def _regions(make: Callable[[], NDArray[Any]]) -> Arguments:
    return lambda world: _eval(world, data=world.precomp(make()))


def _with_nan() -> NDArray[np.float32]:
    regions = random_regions(SGR, IMAGES)
    regions[4, 2, 1] = np.nan
    return regions


def _nan_image(world: World) -> Sequence[object]:
    data = world.precomp(_with_nan())
    return ("rerank", world.bundle, "--data", data, "--split", "dev", "--image", "4")


def _without_captions(world: World) -> Sequence[object]:
    data = world.precomp()
    (data / "dev_caps.txt").unlink()
    return ("rerank", world.bundle, "--data", data, "--split", "dev", "--image", "4")


def _captions(captions: list[str]) -> Arguments:
    return lambda world: _eval(world, data=world.precomp(captions=captions))


def _not_utf8(world: World) -> Sequence[object]:
    data = world.precomp()
    lines = (data / "dev_caps.txt").read_bytes().split(b"\n")
    lines[7] = b"caf\xe9"
    (data / "dev_caps.txt").write_bytes(b"\n".join(lines))
    return _eval(world, data=data)


def _truncated(world: World) -> Sequence[object]:
    data = world.precomp()
    content = (data / "dev_ims.npy").read_bytes()
    (data / "dev_ims.npy").write_bytes(content[:-100])
    return _eval(world, data=data)


def _pipe(world: World) -> Path:
    os.mkfifo(world.folder / "pipe")
    return Path("pipe")


def _link(world: World) -> Path:
    (world.folder / "link.json").symlink_to("no/r.json")
    return Path("link.json")


def _no_gpu(world: World) -> Sequence[object]:
    world.monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    return _eval(world, "--engine", "torch", "--device", "cuda")


def _without_torch(world: World) -> Sequence[object]:
    world.monkeypatch.setitem(sys.modules, "sgraf_deploy.model.engines", None)
    return _eval(world, "--engine", "torch")


def _data(name: str) -> Arguments:
    return lambda world: ("eval", world.bundle, "--data", world.data, "--split", name)


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


BAD_BUNDLES = [
    Bad("no-bundle", _on(lambda w: "no.sgraf"), ("no bundle", "no.sgraf", EXPORT)),
    Bad("checkpoint-as-bundle", _on(lambda w: w.sgr), ("is a file, not a bundle", EXPORT)),
    Bad("folder-as-bundle", _on(lambda w: w.data), ("is not a bundle", "manifest.json", EXPORT)),
    Bad("inspect-no-bundle", lambda w: ("inspect", "no.sgraf"), ("there is no bundle", EXPORT)),
    Bad("manifest-no-json", _on(_damaged("manifest.json", b"{")), ("manifest.json", "not valid")),
    Bad(
        "manifest-newer",
        _manifest(lambda manifest: manifest.update(schema_version=99)),
        ("newer sgraf-deploy", "expected at most", "got 99", "upgrade sgraf-deploy"),
    ),
    Bad(
        "manifest-without-a-field",
        _manifest(lambda manifest: manifest["members"]["saf"].pop("config")),
        ("members.saf.config: missing field", "export again"),
    ),
    Bad(
        "graph-tampered-with",
        _on(_damaged("sgr/fp32/scorer.onnx", b"graph")),
        ("sgr/fp32/scorer.onnx", "5 bytes", "--force"),
    ),
    Bad("graph-missing", _on(_damaged("saf/fp32/scorer.onnx", None)), ("a file", "got none")),
    Bad(
        "graph-of-noise",
        _on(lambda w: replace_file(w.copy(), "sgr/fp32/scorer.onnx", b"noise")),
        ("sgr/fp32/scorer.onnx", "--force"),
    ),
    Bad("words-missing", _on(_damaged("vocab.json", None)), ("vocab.json of bundle", "got none")),
    Bad(
        "verify-damaged",
        _verify(_damaged("reference/gate.npz", b"")),
        ("reference/gate.npz", "got 0 bytes", EXPORT),
    ),
    Bad(
        "verify-graph-of-noise",
        _verify(lambda w: replace_file(w.copy(), "sgr/fp16/scorer.onnx", b"noise")),
        ("sgr/fp16/scorer.onnx is no ONNX file", "export the bundle again"),
    ),
    Bad(
        "verify-gate-of-noise",
        _verify(lambda w: replace_file(w.copy(), "reference/gate.npz", b"PK\x03\x04noise")),
        ("gate.npz cannot be read", "export the bundle again"),
    ),
    Bad("verify-bare", _verify(lambda w: w.bare), ("exported without", "--checkpoint FILE")),
    Bad("verify-other", _checkpoint(lambda w: w.saf, "verify"), ("expected small_SGR", "got")),
]

BAD_DATA = [
    Bad("no-data", lambda w: _eval(w, data=Path("no")), ("data folder no", "SPLIT_ims.npy")),
    Bad("unknown-split", _data("test"), ("no split 'test'", "test_caps.txt", "the splits dev")),
    Bad("split-with-a-path", _data("../dev"), ("no split '../dev'", "the splits dev")),
    Bad("captions-too-few", _captions(captions_of(IMAGES)[:-1]), ("6 rows and 29 captions",)),
    Bad("caption-blank", _captions(["a", " ", *["b"] * 28]), ("line 2", "a blank line")),
    Bad("captions-not-utf-8", _not_utf8, ("dev_caps.txt, line 8", "0xe9", "convert")),
    Bad("regions-with-nan", _regions(_with_nan), ("image 4 (counted from 0), region 2", "finite")),
    Bad("nan-in-the-query", _nan_image, ("--image 4", "region 2", "finite")),
    Bad(
        "regions-of-another-width",
        _regions(lambda: random_regions(replace(SGR, img_dim=32), IMAGES)),
        ("do not fit the model", "(any, 7, 64)", "got (6, 7, 32)"),
    ),
    Bad(
        "regions-too-few",
        _regions(lambda: random_regions(replace(SGR, regions=5), IMAGES)),
        ("do not fit the model", "(any, 7, 64)", "got (6, 5, 64)"),
    ),
    Bad(
        "regions-of-another-type",
        _regions(lambda: random_regions(SGR, IMAGES).astype(np.int64)),
        ("dev_ims.npy", "expected float32 or float16", "got integers (<i8)", ".astype"),
    ),
    Bad(
        "regions-beyond-float32",
        _regions(lambda: random_regions(SGR, IMAGES).astype(np.float64) * 1e40),
        ("image 0 (counted from 0), region 0", "finite", "more than float32 can hold"),
    ),
    Bad(
        "regions-transposed",
        _regions(lambda: random_regions(SGR, IMAGES).transpose(0, 2, 1)),
        ("dev_ims.npy do not fit the model", "got (6, 64, 7)", "x.transpose(0, 2, 1))"),
    ),
    Bad("fewer-captions-per-image", _options("--captions-per-image", 2), ("6 rows and 30", "5")),
    Bad(
        "one-caption-per-image",
        _captions(captions_of(IMAGES)[:IMAGES]),
        ("6 rows and 6 captions", "--captions-per-image 1"),
    ),
    Bad("image-without-captions", _without_captions, ("expected dev_caps.txt", "no split at all")),
    Bad("regions-truncated", _truncated, ("dev_ims.npy is truncated", "bytes")),
    Bad("no-images", _options("--limit-images", 0), ("expected 1 … 6", "got 0")),
    Bad("too-many-images", _options("--limit-images", 7), ("expected 1 … 6", "got 7")),
    Bad("folds-that-do-not-divide", _options("--folds", 4), ("folds", "divides the 6", "got 4")),
]

BAD_OPTIONS = [
    Bad("authors-dev-of-test", _test_split, ("expected the split dev", "got test")),
    Bad("unknown-engine", _options("--engine", "tensorflow"), ("torch-reference", "tensorflow")),
    Bad("engine-without-package", _without_torch, ("torch is not available", "pip install")),
    Bad(
        "precision-not-there",
        _on(lambda w: w.bare, "--precision", "fp16"),
        ("has no fp16 graphs", "expected precision fp32", "got fp16"),
    ),
    Bad(
        "reference-in-fp16",
        _options("--engine", "torch-reference", "--precision", "fp16"),
        ("expected precision fp32", "got fp16", "use --engine torch"),
    ),
    Bad("no-gpu", _no_gpu, ("engine torch is not available", "no device cuda:0", "--device cpu")),
    Bad("gpu-for-ort", _options("--engine", "ort", "--device", "cuda"), ("expected cpu", "cuda")),
    *(
        Bad(
            f"device-{name}",
            _options("--engine", "torch", "--device", name),
            ("device: expected cpu, cuda or cuda:N", f"got {name}"),
        )
        for name in ("nonsense", "meta")
    ),
    Bad("eval-without-words", _on(lambda w: w.bare), ("without a vocabulary", "--vocab FILE")),
    Bad(
        "torch-without-weights",
        _on(lambda w: w.bare, "--engine", "torch"),
        ("exported without the original weights of sgr", "--checkpoint FILE"),
    ),
    Bad("other-weights", _checkpoint(lambda w: w.saf), ("expected small_SGR", "--checkpoint")),
    Bad("no-weights", _checkpoint(lambda w: Path("no.pth")), ("no.pth: no such file",)),
    Bad("json-without-folder", _options("--json", "no/r.json"), ("--json no/r.json", "create it")),
    Bad("json-onto-a-pipe", lambda w: _eval(w, "--json", _pipe(w)), ("a file", "a named pipe")),
    Bad(
        "json-by-a-link-to-no-folder",
        lambda w: _eval(w, "--json", _link(w)),
        ("no folder", "create it"),
    ),
    Bad("json-onto-a-folder", lambda w: _eval(w, "--json", w.data), ("a file", "got a folder")),
    Bad("no-query", _rerank(), ("--caption TEXT or --image ROW", "got neither")),
    Bad("two-queries", _rerank("--caption", "a", "--image", 1), ("--caption TEXT or", "got both")),
    Bad("image-too-high", _rerank("--image", 6), ("--image: expected a row from 0 to 5", "got 6")),
    Bad("image-below-zero", _rerank("--image", -1), ("expected a row from 0 to 5", "got -1")),
    Bad("empty-caption", _rerank("--caption", ""), ("--caption: expected at least one word",)),
    Bad("blank-caption", _rerank("--caption", " \t"), ("--caption: expected at least one word",)),
    Bad(
        "caption-without-words",
        lambda w: ("rerank", w.bare, *_rerank("--caption", "a")(w)[2:]),
        ("without a vocabulary", "--vocab FILE"),
    ),
]
