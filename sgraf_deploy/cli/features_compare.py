"""What `sgraf-deploy features --compare` prints: how alike features are, and their R@K."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgraf_deploy.cli.common import count, describe_scorer, dimensions, show_finding
from sgraf_deploy.cli.terminal import echo, progress_bars, table

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.data.findings import Finding
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.evaluation.recall import RecallReport
    from sgraf_deploy.features.compare import Likeness, Side
    from sgraf_deploy.progress import Stage

_RANKS = ("R@1", "R@5", "R@10")


@dataclass(frozen=True)
class Compared:
    """The options of a comparison."""

    other: Path | None
    json_file: Path | None
    captions_per_image: int


def compare_folders(
    folder: Path, other: Path, split: str, bundle: Bundle | None, options: Compared
) -> None:
    """Compare a folder's features with another's, print what was found, and write it."""
    from sgraf_deploy.features.compare import Side, compare_features
    from sgraf_deploy.files.writer import write_json

    per_image = options.captions_per_image
    sides = Side.open(folder, split, per_image), Side.open(other, split, per_image)
    with progress_bars() as bars:
        likeness = compare_features(*sides, bars("comparing"))
        for line in _lines(likeness, folder, other):
            echo(line)
        reports = None if bundle is None else _recall(sides, bundle, bars)
    for line in _recall_lines(reports, (folder, other)) if reports else ():
        echo(line)
    if options.json_file is not None:
        recall = None if reports is None else [_to_json(each) for each in reports]
        found = {"features": likeness.to_json(), "recall": recall}
        write_json(options.json_file, found, what="--json")
        echo(f"wrote {options.json_file}")


def _lines(found: Likeness, first: Path, second: Path) -> Iterator[str]:
    by = "id" if found.images_by == "ids" else "row"
    alone = [
        f"{number:,} only in {folder}"
        for number, folder in ((found.only_first, first), (found.only_second, second))
        if number
    ]
    both = f"{count(found.images, 'photograph')} in both {first} and {second}, matched by {by}"
    yield "; ".join([both, *alone])
    yield f"{count(found.regions, 'region')}, matched by {found.regions_by}"
    name, region = found.lowest_at
    yield (
        f"cosine: {found.mean:.5f} on average, {found.lowest:.5f} at the lowest ({name}, region "
        f"{region}); {found.close:.2%} of the regions have 0.999 or more"
    )
    yield f"elements that are the same: {found.equal:.2%}"
    if found.moved is not None:
        yield f"boxes that moved (intersection over union below 0.9): {found.moved:.2%}"


def _recall(
    sides: tuple[Side, Side], bundle: Bundle, stage: Stage
) -> list[dict[str, RecallReport]] | None:
    """R@K of both sides' features by model, on the photographs of both; None without captions."""
    import numpy as np

    from sgraf_deploy.data.split_files import CAPTIONS
    from sgraf_deploy.evaluation.evaluate import evaluate_split
    from sgraf_deploy.features.compare import match_images
    from sgraf_deploy.runtime.scorer import load

    matched = match_images(*sides)
    rows = matched.first, matched.second
    split = sides[0].split.name
    captioned = [
        number for number, side in enumerate(sides) if (side.folder / f"{split}{CAPTIONS}").exists()
    ]
    if not captioned:
        echo(f"note: R@K is not measured: there is no {split}{CAPTIONS}")
        return None
    texts = _captions(sides[captioned[0]], rows[captioned[0]], bundle)
    reports = []
    told: set[str] = set()

    def tell(finding: Finding) -> None:
        if finding.message not in told:
            show_finding(finding)
        told.add(finding.message)

    with load(bundle) as scorer:
        echo(describe_scorer(scorer))
        for side, chosen in zip(sides, rows, strict=True):
            regions = side.split.regions
            if not np.array_equal(chosen, np.arange(len(regions))):
                regions = regions[chosen]
            measured = replace(texts, regions=regions)
            reports.append(evaluate_split(scorer, measured, stage=stage, tell=tell).reports)
    return reports


def _captions(side: Side, rows: Any, bundle: Bundle) -> PrecompSplit:
    """A split of the captions of some images of a side, whose features are to be replaced."""
    import numpy as np

    from sgraf_deploy.data.precomp import open_precomp

    per_image = side.split.captions_per_image
    whole = open_precomp(
        side.folder, side.split.name, captions_per_image=per_image, model=dimensions(bundle)
    )
    captions = [
        whole.captions[row * per_image + place] for row in rows for place in range(per_image)
    ]
    image_of = np.arange(len(captions), dtype=np.int32) // np.int32(per_image)
    return replace(whole, captions=captions, image_of_caption=image_of, ids=None)


def _recall_lines(reports: list[dict[str, RecallReport]], folders: tuple[Path, Path]) -> list[str]:
    """R@K of both sides and what the first has more than the second, in points."""
    import numpy as np

    rows: list[list[str]] = []
    for model in reports[0]:
        numbers = [np.array(_numbers(each[model])) for each in reports]
        named = zip(
            (*map(str, folders), "change"), (*numbers, numbers[0] - numbers[1]), strict=True
        )
        for name, values in named:
            sign = "+" if name == "change" else ""
            rows.append([model if len(rows) % 3 == 0 else "", name, *_cells(values, sign)])
    headers = ["model", "features", *(f"{way} {rank}" for way in ("i→t", "t→i") for rank in _RANKS)]
    return table(rows, [*headers, "rsum"], right=[*headers[2:], "rsum"])


def _cells(values: Any, sign: str) -> list[str]:
    return [f"{value:{sign}.2f}" for value in values]


def _numbers(report: RecallReport) -> list[float]:
    ways = (report.image_to_text, report.text_to_image)
    return [*(number for way in ways for number in (way.r1, way.r5, way.r10)), report.rsum]


def _to_json(reports: dict[str, RecallReport]) -> dict[str, Any]:
    return {model: report.to_json() for model, report in reports.items()}
