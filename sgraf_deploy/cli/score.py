"""`sgraf-deploy score`: the best candidates of every query of a split, without the matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sgraf_deploy.cli.common import (
    BUNDLE,
    NO_PRUNE,
    PATH,
    check_result_file,
    count,
    data_options,
    describe_scorer,
    gathered,
    load_scorer,
    scorer_options,
    show_finding,
)
from sgraf_deploy.cli.ray_options import (
    SharingOptions,
    bundle_address,
    scorer_settings,
    sharing_options,
    show_progressed,
)
from sgraf_deploy.cli.shares import shares_line
from sgraf_deploy.cli.terminal import echo, progress_bars

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.distributed.parts import Request
    from sgraf_deploy.runtime.top_k import PartialTopK


@click.command(short_help="Write the best candidates of every query of a split to a file.")
@BUNDLE
@data_options
@click.option(
    "--top-k",
    "k",
    type=click.IntRange(min=1),
    required=True,
    metavar="K",
    help="Number of candidates of each query, the best first.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    metavar="FILE",
    help="File to write, in the format that its name ends with: .npz (rows, similarities and "
    "logits as arrays), .jsonl, .csv, or .trec (a run, of one direction, for trec_eval and the "
    "like).",
)
@click.option(
    "--direction",
    type=click.Choice(["both", "image_to_text", "text_to_image"]),
    default="both",
    show_default=True,
    help="What the queries are: images, whose candidates are captions, or captions, whose "
    "candidates are images.",
)
@sharing_options
@scorer_options
@NO_PRUNE
@gathered(SharingOptions, "sharing")
def score(
    *,
    bundle: Path | str,
    data: Path,
    split: str,
    limit_images: int | None,
    captions_per_image: int,
    k: int,
    output: Path,
    direction: Literal["both", "image_to_text", "text_to_image"],
    sharing: SharingOptions,
    **scorer_arguments: Any,
) -> None:
    """Write the best K candidates of every query of a split to a file.

    Pairs are scored tile by tile, and no matrix is held. Costly members of an ensemble are left out
    of pairs that cannot be among the best K of their image or of their caption. Equal candidates
    are in the order of the split. Images have the names in SPLIT_ids.txt, or else their rows,
    counted from 0; captions have the numbers of their lines, counted from 1.
    """
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.distributed.parts import Request, SplitSource
    from sgraf_deploy.evaluation.candidates import DIRECTIONS, Candidates, check_format
    from sgraf_deploy.evaluation.evaluate import scored_shares
    from sgraf_deploy.gallery.splits import given_ids, image_ids

    wanted = DIRECTIONS if direction == "both" else (direction,)
    check_result_file(output, "--output")
    check_format(output, len(wanted))
    sharing.check()
    opened = Bundle.open(bundle)
    source = SplitSource(data, split, captions_per_image, limit_images)
    chosen = source.open(opened)
    images = image_ids(data, chosen)
    captions = given_ids(None, len(chosen.captions), "captions", first=1)
    sizes = count(chosen.images, "image"), count(len(captions), "caption")
    echo(f"split {split} of {data}: {sizes[0]} × {sizes[1]}")
    if sharing.job is None:
        found = _here(opened, chosen, k, scorer_arguments)
    else:
        settings = scorer_settings(sharing, **scorer_arguments)
        request = Request(bundle_address(bundle), source.absolute(), settings, k)
        found = _shared(sharing, request)
    if len(found.scored) > 1:
        echo(shares_line(scored_shares(found.scored), f"be among the best {k}"))
    every = found.result()
    best = {each: every[each] for each in wanted}
    Candidates(best, images, captions).write(output)
    echo(f"wrote {output}")


def _here(
    bundle: Bundle, split: PrecompSplit, k: int, scorer_arguments: dict[str, Any]
) -> PartialTopK:
    from sgraf_deploy.evaluation.candidates import best_candidates

    with load_scorer(bundle, **scorer_arguments) as scorer, progress_bars() as bars:
        echo(describe_scorer(scorer))
        return best_candidates(scorer, split, k, stage=bars, tell=show_finding)


def _shared(sharing: SharingOptions, request: Request) -> PartialTopK:
    from sgraf_deploy.distributed.offline import Hooks, find_best

    with sharing.open_job(request) as (runner, job), progress_bars() as bars:
        found, progressed = find_best(runner, job, Hooks(stage=bars, tell=show_finding))
    show_progressed(progressed, job)
    return found
