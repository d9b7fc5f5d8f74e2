"""`sgraf-deploy inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import BUNDLE, ENGINE_DIR, PATH, megabytes
from sgraf_deploy.cli.terminal import echo, echo_json, table
from sgraf_deploy.config import COMBINED, EXPLAIN, GRAPHS, Precision

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.bundle.manifest import Manifest
    from sgraf_deploy.config import TensorSpec
    from sgraf_deploy.engines.trt.plan_list import Listed

_ITEM_BYTES = {"float32": 4, "float16": 2}


@click.command(short_help="Show a bundle's models, graphs, precisions, sizes and plans.")
@BUNDLE
@ENGINE_DIR
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON instead.")
@click.option(
    "--commands",
    "script",
    type=PATH,
    metavar="FILE",
    help="Print the commands instead that run every graph in trtexec, Polygraphy and "
    "perf_analyzer, and write FILE, the Python script that makes valid inputs for them. Another "
    "file of that name is refused.",
)
def inspect(
    bundle: Path | str, engine_dir: Path | None, as_json: bool, script: Path | None
) -> None:
    """Show what is in a BUNDLE: models, graphs, axes, precisions, sizes and compiled plans.

    The graphs are checked first: their hashes, and that they need no other file. Plans are listed
    with the largest sizes of every profile, and whether they were verified here.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.errors import InputError

    if as_json and script is not None:
        raise InputError("--json and --commands", expected="one of them", got="both")
    opened = Bundle.open(bundle)
    if script is not None:
        for line in _commands(opened, script):
            echo(line)
        return
    manifest = opened.manifest
    for graph in manifest.graphs:
        opened.file(graph)
    if as_json:
        echo_json(manifest.to_json())
        return
    for line in _overview(opened, bundle, engine_dir):
        echo(line)


def _overview(opened: Bundle, name: Path | str, engine_dir: Path | None) -> Iterator[str]:
    """What is in a bundle, in lines and tables."""
    manifest = opened.manifest
    size = megabytes(sum(ref.bytes for ref in manifest.files))
    yield f"{name}: {manifest.module}, {size}, bundle sha256 {opened.sha256[:16]}…"
    if opened.source is not None:
        yield f"from {opened.source}, kept in {opened.path}"
    if manifest.tokenizer is None:
        yield f"no vocabulary: works on token ids below {manifest.vocab_size:,}"
    else:
        yield f"vocabulary of {manifest.vocab_size:,} words, tokenizer {manifest.tokenizer}"
    yield from _member_lines(manifest)
    yield from _extractor_lines(opened)
    yield from ("", *_interfaces(manifest), "", *_sizes(manifest), *_plans(opened, engine_dir), "")
    for precision in manifest.precisions:
        image, word = _encoded_bytes(manifest, precision)
        yield (
            f"{precision}: {image:,} bytes per encoded image, "
            f"{word:,} per word of an encoded caption and {word:,} per caption"
        )
    yield _auto(opened)


def _commands(bundle: Bundle, script: Path) -> list[str]:
    """Write the script that makes inputs; returns the lines that use it, as a shell runs them."""
    from sgraf_deploy.package.commands import (
        check_script,
        command_lines,
        list_cases,
        script_text,
        write_script,
    )

    target = check_script(script)
    cases = list_cases(bundle)
    lines = []
    for case in cases:
        lines += ["", f"# {case.name}", *command_lines(case, target)]
    write_script(target, script_text(cases, bundle.manifest.vocab_size))
    return [f"# {bundle.path.name}: every graph in other programs", *lines]


def _auto(bundle: Bundle) -> str:
    """What `--engine auto` takes for the bundle on this machine, or why it finds nothing."""
    from sgraf_deploy.engines.machine import Machine
    from sgraf_deploy.engines.policy import Request, choose
    from sgraf_deploy.errors import UnavailableError

    try:
        found = choose(Request(), Machine(bundle))
    except UnavailableError as error:
        return f"--engine auto finds nothing here: {error}"
    return f"--engine auto takes {found.engine} here, {found.precision} on {found.device}"


def _member_lines(manifest: Manifest) -> Iterator[str]:
    for name, member in manifest.members.items():
        config, source = member.config, member.checkpoint
        steps = f", {config.sgr_steps} steps" if config.sgr_steps else ""
        direction = "bidirectional" if config.bidirectional else "unidirectional"
        yield (
            f"{name}: {config.regions} regions × {config.img_dim}, embed {config.embed}, "
            f"sim_dim {config.sim_dim}{steps}, {direction} GRU × {config.num_layers}"
        )
        epoch = "" if source.epoch is None else f", epoch {source.epoch}"
        reference = "kept" if member.reference else "left out"
        yield (
            f"  from {source.file} (sha256 {source.sha256[:16]}…){epoch}; "
            f"original weights {reference}"
        )


def _extractor_lines(bundle: Bundle) -> Iterator[str]:
    """What makes regions of photographs, if the bundle has it."""
    from sgraf_deploy.features.bundled import bundle_recipe

    found = bundle.manifest.extractor
    if found is None:
        return
    recipe, _ = bundle_recipe(bundle)
    sizes = (f"{name} {megabytes(ref.bytes)}" for name, ref in found.files.items())
    inputs = ", ".join(f"{one.width} × {one.height} {one.fit}" for one in recipe.resizing.values())
    yield (
        f"takes photographs: extractor {recipe.kind}, {recipe.regions} regions × {recipe.img_dim}, "
        f"input {inputs}; {', '.join(sizes)} (recipe {found.identity[:16]}…)"
    )


