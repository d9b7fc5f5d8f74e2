"""From checkpoints to a bundle: read, write, gate, publish.

Everything is read and checked before anything is written. It is written to a temporary folder
beside the target, which becomes the target only if every graph passes the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sgraf_deploy.bundle.bundle import Bundle, staged_bundle, write_manifest
from sgraf_deploy.bundle.card import write_card
from sgraf_deploy.bundle.manifest import (
    SCHEMA_VERSION,
    ExtractorFiles,
    GraphFile,
    Manifest,
    Member,
)
from sgraf_deploy.cards.card import card_text
from sgraf_deploy.cards.reports import EvalReport
from sgraf_deploy.config import Precision, describe_modules
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.evaluation.evaluate import Evaluation
from sgraf_deploy.export.extractor import write_extractor
from sgraf_deploy.export.gate_inputs import reference_outputs
from sgraf_deploy.export.options import ExportOptions, default_target
from sgraf_deploy.export.reading import ExportInputs, read_inputs
from sgraf_deploy.export.recall import GateData, gate_fp8, rank
from sgraf_deploy.export.writing import (
    checkpoint_info,
    image_encoder_fingerprint,
    write_combined,
    write_explain,
    write_gate_file,
    write_graphs,
    write_vocabulary,
    write_weights,
)
from sgraf_deploy.gate.explain import gate_explain
from sgraf_deploy.gate.graphs import gate_members
from sgraf_deploy.gate.inputs import GateReference
from sgraf_deploy.model.folding import fold
from sgraf_deploy.progress import Stage
from sgraf_deploy.versions import tool_versions

__all__ = ["STEPS", "ExportOptions", "Exported", "default_target", "export_bundle"]

Step = Callable[[str], None]

STEPS = ("graphs", "reference", "gate", "manifest")
"""Told to `step` before each begins, between those of `folders.staged_folder`; the first two once
for every member. "combined" and "extractor" follow them where these are asked for; with gate data
"recall" (for FP8) and "ranks" follow all, and "card" is last if one is asked for."""


@dataclass(frozen=True, eq=False)
class Exported:
    """A published bundle, and what was found on the way.

    `notes` say what was inferred from the checkpoints; `ranks` is R@K on the first images of the
    gate data, None without them.
    """

    bundle: Bundle
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    ranks: Evaluation | None = None


def export_bundle(
    paths: Sequence[Path],
    target: Path,
    options: ExportOptions | None = None,
    *,
    step: Step = lambda name: None,
    stage: Stage = lambda name: None,
) -> Exported:
    """Export one or more checkpoints, each SGR or SAF, into the bundle folder `target`.

    Several make an ensemble. `step` is told each step as it begins, and `stage` the long stages of
    measuring R@K, which happens with gate data. Raises CheckpointError, DataError, InputError or
    BundleError for inputs that cannot be used, and GateError where a graph differs from the
    reference; `target` is then as it was.
    """
    options = options or ExportOptions()
    inputs = read_inputs(paths, options)
    with staged_bundle(target, force=options.force, step=step) as folder:
        written = _write_members(folder, inputs, options, step)
        step("gate")
        parity = gate_members(
            folder, written.members, written.combined, inputs.gate, written.references
        )
        parity |= gate_explain(folder, written.explain, inputs.gate, written.references)
        step("manifest")
        manifest = _write_description(folder, written, inputs, options, parity)
        ranks = None
        if inputs.split is not None:
            originals = () if options.keep_reference else tuple(paths)
            data = GateData(inputs.split, originals, options.max_caption_words)
            if "fp8" in options.precisions:
                step("recall")
                recall = {"recall": gate_fp8(folder, data, stage)}
                write_manifest(folder, replace(manifest, parity=parity | recall))
            step("ranks")
            ranks = rank(folder, data, stage)
        if options.card:
            step("card")
            evaluations = () if ranks is None else (EvalReport.of(ranks.to_json()),)
            write_card(folder, card_text(Bundle.open(folder), target.name, evaluations))
    findings = inputs.findings + (() if ranks is None else ranks.of_the_ranks)
    return Exported(Bundle.open(target), tuple(_notes(inputs, options)), findings, ranks)


@dataclass(frozen=True, eq=False)
class _Written:
    """What the manifest says of the files written, and the literal reference of each member."""

    members: dict[str, Member]
    combined: dict[Precision, GraphFile]
    explain: dict[str, GraphFile]
    extractor: ExtractorFiles | None
    references: dict[str, GateReference]


def _write_members(
    folder: Path, inputs: ExportInputs, options: ExportOptions, step: Step
) -> _Written:
    """Write every member's graphs and original weights, and run the reference on it."""
    members, references, explain, folded = {}, {}, {}, {}
    for name, checkpoint in inputs.checkpoints.items():
        step("graphs")
        weights = folded[name] = fold(checkpoint.config, checkpoint.weights)
        given = (folder, name, checkpoint, weights)
        graphs = write_graphs(*given, options.precisions, options.opset)
        explain[name] = write_explain(*given, options.opset)
        step("reference")
        references[name] = reference_outputs(
            checkpoint.config, checkpoint.weights, inputs.gate, fp8="fp8" in options.precisions
        )
        members[name] = Member(
            config=checkpoint.config,
            checkpoint=checkpoint_info(checkpoint),
            image_encoder_fingerprint=image_encoder_fingerprint(checkpoint.weights),
            graphs=graphs,
            reference=write_weights(folder, name, checkpoint) if options.keep_reference else None,
        )
    combined = {}
    if options.combined:
        step("combined")
        combined = write_combined(
            folder, inputs.checkpoints, folded, options.precisions, options.opset
        )
    extractor = None
    if inputs.extractor is not None:
        step("extractor")
        extractor = write_extractor(folder, inputs.extractor)
    return _Written(members, combined, explain, extractor, references)


def _write_description(
    folder: Path,
    written: _Written,
    inputs: ExportInputs,
    options: ExportOptions,
    parity: dict[str, Any],
) -> Manifest:
    """Write vocabulary, gate file and the manifest that names every file; returns the manifest."""
    vocabulary = gate = None
    if inputs.vocabulary is not None:
        vocabulary = write_vocabulary(folder, inputs.vocabulary)
    if options.keep_reference:
        gate = write_gate_file(folder, inputs.gate, written.references)
    members = written.members
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        module=describe_modules(member.config.module for member in members.values()),
        members=members,
        combined=written.combined,
        explain=written.explain,
        tokenizer=options.tokenizer if vocabulary else None,
        vocabulary=vocabulary,
        region_statistics=inputs.statistics,
        extractor=written.extractor,
        gate=gate,
        parity=parity,
        tools=tool_versions(),
    )
    write_manifest(folder, manifest)
    return manifest


def _notes(inputs: ExportInputs, options: ExportOptions) -> Iterator[str]:
    """What was inferred from the checkpoints, and words that no caption can have."""
    for checkpoint in inputs.checkpoints.values():
        for sentence in checkpoint.inferred:
            yield f"{checkpoint.path}: {sentence}"
    if inputs.vocabulary is not None and (words := inputs.vocabulary.capitalised):
        some = ", ".join(words[:3])
        yield f"{options.vocabulary}: no caption has {len(words)} words, in capitals: {some}"
