"""`sgraf-deploy compile`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    CAPTION_COUNT,
    CAPTION_WORDS,
    ENGINE_DIR,
    PATH,
    dimensions,
    megabytes,
    show_finding,
)
from sgraf_deploy.cli.option_types import FiniteRange
from sgraf_deploy.cli.terminal import echo, progress_bars, table, warn
from sgraf_deploy.config import PRECISIONS, Precision
from sgraf_deploy.data.bound import LEAST_WORDS

if TYPE_CHECKING:
    from typing import Any

    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.compile.build import Build
    from sgraf_deploy.compile.publish import Check, Published
    from sgraf_deploy.engines.trt.library import TensorRT
    from sgraf_deploy.runtime.scorer import Scorer

_COUNT = click.IntRange(min=1)


@click.command("compile", short_help="Compile a bundle's graphs to TensorRT plans.")
@BUNDLE
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Precision of the graphs to compile. By default fp16, or what the bundle has.",
)
@click.option(
    "--max-images",
    type=_COUNT,
    metavar="N",
    default=64,
    show_default=True,
    help="Maximum images per tile.",
)
@click.option(
    "--max-captions",
    type=_COUNT,
    metavar="N",
    default=64,
    show_default=True,
    help="Maximum captions per tile.",
)
@click.option(
    "--max-words",
    type=click.IntRange(min=LEAST_WORDS),
    metavar="N",
    help="Maximum words per caption, <start> and <end> included. By default as many as the longest "
    "caption in --data has, or 40 without --data.",
)
@click.option(
    "--max-candidates",
    type=_COUNT,
    metavar="N",
    default=1000,
    show_default=True,
    help="Maximum candidates per query.",
)
@click.option(
    "--workspace-gb",
    type=FiniteRange(min=0, min_open=True),
    default=4.0,
    metavar="X",
    show_default=True,
    help="Scratch memory that a plan may take when it runs, in GiB.",
)
@ENGINE_DIR
@click.option(
    "--data",
    type=PATH,
    metavar="DIR",
    help="Folder of precomp data. Its longest caption sets --max-words. On a machine with a GPU "
    "the plans must also keep the reference's R@K on it.",
)
@click.option("--split", metavar="NAME", help="Split of --data to compare R@K on.")
@click.option(
    "--limit-images",
    type=int,
    metavar="K",
    help="Compare R@K on the first K images of the split only. By default on all.",
)
@CAPTION_COUNT
@CAPTION_WORDS
def compile_(
    *,
    bundle: Path | str,
    precision: Precision | None,
    max_images: int,
    max_captions: int,
    max_words: int | None,
    max_candidates: int,
    workspace_gb: float,
    engine_dir: Path | None,
    data: Path | None,
    split: str | None,
    limit_images: int | None,
    captions_per_image: int,
    max_caption_words: int | None,
) -> None:
    """Compile a BUNDLE's graphs to TensorRT plans, each with a sidecar that says what it is.

    Where there is a GPU, the plans must pass the gate on it: if they do not give the reference's
    values, none is published. TensorRT for RTX also builds without a GPU; such plans are not
    verified. Which plans are verified is remembered for this user and this kind of GPU, outside
    the bundle.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.compile.build import CompileOptions, list_builds, target
    from sgraf_deploy.compile.profiles import GIB, Sizes
    from sgraf_deploy.compile.publish import publish_plans
    from sgraf_deploy.engines.policy import default_precision
    from sgraf_deploy.engines.trt.library import find_tensorrt

    tensorrt = find_tensorrt()
    built_for = target(tensorrt)
    opened = Bundle.open(bundle)
    check, longest = _read_split(
        opened, data, split, limit_images, captions_per_image, max_caption_words
    )
    built = precision or default_precision("trt", opened.manifest.precisions) or "fp16"
    options = CompileOptions(
        precision=built,
        sizes=Sizes(
            max_images, max_captions, _most_words(max_words, longest) or Sizes.words, max_candidates
        ),
        workspace_bytes=int(workspace_gb * GIB),
        engine_dir=engine_dir,
    )
    echo(f"{opened.path.name} ({opened.manifest.module}), {built}, {tensorrt}")
    _show_target(tensorrt, built_for)
    builds = list_builds(opened, options)
    for line in _scratch_table(builds):
        echo(line)
    with progress_bars() as bars:
        published = publish_plans(opened, builds, tensorrt, options, stage=bars, check=check)
    for line in _plan_table(published):
        echo(line)
    echo(f"wrote {len(published.sidecars)} plans to {published.folder}")
    if published.unverified is not None:
        warn(f"not compared with the reference: {published.unverified.reason}")
        where = "" if engine_dir is None else f" --engine-dir {engine_dir}"
        command = f"bench {bundle} --engine trt:{built} --allow-unverified{where}"
        echo(f"next, on a machine with a GPU: sgraf-deploy {command}")


