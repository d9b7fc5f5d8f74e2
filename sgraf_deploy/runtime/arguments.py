"""What `load` is given, checked before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgraf_deploy.bundle import Bundle
from sgraf_deploy.data.bound import CaptionBound
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.engine import EngineOptions
from sgraf_deploy.runtime.tiles import TileShape


def check_load(
    bundle: object,
    *,
    engine: object,
    precision: object,
    options: object,
    memory_budget: object,
    tile: object,
    max_words: Any,
) -> None:
    """Raise InputError, which names it, for an argument of `load` of another type or range."""
    if not isinstance(bundle, Bundle) and not _is_path(bundle):
        raise _wrong("bundle", "a Bundle, or the path of one", bundle)
    for name, text in (("engine", engine), ("precision", precision)):
        if not isinstance(text, str):
            raise _wrong(name, "a string", text)
    if options is not None:
        _check_options(options)
    if memory_budget is not None and not _is_count(memory_budget):
        raise _wrong("memory_budget", "a number of bytes, at least 1, or None", memory_budget)
    if tile is not None and not isinstance(tile, TileShape):
        raise _wrong("tile", "a TileShape, or None", tile)
    CaptionBound(max_words)  # raises


def check_count(name: str, value: object) -> None:
    """InputError for what is no integer of at least 1."""
    if not _is_count(value):
        raise _wrong(name, "an integer, at least 1", value)


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path of a file; InputError for what is no path."""
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
    if not isinstance(options.allow_unverified, bool):
        raise _wrong("options.allow_unverified", "True or False", options.allow_unverified)


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
