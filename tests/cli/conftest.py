"""Inputs of the command line: good ones once a session, and a working folder for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.cli_world import World, done, write_precomp

from sgraf_deploy.bundle.bundle import Bundle


@pytest.fixture(scope="session")
def precomp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the split `dev` of random features that fit the small models."""
    return write_precomp(tmp_path_factory.mktemp("data") / "small_precomp")


@pytest.fixture(scope="session")
def bare(checkpoint_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SGR bundle in fp32, without vocabulary and reference."""
    target = tmp_path_factory.mktemp("bare") / "bare.sgraf"
    done("export", checkpoint_files["sgr"], "-o", target, "--precision", "fp32", "--no-reference")
    return target


@pytest.fixture
def world(
    tmp_path: Path,
    checkpoint_files: dict[str, Path],
    vocabulary_file: Path,
    exported: Bundle,
    bare: Path,
    precomp: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """Good inputs, and an empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with ExitStack() as until_the_end:
        yield World(
            folder=folder,
            checkpoints=checkpoint_files,
            vocabulary=vocabulary_file,
            bundle=exported.path,
            bare=bare,
            data=precomp,
            monkeypatch=monkeypatch,
            until_the_end=until_the_end,
        )
