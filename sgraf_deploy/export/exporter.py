"""Checkpoints in, a verified bundle out; nothing is published that did not pass the gate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from sgraf_deploy.bundle.bundle import Bundle, hash_file, staged_bundle, write_manifest
from sgraf_deploy.bundle.manifest import (
    SCHEMA_VERSION,
    CheckpointInfo,
    FileRef,
    GraphFile,
    Manifest,
    Member,
)
from sgraf_deploy.config import (
    CAPTIONS_PER_IMAGE,
    DEFAULT_PRECISIONS,
    GRAPHS,
    MODULES,
    GraphName,
    Precision,
    describe_modules,
    member_names,
    signature,
)
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.data.checks import check_split, member_findings, vocabulary_findings
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.layout import Dimensions
from sgraf_deploy.data.precomp import PrecompSplit, list_splits, open_precomp
from sgraf_deploy.data.regions import region_statistics
from sgraf_deploy.data.tokenizer import VOCABULARY, Tokenizer, check_variant
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import BundleError, InputError
from sgraf_deploy.export.gate_inputs import data_inputs, reference_outputs, synthetic_inputs
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.export.onnx_ops import OPSETS
from sgraf_deploy.files.writer import write_file
from sgraf_deploy.gate.graphs import gate_members
from sgraf_deploy.gate.inputs import GateInputs, GateReference, write_gate
from sgraf_deploy.model.checkpoint import Checkpoint, read_checkpoint, write_reference
from sgraf_deploy.model.folding import fold
from sgraf_deploy.versions import tool_versions

Step = Callable[[str], None]
Check = Callable[[Bundle, PrecompSplit], dict[str, Any]]
"""R@K in FP8 of a bundle not yet published, for its parity report; GateError if it is not kept."""

Ranks = Callable[[Bundle, PrecompSplit], tuple[Finding, ...]]
"""Looks at the ranks of a bundle not yet published; says what is suspicious about them."""

RECALL_IMAGES = 200
"""Of `--gate-data`, that R@K in FP8 is compared on."""

RANKED_IMAGES = 100
"""Of `--gate-data`, that are ranked, and looked at before: enough to tell any trained model from
chance, and 50,000 pairs a member are seconds on a CPU."""

STEPS = ("graphs", "reference", "gate", "manifest")
"""Told to `step` before each begins, between those of `folders.staged_folder`."""

_PREFERRED_SPLITS = ("dev", "val", "test", "train")


@dataclass(frozen=True)
class ExportOptions:
    """What an export does beyond the checkpoints.

    Without `vocabulary` the bundle works on token ids. `gate_data` is a precomp folder that the
    gate runs on instead of synthetic regions; it needs the vocabulary. None of its captions may
    be longer than `max_caption_words`, unless that is None. `key` leads to the model in
    checkpoints that hold it elsewhere than under `model`.
    """

    vocabulary: Path | None = None
    tokenizer: str = VOCABULARY
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    gate_data: Path | None = None
    gate_split: str | None = None
    captions_per_image: int = CAPTIONS_PER_IMAGE
    keep_reference: bool = True
    force: bool = False
    max_caption_words: int | None = MAX_WORDS
    key: str | None = None


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What was read and checked before anything is written."""

    checkpoints: dict[str, Checkpoint]
    vocabulary: Vocabulary | None
    split: PrecompSplit | None
    gate: GateInputs
    findings: tuple[Finding, ...]
    statistics: dict[str, int | float] | None
    references: dict[str, GateReference] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Exported:
    """A published bundle, and what there is to say about how it came to be."""

    bundle: Bundle
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def default_target(checkpoints: Sequence[Path]) -> Path:
    """`NAME.sgraf` in the current folder, NAME the words that the checkpoints' names share."""
    names = [path.name.split(".")[0] for path in checkpoints]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in same)
    if any(name[len(shared) : len(shared) + 1] not in ("", "_", "-") for name in names):
        shared = shared[: max(shared.rfind("_"), shared.rfind("-"), 0)]
    return Path(f"{shared.rstrip('_-') or 'sgraf'}.sgraf")


