"""Reads what an export needs, and checks all of it before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgraf_deploy.bundle.manifest import unshared
from sgraf_deploy.config import MODULES, ModelConfig, member_names
from sgraf_deploy.data.checks import (
    check_split,
    member_findings,
    special_word_findings,
    vocabulary_findings,
)
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.layout import Dimensions
from sgraf_deploy.data.precomp import PrecompSplit, list_splits, open_precomp
from sgraf_deploy.data.regions import region_statistics
from sgraf_deploy.data.tokenizer import Tokenizer, check_variant
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import InputError
from sgraf_deploy.export.extractor import read_extractor, trained_features
from sgraf_deploy.export.gate_inputs import data_inputs, synthetic_inputs
from sgraf_deploy.export.options import ExportOptions
from sgraf_deploy.features.spec import Parts
from sgraf_deploy.gate.inputs import GateInputs
from sgraf_deploy.model.checkpoint import Checkpoint, read_checkpoint

RANKED_IMAGES = 100
"""Images of `--gate-data` that are ranked, and checked before: enough to tell any trained model
from chance, and the 50,000 pairs per member take seconds on a CPU."""

_PREFERRED_SPLITS = ("dev", "val", "test", "train")


@dataclass(frozen=True, eq=False)
class ExportInputs:
    """What was read and checked: the checkpoints by member name, and what the gate runs on.

    `split` is None without `--gate-data`; `statistics` are those of its region features, or else of
    the training's where a checkpoint says them. `extractor` is None where none was asked for.
    """

    checkpoints: dict[str, Checkpoint]
    vocabulary: Vocabulary | None
    split: PrecompSplit | None
    gate: GateInputs
    statistics: dict[str, Any] | None
    extractor: Parts | None
    findings: tuple[Finding, ...]


def read_inputs(paths: Sequence[Path], options: ExportOptions) -> ExportInputs:
    """Read checkpoints, vocabulary and gate data.

    Raises CheckpointError, DataError or InputError for what cannot be used, or does not fit the
    rest.
    """
    checkpoints = _by_member([read_checkpoint(path, options.key) for path in paths])
    _check_shared(checkpoints)
    config = next(iter(checkpoints.values())).config
    vocabulary, findings = _read_vocabulary(options.vocabulary, checkpoints)
    tokenizer = _open_tokenizer(options, vocabulary)
    split = _open_split(options, (config.regions, config.img_dim))
    trained = trained_features(checkpoints)
    statistics = next((one.statistics for one in trained.values() if one.statistics), None)
    extractor = None
    if options.extractor is not None:
        extractor = read_extractor(options.extractor, options, checkpoints, trained)
    if split is None:
        gate = synthetic_inputs(config)
        return ExportInputs(checkpoints, vocabulary, None, gate, statistics, extractor, findings)
    if vocabulary is None or tokenizer is None:
        raise InputError("--gate-data needs words", expected="--vocab FILE", got="no vocabulary")
    return ExportInputs(
        checkpoints,
        vocabulary,
        split,
        gate=data_inputs(config, split, tokenizer, vocabulary),
        findings=findings + _split_findings(config, split, tokenizer, vocabulary, statistics),
        statistics=region_statistics(split.regions),
        extractor=extractor,
    )


def _by_member(read: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Checkpoints by member name, SGR first; InputError for one that is given twice."""
    by_hash: dict[str, Checkpoint] = {}
    for checkpoint in read:
        first = by_hash.setdefault(checkpoint.sha256, checkpoint)
        if first is not checkpoint:
            raise InputError(
                "checkpoints of a bundle",
                expected="each once",
                got=f"{first.path} and {checkpoint.path}, which are the same",
                hint="leave one of them out",
            )
    ordered = sorted(read, key=lambda checkpoint: MODULES.index(checkpoint.config.module))
    names = member_names(checkpoint.config.module for checkpoint in ordered)
    return dict(zip(names, ordered, strict=True))


def _check_shared(checkpoints: Mapping[str, Checkpoint]) -> None:
    """Raise InputError unless the members of an ensemble read the same images and words."""
    found = unshared({member: checkpoint.config for member, checkpoint in checkpoints.items()})
    if found is not None:
        name, values = found
        raise InputError(
            f"the checkpoints of an ensemble differ in {name}",
            expected="the same number in all",
            got=values,
        )


def _read_vocabulary(
    path: Path | None, checkpoints: Mapping[str, Checkpoint]
) -> tuple[Vocabulary | None, tuple[Finding, ...]]:
    """The vocabulary, and what suggests that it is another data set's.

    A wrong size is an InputError, and so are other words than the checkpoint was trained with,
    where the checkpoint says so. The authors' checkpoints hold nothing but the data set's name.
    """
    data_names = {member: checkpoint.data_name for member, checkpoint in checkpoints.items()}
    findings = member_findings(data_names)
    if path is None:
        return None, findings
    vocabulary = Vocabulary.load(path)
    for checkpoint in checkpoints.values():
        _check_vocabulary(path, vocabulary, checkpoint)
    unhashed = [
        checkpoint.data_name
        for checkpoint in checkpoints.values()
        if checkpoint.options.get("vocab_sha256") is None
    ]
    if unhashed:
        findings += special_word_findings(path, vocabulary)
    return vocabulary, findings + vocabulary_findings(path, unhashed)


def _check_vocabulary(path: Path, vocabulary: Vocabulary, checkpoint: Checkpoint) -> None:
    """Raise InputError unless a vocabulary can be the one of a checkpoint's training."""
    size, sha256 = checkpoint.config.vocab_size, checkpoint.options.get("vocab_sha256")
    if vocabulary.size != size:
        trained = checkpoint.data_name
        raise InputError(
            f"vocabulary {path}",
            expected=f"{size} words, as the checkpoint's embedding has",
            got=vocabulary.size,
            hint=f"use that of its training, {trained}_vocab.json" if trained else None,
        )
    if sha256 is not None and vocabulary.sha256 != sha256:
        raise InputError(
            f"vocabulary {path}",
            expected=f"the words that {checkpoint.path} was trained with, in their order",
            got="others, or another order",
            hint="give the --vocab of its training",
        )


def _open_tokenizer(options: ExportOptions, vocabulary: Vocabulary | None) -> Tokenizer | None:
    """The tokenizer, None without a vocabulary; raises where it is unknown or its data are missing.

    It is opened without gate data, too: a bundle whose tokenizer does not work here is not written.
    """
    check_variant(options.tokenizer)
    if vocabulary is None:
        return None
    return Tokenizer(options.tokenizer, options.max_caption_words, vocabulary)


def _open_split(options: ExportOptions, model: Dimensions) -> PrecompSplit | None:
    if options.gate_data is None:
        return None
    splits = list_splits(options.gate_data)
    preferred = [name for name in _PREFERRED_SPLITS if name in splits]
    return open_precomp(
        options.gate_data,
        options.gate_split or [*preferred, *splits, "dev"][0],
        captions_per_image=options.captions_per_image,
        model=model,
    )


def _split_findings(
    config: ModelConfig,
    split: PrecompSplit,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    statistics: Mapping[str, Any] | None,
) -> tuple[Finding, ...]:
    """What is suspicious in the part of the gate's data that is ranked.

    Its features are compared with those of the training, where a checkpoint knows them.
    """
    dimensions = (config.regions, config.img_dim)
    ranked = split.first(RANKED_IMAGES)
    return check_split(ranked, dimensions, tokenizer, vocabulary, statistics).findings