def _read_split(
    bundle: Bundle,
    data: Path | None,
    split: str | None,
    limit_images: int | None,
    captions_per_image: int,
    max_words: int | None,
) -> tuple[Check | None, int | None]:
    """The check that compares R@K with the literal loop's, and the words of the longest caption.

    All captions of the split count, even if its images are limited. Both are None without a split.
    """
    from sgraf_deploy.data.captions import encode_captions
    from sgraf_deploy.data.precomp import open_precomp
    from sgraf_deploy.data.vocabulary import Vocabulary
    from sgraf_deploy.engines.torch.literal import LiteralLoop, fastest_device
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.evaluation.recall_gate import check_recall
    from sgraf_deploy.evaluation.workload import split_workload
    from sgraf_deploy.runtime.tokens import bundle_tokenizer

    if data is None or split is None:
        if data is not None or split is not None:
            raise InputError("--data and --split", expected="both or neither")
        if limit_images is not None:
            raise InputError("--limit-images", expected="--data DIR beside it", got="none")
        return None, None
    opened = partial(
        open_precomp,
        data,
        split,
        captions_per_image=captions_per_image,
        model=dimensions(bundle),
    )
    workload = split_workload(bundle, opened(limit_images=limit_images), max_words)
    for finding in workload.findings:
        show_finding(finding)
    token_ids = workload.inputs.token_ids
    if limit_images is not None:
        vocabulary = Vocabulary.load(bundle.vocabulary_path())
        tokenizer = bundle_tokenizer(bundle, vocabulary, max_words)
        token_ids, _ = encode_captions(opened().captions, tokenizer, vocabulary)

    def check(scorer: Scorer) -> dict[str, Any]:
        literal = LiteralLoop(bundle, device=fastest_device())
        return check_recall(literal, scorer, workload, tell=show_finding)

    return check, max(map(len, token_ids))


def _most_words(asked: int | None, longest: int | None) -> int | None:
    """The maximum of words per caption: as asked for, or else, and then said, the longest's."""
    if longest is not None and asked is None:
        echo(f"--max-words {longest}: as many as the longest caption of the split has")
        return longest
    if longest is not None and asked is not None and asked < longest:
        warn(f"--max-words {asked}: too few for the split's longest caption, of {longest} words")
    return asked


def _show_target(tensorrt: TensorRT, built_for: str) -> None:
    """Say before the build which GPUs it is for, and warn if this machine's is none of them."""
    from sgraf_deploy.engines.trt.plans import PORTABLE
    from sgraf_deploy.engines.trt.rtx import CAPABILITIES, left_out

    found = ", ".join(CAPABILITIES) if built_for == PORTABLE else built_for
    echo(f"for GPUs of compute capability {found}")
    reason = left_out(tensorrt)
    if reason is not None:
        warn(f"not for the GPU here: {reason}")


def _plan_table(published: Published) -> list[str]:
    """A table of the plans that were built."""
    values = "verified" if published.unverified is None else "not verified"
    rows = []
    for sidecar in published.sidecars:
        layers = ", ".join(f"{count} {kind}" for kind, count in sidecar.layers.items())
        rows.append((sidecar.name, megabytes(sidecar.plan_bytes), layers, values))
    return table(rows, ("plan", "size", "matrix products", "values"), ("size",))


def _scratch_table(builds: list[Build]) -> list[str]:
    """A table of the profiles to build: largest sizes, and about how much scratch memory."""
    rows = []
    for build in builds:
        for use, scratch in zip(build.uses, build.scratch, strict=True):
            sizes = ", ".join(f"{axis} ≤ {size:,}" for axis, size in use.axes.items())
            rows.append((build.name, use.name, sizes, megabytes(scratch)))
    return table(rows, ("graph", "profile", "sizes", "scratch, about"), ("scratch, about",))
