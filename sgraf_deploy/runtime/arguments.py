"""Checks the arguments of `load` before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import Precision
from sgraf_deploy.data.bound import CaptionBound
from sgraf_deploy.engines.base import EngineOptions, Specialisation
from sgraf_deploy.engines.policy import Request, parse_request
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.tiles import TileShape


def check_load(  # noqa: PLR0913, PLR0917  # what `load` takes
    bundle: object,
    engine: object,
    precision: object,
    device: object,
    threads: object,
    options: object,
    memory_budget: object,
    tile: object,
    max_words: Any,
) -> None:
    """Raise InputError, which names the argument, for one of another type or range."""
    if not isinstance(bundle, Bundle) and not _is_path(bundle):
        raise _wrong("bundle", "a Bundle, or the path of one", bundle)
    if not isinstance(engine, str):
        raise _wrong("engine", "a string", engine)
    for name, text in (("precision", precision), ("device", device)):
        if not (text is None or isinstance(text, str)):
            raise _wrong(name, "a string, or None", text)
    if threads is not None and not _is_count(threads):
        raise _wrong("threads", "at least 1, or None", threads)
    if options is not None:
        _check_options(options)
    if memory_budget is not None and not _is_count(memory_budget):
        raise _wrong("memory_budget", "a number of bytes, at least 1, or None", memory_budget)
    if tile is not None and not isinstance(tile, TileShape):
        raise _wrong("tile", "a TileShape, or None", tile)
    CaptionBound(max_words)  # raises


def request_of(engine: str, precision: Precision | None, device: str | None) -> Request:
    """What is asked of the policy; InputError where `NAME:PRECISION` contradicts `precision`."""
    request = parse_request(engine, precision, device)
    if precision not in (None, request.precision):
        raise InputError("precision", expected=f"that of engine {engine}, or none", got=precision)
    return request


def merge_options(
    options: EngineOptions | None, *, device: str | None, threads: int | None
) -> EngineOptions:
    """Put device and threads into the options; InputError where they contradict each other."""
    given = options or EngineOptions()
    for name, beside, inside in (
        ("device", device, given.device),
        ("threads", threads, given.threads),
    ):
        if beside is not None and inside is not None and beside != inside:
            raise InputError(
                f"{name} and options.{name}",
                expected="only one of them, or the same value in both",
                got=f"{beside} and {inside}",
            )
    return replace(
        given,
        device=given.device if device is None else device,
        threads=given.threads if threads is None else threads,
    )


def check_count(name: str, value: object) -> None:
    """Raise InputError unless a value is an integer, at least 1."""
    if not _is_count(value):
        raise _wrong(name, "an integer, at least 1", value)


def check_kind(name: str, value: object, kind: type[object]) -> None:
    """Raise InputError unless a value is of a class."""
    if not isinstance(value, kind):
        raise _wrong(name, kind.__name__, value)


def check_kept(caption_cache: object, prune: object) -> None:
    """Raise InputError unless they are a number of bytes, or 0, and True or False."""
    if not (_is_count(caption_cache) or (type(caption_cache) is int and caption_cache == 0)):
        raise _wrong("caption_cache", "a number of bytes, or 0 for none", caption_cache)
    if not isinstance(prune, bool):
        raise _wrong("prune", "True or False", prune)


def check_process(process: int, what: str, hint: str) -> None:
    """Raise InputError in another process than `process`: a fork shares no threads and no maps."""
    if process != os.getpid():
        raise InputError(
            what, expected=f"process {process}", got=f"process {os.getpid()}", hint=hint
        )


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file; InputError for anything else."""
    if not _is_path(path):
        raise _wrong("path", "the path of a file", path)
    return Path(path)


def _check_options(options: object) -> None:
    if not isinstance(options, EngineOptions):
        raise _wrong("options", "EngineOptions, or None", options)
    if options.threads is not None and not _is_count(options.threads):
        raise _wrong("options.threads", "at least 1, or None", options.threads)
    if options.device is not None and not isinstance(options.device, str):
        raise _wrong("options.device", "a name, or None", options.device)
    paths: object = options.checkpoints
    if isinstance(paths, str) or not isinstance(paths, Sequence) or not all(map(_is_path, paths)):
        raise _wrong("options.checkpoints", "a tuple of paths", paths)
    if options.engine_dir is not None and not _is_path(options.engine_dir):
        raise _wrong("options.engine_dir", "a path, or None", options.engine_dir)
    for name in ("allow_unverified", "cuda_graphs"):
        value = getattr(options, name)
        if not isinstance(value, bool):
            raise _wrong(f"options.{name}", "True or False", value)
    if options.specialisation not in get_args(Specialisation):
        expected = " or ".join(get_args(Specialisation))
        raise _wrong("options.specialisation", expected, options.specialisation)


def _is_path(value: object) -> bool:
    if not isinstance(value, str | os.PathLike):
        return False
    text = os.fspath(value)
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _is_count(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return int(value) >= 1


def _wrong(name: str, expected: str, value: object) -> InputError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return InputError(name, expected=expected, got=f"{shown}, {type(value).__name__}")
