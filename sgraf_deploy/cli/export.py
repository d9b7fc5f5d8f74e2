"""`sgraf-deploy export`."""

from __future__ import annotations

import importlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from sgraf_deploy.cli.common import (
    CAPTION_COUNT,
    CAPTION_WORDS,
    PATH,
    count,
    megabytes,
    show_finding,
)
from sgraf_deploy.cli.evaluate import recall_table
from sgraf_deploy.cli.terminal import echo, progress_bars, table
from sgraf_deploy.config import (
    CAPTIONS_PER_IMAGE,
    COMBINED,
    DEFAULT_PRECISIONS,
    EXPLAIN,
    PRECISIONS,
    Precision,
)
from sgraf_deploy.data.tokenizer import VOCABULARY

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.evaluation.evaluate import Evaluation
    from sgraf_deploy.export.exporter import Exported, ExportOptions

_SETS = {"both": DEFAULT_PRECISIONS, "all": PRECISIONS}


@click.command(short_help="Turn one or more checkpoints into a verified bundle.")
@click.argument("checkpoints", nargs=-1, required=True, type=PATH, metavar="CHECKPOINT...")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="DIR",
    help="Folder of the new bundle. By default NAME.sgraf in this folder, with NAME from the "
    "checkpoints.",
)
@click.option(
    "--vocab",
    "vocabulary",
    type=PATH,
    metavar="FILE",
    help="Vocabulary JSON of the training. Without it the bundle scores token ids only.",
)
@click.option(
    "--key",
    metavar="NAME",
    help="Key of the three state dicts in a checkpoint, such as model_A or a.b; by default model.",
)
@click.option(
    "--tokenizer",
    default=VOCABULARY,
    show_default=True,
    metavar="NAME",
    help="How captions are split into words. nltk-untrained-punkt knows no abbreviations, "
    "nltk-punkt needs NLTK's trained punkt_tab data.",
)
@click.option(
    "--precision",
    type=click.Choice([*PRECISIONS, "both", "all"]),
    default="both",
    show_default=True,
    help="Precision of the graphs. both is fp32 and fp16; all adds fp8, which needs --gate-data.",
)
@click.option(
    "--combined",
    is_flag=True,
    help="Write one more graph in every precision, for other programs: of all members, from "
    "regions and token ids to logits and similarities.",
)
@click.option(
    "--opset",
    type=int,
    metavar="N",
    help="Version of ONNX's operators, 15 to 23, for other programs; fp8 needs 19. By default 18, "
    "and 19 for fp8.",
)
@click.option(
    "--gate-data",
    type=PATH,
    metavar="DIR",
    help="Folder of precomp data to run the gate on, with tighter bounds, and to measure R@K on. "
    "Needs --vocab. By default the gate runs on synthetic images.",
)
@click.option(
    "--gate-split",
    metavar="NAME",
    help="Split of --gate-data. By default the first that exists of dev, val, test and train.",
)
@CAPTION_COUNT
@CAPTION_WORDS
@click.option(
    "--extractor",
    metavar="SPEC",
    help="Also store what makes regions of photographs, so that the bundle takes photographs: "
    "grid:MODEL.onnx,…, boxes:DETECTOR.onnx+MODEL.onnx,…, an extractor.json, or another bundle; "
    "`sgraf-deploy features --help` says more.",
)
@click.option(
    "--allow-foreign-features",
    is_flag=True,
    help="Also store an extractor that differs from the one of the training or of --gate-data.",
)
@click.option(
    "--no-reference",
    is_flag=True,
    help="Leave the original weights out. The bundle is smaller, but verify and the torch engines "
    "then need --checkpoint.",
)
@click.option(
    "--card",
    is_flag=True,
    help="Also write a model card for the Hub, README.md in the bundle's folder. `card BUNDLE "
    "--eval-json FILE` writes it anew, with R@K.",
)
@click.option("--force", is_flag=True, help="Replace an existing bundle in one step.")
def export(
    *,
    checkpoints: tuple[Path, ...],
    output: Path | None,
    vocabulary: Path | None,
    key: str | None,
    tokenizer: str,
    precision: str,
    combined: bool,
    opset: int | None,
    gate_data: Path | None,
    gate_split: str | None,
    captions_per_image: int,
    max_caption_words: int | None,
    extractor: str | None,
    allow_foreign_features: bool,
    no_reference: bool,
    card: bool,
    force: bool,
) -> None:
    """Export one CHECKPOINT (SGR or SAF), or several as an ensemble, to a bundle.

    One SGR and one SAF make SGRAF. Any number of either, for example of other seeds, can be
    combined if they read the same images and words.

    Every graph is first compared with the PyTorch reference. If one fails, no bundle is written.
    """
    from sgraf_deploy.errors import InputError

    _check_packages()
    from sgraf_deploy.export.exporter import ExportOptions, default_target, export_bundle

    if gate_split is not None and gate_data is None:
        raise InputError("--gate-split", expected="--gate-data DIR beside it", got="none")
    if allow_foreign_features and extractor is None:
        what = "--allow-foreign-features"
        raise InputError(what, expected="--extractor SPEC beside it", got="none")
    _check_key(key, no_reference=no_reference)
    options = ExportOptions(
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        precisions=_SETS.get(precision) or (cast(Precision, precision),),
        gate_data=gate_data,
        gate_split=gate_split,
        captions_per_image=captions_per_image,
        keep_reference=not no_reference,
        force=force,
        max_caption_words=max_caption_words,
        key=key,
        card=card,
        combined=combined,
        opset=opset,
        extractor=extractor,
        allow_foreign_features=allow_foreign_features,
    )
    target = output or default_target(checkpoints)
    with progress_bars() as bars:
        steps = _steps(len(checkpoints))
        result = export_bundle(checkpoints, target, options, step=steps, stage=bars)
    _show(result, target, options)