def export_bundle(
    paths: Sequence[Path],
    target: Path,
    options: ExportOptions = ExportOptions(),
    *,
    step: Step | None = None,
    check: Check | None = None,
    ranks: Ranks | None = None,
) -> Exported:
    """Export one or more checkpoints, each SGR or SAF, into the bundle folder `target`.

    Several make an ensemble. FP8 needs `gate_data` and a `check` on them; `ranks` is asked about
    some of them. Raises CheckpointError, DataError, InputError or BundleError for inputs that
    cannot be used, and GateError where a graph differs from the reference; `target` is then as
    it was.
    """
    report = step or (lambda name: None)
    if "fp8" not in options.precisions:
        check = None
    elif options.gate_data is None or check is None:
        raise InputError(
            "precision fp8", expected="--gate-data DIR, to compare R@K on", got="no real data"
        )
    inputs = _read_inputs(paths, options)
    with staged_bundle(target, force=options.force, step=step) as folder:
        members = {}
        for name, checkpoint in inputs.checkpoints.items():
            members[name] = _write_member(folder, name, checkpoint, inputs, options, report)
        report("gate")
        parity = gate_members(folder, members, inputs.gate, inputs.references)
        report("manifest")
        manifest = _manifest(folder, members, inputs, options, parity)
        write_manifest(folder, manifest)
        if check is not None and inputs.split is not None:
            report("recall")
            recall = {"recall": check(Bundle.open(folder), inputs.split.first(RECALL_IMAGES))}
            write_manifest(folder, replace(manifest, parity=parity | recall))
        findings = inputs.findings
        if ranks is not None and inputs.split is not None:
            report("ranks")
            findings += ranks(Bundle.open(folder), inputs.split.first(RANKED_IMAGES))
    notes = [
        f"{checkpoint.path}: {sentence}"
        for checkpoint in inputs.checkpoints.values()
        for sentence in checkpoint.inferred
    ]
    if inputs.vocabulary is not None and (words := inputs.vocabulary.capitalised):
        some = ", ".join(words[:3])
        notes.append(
            f"{options.vocabulary}: no caption has {len(words)} words, in capitals: {some}"
        )
    return Exported(Bundle.open(target), tuple(notes), findings)


def _read_inputs(paths: Sequence[Path], options: ExportOptions) -> _Inputs:
    checkpoints = _named([read_checkpoint(path, options.key) for path in paths])
    _check_shared(checkpoints)
    config = next(iter(checkpoints.values())).config
    vocabulary, findings = _read_vocabulary(options.vocabulary, checkpoints)
    check_variant(options.tokenizer)
    tokenizer = None
    if vocabulary is not None:
        tokenizer = Tokenizer(options.tokenizer, options.max_caption_words, vocabulary)
    split = _gate_split(options, (config.regions, config.img_dim))
    statistics = None
    if split is None:
        gate = synthetic_inputs(config)
    elif vocabulary is None or tokenizer is None:
        raise InputError("--gate-data needs words", expected="--vocab FILE", got="no vocabulary")
    else:
        gate = data_inputs(config, split, tokenizer, vocabulary)
        ranked, dimensions = split.first(RANKED_IMAGES), (config.regions, config.img_dim)
        findings += check_split(ranked, dimensions, tokenizer, vocabulary).findings
        statistics = region_statistics(split.regions)
    return _Inputs(checkpoints, vocabulary, split, gate, findings, statistics)


def _read_vocabulary(
    path: Path | None, checkpoints: Mapping[str, Checkpoint]
) -> tuple[Vocabulary | None, tuple[Finding, ...]]:
    """The vocabulary, and what is suspicious about whose it is.

    A size that is wrong is an InputError, and so are other words than the checkpoint was trained
    with, where it says so; the authors' checkpoints say no more than the name of the data.
    """
    findings = member_findings({name: one.data_name for name, one in checkpoints.items()})
    if path is None:
        return None, findings
    vocabulary = Vocabulary.load(path)
    unsure = []
    for checkpoint in checkpoints.values():
        size, sha256 = checkpoint.config.vocab_size, checkpoint.options.get("vocab_sha256")
        if vocabulary.size != size:
            expected = f"{size} words, as the checkpoint's embedding has"
            trained = checkpoint.data_name
            hint = f"use that of its training, {trained}_vocab.json" if trained else None
            raise InputError(
                f"vocabulary {path}", expected=expected, got=vocabulary.size, hint=hint
            )
        if sha256 is None:
            unsure.append(checkpoint.data_name)
        elif vocabulary.sha256 != sha256:
            raise InputError(
                f"vocabulary {path}",
                expected=f"the words that {checkpoint.path} was trained with, in their order",
                got="others, or another order",
                hint="give the --vocab of its training",
            )
    return vocabulary, findings + vocabulary_findings(path, unsure)