def _plans(bundle: Bundle, engine_dir: Path | None) -> Iterator[str]:
    """A table of compiled plans; a line for each that is unusable, and what there is to do."""
    from sgraf_deploy.engines.trt.plan_list import list_plans
    from sgraf_deploy.errors import BundleError

    try:
        listed = list_plans(bundle, engine_dir)
    except BundleError as error:
        yield from ("", f"plans: {error}")
        return
    if not listed:
        if engine_dir is not None:
            yield from ("", f"no plans of this bundle in {engine_dir}")
        return
    columns = ("plan", "built by", "for", "largest sizes of its profiles", "size", "here")
    yield ""
    yield from table([_plan_row(one) for one in listed], columns, ("size",))
    for one in listed:
        if one.problem is not None:
            yield f"{one.name} is unusable: {one.problem}"
    for hint in dict.fromkeys(one.hint for one in listed if one.hint is not None):
        yield f"to have one for this machine: {hint}"


def _plan_row(one: Listed) -> tuple[object, ...]:
    if one.sidecar is None:
        return (one.name, "", "", "", "", one.state)
    sizes = tuple(
        ", ".join(f"{axis} {size:,}" for axis, size in largest.items()) for largest in one.largest
    )
    built, size = f"{one.sidecar.flavour} {one.sidecar.version}", megabytes(one.sidecar.plan_bytes)
    gpus = ", ".join(one.sidecar.compute_capabilities)
    return (one.name, built, gpus, sizes, size, one.state)


def _interfaces(manifest: Manifest) -> list[str]:
    """A table with a row per graph, or per graph and member where members differ."""
    owners: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for name, member in manifest.members.items():
        for graph in GRAPHS:
            signatures = {name: files[graph].signature for name, files in member.graphs.items()}
            inputs = _axes({name: each.inputs for name, each in signatures.items()})
            outputs = _axes({name: each.outputs for name, each in signatures.items()})
            owners.setdefault((graph, inputs, outputs), []).append(name)
    everyone = list(manifest.members)
    rows = [
        [graph if names == everyone else f"{' + '.join(names)} {graph}", inputs, outputs]
        for (graph, inputs, outputs), names in owners.items()
    ]
    if manifest.combined:
        spec = next(iter(manifest.combined.values())).signature
        rows.append([COMBINED, _axes({COMBINED: spec.inputs}), _axes({COMBINED: spec.outputs})])
    for name, file in manifest.explain.items():
        spec = file.signature
        label = f"{name} {EXPLAIN}"
        rows.append([label, _axes({EXPLAIN: spec.inputs}), _axes({EXPLAIN: spec.outputs})])
    return table(rows, ["graph", "inputs", "outputs"])


def _axes(by_precision: Mapping[str, tuple[TensorSpec, ...]]) -> tuple[str, ...]:
    """A line per tensor; its type in every precision where they differ, or where it is alone."""
    found: dict[str, dict[str, TensorSpec]] = {}
    for precision, tensors in by_precision.items():
        for tensor in tensors:
            found.setdefault(tensor.name, {})[precision] = tensor
    lines = []
    for name, same in found.items():
        axes = ", ".join(map(str, next(iter(same.values())).axes))
        types = " | ".join(dict.fromkeys(tensor.dtype for tensor in same.values()))
        alone = "" if len(same) == len(by_precision) else f", {' and '.join(same)} alone"
        lines.append(f"{name} ({axes}) {types}{alone}")
    return tuple(lines)


def _sizes(manifest: Manifest) -> list[str]:
    """A table of file sizes, with a row per member and precision: there may be many."""
    rows = []
    for name, member in manifest.members.items():
        for precision, graphs in member.graphs.items():
            sizes = [graphs[graph].ref.bytes for graph in GRAPHS]
            rows.append([f"{name} {precision}", *map(megabytes, (*sizes, sum(sizes)))])
    columns = [*GRAPHS, "all four"]
    lines = table(rows, ["size of the file", *columns], right=columns)
    if manifest.combined:
        each = (
            f"{megabytes(file.ref.bytes)} in {name}" for name, file in manifest.combined.items()
        )
        lines.append(f"the combined graph: {', '.join(each)}")
    if manifest.explain:
        each = (f"{megabytes(file.ref.bytes)} of {name}" for name, file in manifest.explain.items())
        lines.append(f"the graph {EXPLAIN}: {', '.join(each)}")
    return lines


def _encoded_bytes(manifest: Manifest, precision: Precision) -> tuple[int, int]:
    """Bytes of one encoded image, and of one encoded word, over all members."""
    members = manifest.members.values()
    image = sum(
        prod(axis for axis in tensor.axes if isinstance(axis, int)) * _ITEM_BYTES[tensor.dtype]
        for member in members
        for tensor in member.graphs[precision]["image_encoder"].signature.outputs
    )
    stored = "float32" if precision == "fp32" else "float16"
    return image, sum(member.config.embed * _ITEM_BYTES[stored] for member in members)