def _show(result: Exported, target: Path, options: ExportOptions) -> None:
    """What an export says when it is done."""
    for note in result.notes:
        echo(f"note: {note}")
    for line in (*parity_lines(result.bundle.manifest.parity), *_ranks_lines(result.ranks)):
        echo(line)
    for finding in result.findings:
        show_finding(finding)
    for line in _closing(target, result.bundle, options):
        echo(line)


def _check_key(key: str | None, *, no_reference: bool) -> None:
    """Refuse --key with --no-reference: no other command could read the weights again."""
    from sgraf_deploy.errors import InputError

    if key is not None and no_reference:
        hint = "leave --no-reference out"
        got = "--no-reference, whose bundle would have to read the checkpoint again"
        raise InputError("--key", expected="the weights kept in the bundle", got=got, hint=hint)


def _ranks_lines(ranks: Evaluation | None) -> Iterator[str]:
    """R@K on the gate's data beside chance: near it, the inputs do not belong together."""
    from sgraf_deploy.evaluation.recall import chance_level

    if ranks is None:
        return
    run = ranks.run
    images, captions = count(run["images"], "image"), count(run["captions"], "caption")
    yield (
        f"R@K in percent on the first {images} × {captions} of split {run['split']}, "
        f"by engine {run['engine']} in {run['executed']}; chance is a random order"
    )
    chance = chance_level(run["images"], run["captions_per_image"])
    yield from recall_table({**ranks.reports, "chance": chance})


def _check_packages() -> None:
    """Raise UnavailableError, with the command to install it, for a package that is missing."""
    from sgraf_deploy.errors import UnavailableError

    try:
        importlib.import_module("sgraf_deploy.export.exporter")
    except ImportError as error:
        raise UnavailableError(
            f"export needs {error.name}", hint="pip install 'sgraf-deploy[torch,cpu]'"
        ) from error


def parity_lines(parity: dict[str, Any]) -> Iterator[str]:
    """The gate's largest differences beside their bounds."""
    yield "gate: largest difference from the float64 PyTorch reference ≤ its bound"
    yield f"on {parity['source']}"
    reports = {
        f"{member} {precision}": report
        for member, precisions in parity["members"].items()
        for precision, report in precisions.items()
    }
    for precision, report in parity.get(COMBINED, {}).items():
        reports[f"{COMBINED} {precision}"] = report
    explained = parity.get(EXPLAIN, {})
    reports |= {f"{member} {EXPLAIN}": report for member, report in explained.items()}
    measured = ("embeddings", "logits", "similarities")
    rows = [
        [name, report["executor"], *(_beside_bound(report.get(what)) for what in measured)]
        for name, report in reports.items()
    ]
    yield from table(rows, ["graphs", "executed by", *measured])
    for name, report in reports.items():
        correlation = report.get("spearman", {"bound": None})
        if correlation["bound"] is not None:
            value, bound = correlation["value"], correlation["bound"]
            yield f"{name}: rank correlation of the logits {value:.6f} ≥ {bound}"
    for member, report in explained.items():
        names = [name for name in report if name not in ("executor", "logits")]
        worst = max((report[name] for name in names), key=lambda found: found["value"])
        yield f"{member} {EXPLAIN}: {', '.join(names)} {_beside_bound(worst)}"
    if "recall" in parity:
        points = parity["recall"]["points"].items()
        moved = ", ".join(f"{model} {deltas['rsum']:+.2f}" for model, deltas in points)
        yield f"fp8, {parity['recall']['on']}: every R@K within its bound, rsum {moved}"


def _beside_bound(found: dict[str, float] | None) -> str:
    """A largest difference and its bound; a combined graph has no embeddings to compare."""
    return "" if found is None else f"{found['value']:.1e} ≤ {found['bound']:.1e}"


def _closing(target: Path, bundle: Bundle, options: ExportOptions) -> Iterator[str]:
    """What was written, and what to type next."""
    manifest = bundle.manifest
    size = megabytes(sum(ref.bytes for ref in manifest.files))
    yield f"wrote {target}: {manifest.module}, {' + '.join(manifest.precisions)}, {size}"
    if manifest.vocabulary is None:
        yield "no --vocab was given: this bundle scores token ids, not captions in words"
        yield f"next: {shlex.join(['sgraf-deploy', 'inspect', str(target)])}"
    else:
        data, split = str(options.gate_data or "DIR"), options.gate_split or "dev"
        command = ["sgraf-deploy", "eval", str(target), "--data", data, "--split", split]
        if options.captions_per_image != CAPTIONS_PER_IMAGE:
            command += ["--captions-per-image", str(options.captions_per_image)]
        if "fp32" not in manifest.precisions:
            command += ["--precision", manifest.precisions[0]]
        if manifest.precisions == ("fp8",):
            command += ["--engine", "torch"]
        yield f"next: {shlex.join(command)}"


def _steps(members: int) -> Callable[[str], None]:
    """What says on stderr which step begins, and of several members which one it is for."""
    said: Counter[str] = Counter()

    def say(step: str) -> None:
        said[step] += 1
        number = f" ({said[step]} of {members})" if members > 1 else ""
        lines = {
            "graphs": f"writing graphs{number} …",
            "combined": "writing the graphs of all members …",
            "extractor": "writing the extractor, and checking it by the reference picture …",
            "reference": f"running the PyTorch reference in float64{number} …",
            "gate": "gate: comparing every graph with the reference …",
            "recall": "gate: comparing R@K in fp8 with the reference's …",
            "ranks": "ranking a part of the gate's data …",
            "card": "writing the model card …",
        }
        if step in lines:
            echo(lines[step], err=True)

    return say