def _named(read: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Checkpoints by the members' names, SGR first; InputError for one that is there twice."""
    found: dict[str, Checkpoint] = {}
    for checkpoint in read:
        first = found.setdefault(checkpoint.sha256, checkpoint)
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


def _plain_name(path: Path) -> str:
    """A file's name as text: bytes that are no UTF-8, which JSON cannot hold, are written out."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


def _check_shared(checkpoints: Mapping[str, Checkpoint]) -> None:
    """The members of an ensemble read the same images and words."""
    for name in ("vocab_size", "regions", "img_dim"):
        values = {member: getattr(c.config, name) for member, c in checkpoints.items()}
        if len(set(values.values())) > 1:
            raise InputError(
                f"the checkpoints of an ensemble differ in {name}",
                expected="the same number in all",
                got=values,
            )


def _gate_split(options: ExportOptions, model: Dimensions) -> PrecompSplit | None:
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


def _write_member(
    folder: Path,
    name: str,
    checkpoint: Checkpoint,
    inputs: _Inputs,
    options: ExportOptions,
    report: Step,
) -> Member:
    report("graphs")
    folded = fold(checkpoint.config, checkpoint.weights)
    graphs: dict[Precision, dict[GraphName, GraphFile]] = {}
    for precision in options.precisions:
        place = folder / name / precision
        place.mkdir(parents=True)
        graphs[precision] = {}
        for graph in GRAPHS:
            path = place / f"{graph}.onnx"
            model = build_graph(folded, graph, precision)
            write_file(path, model.SerializeToString(), what="graph", error=BundleError)
            ref = hash_file(path, relative_to=folder)
            spec = signature(graph, checkpoint.config, precision)
            graphs[precision][graph] = GraphFile(ref, OPSETS[precision], spec)
    report("reference")
    inputs.references[name] = reference_outputs(
        checkpoint.config, checkpoint.weights, inputs.gate, fp8="fp8" in options.precisions
    )
    reference: FileRef | None = None
    if options.keep_reference:
        path = folder / "reference" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        write_reference(path, checkpoint.weights)
        reference = hash_file(path, relative_to=folder)
    info = CheckpointInfo(
        file=_plain_name(checkpoint.path) if checkpoint.path else "",
        sha256=checkpoint.sha256,
        epoch=checkpoint.epoch,
        best_rsum=checkpoint.best_rsum,
        data_name=checkpoint.data_name,
    )
    fingerprint = image_encoder_fingerprint(checkpoint.weights)
    return Member(checkpoint.config, info, fingerprint, graphs, reference)


def image_encoder_fingerprint(weights: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """The sha256 of the weights that images are encoded with: same value, same embeddings."""
    digest = sha256()
    for name in sorted(weights):
        if name.startswith(("image_encoder.", "image_global.")):
            digest.update(f"{name} {weights[name].shape}\n".encode())
            digest.update(np.ascontiguousarray(weights[name], dtype=np.float32).tobytes())
    return digest.hexdigest()


def _manifest(
    folder: Path,
    members: Mapping[str, Member],
    inputs: _Inputs,
    options: ExportOptions,
    parity: dict[str, Any],
) -> Manifest:
    vocabulary = gate = None
    if inputs.vocabulary is not None:
        inputs.vocabulary.save(folder / "vocab.json")
        vocabulary = hash_file(folder / "vocab.json", relative_to=folder)
    if options.keep_reference:
        path = folder / "reference" / "gate.npz"
        write_gate(path, inputs.gate, inputs.references)
        gate = hash_file(path, relative_to=folder)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        module=describe_modules(member.config.module for member in members.values()),
        members=members,
        tokenizer=options.tokenizer if vocabulary else None,
        vocabulary=vocabulary,
        region_statistics=inputs.statistics,
        gate=gate,
        parity=parity,
        tools=tool_versions(),
    )
