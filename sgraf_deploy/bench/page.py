"""A report of `bench` or `eval` as one HTML file: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sgraf_deploy.bench.changes import mean_intervals
from sgraf_deploy.bench.figures import FIGURES, recall_by_image
from sgraf_deploy.bench.picture import comparison_svg
from sgraf_deploy.bench.published import NAMES, Dataset, published
from sgraf_deploy.bench.rounds import rounds_svg
from sgraf_deploy.evaluation.workload import LITERAL
from sgraf_deploy.html import document, escape, facts, paragraph, section, table

MOST_CHANGES = 20
"""How many changed ranks are listed of an engine and a model."""

ALPHA = 0.05

Ranked = Mapping[str, Mapping[str, Mapping[str, Sequence[int]]]]
"""Ranks from 1 (see `Ranks.to_json`) by model, and then by what computed them."""


def bench_page(report: Mapping[str, Any], dataset: Dataset | None = None) -> str:
    """The page of `BenchReport.to_json()`.

    `dataset` says that the data are those of the paper, whose figures then stand beside.
    """
    run, failed = report["run"], report["failed"]
    verdict = (
        paragraph(f"Missed: {'; '.join(failed)}", "verdict bad")
        if failed
        else paragraph("Every engine is within every bound.", "verdict good")
    )
    title = f"{run['module']}: engines beside the PyTorch reference"
    return document(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            verdict,
            paragraph(f"{run['workload']}; {run['processor']}, {run['threads']} threads", "soft"),
            *_warnings(report["warnings"]),
            comparison_svg(report),
            *_recall(report["ranks"], _paper(dataset, run["data"]["images"])),
            *_parity(report),
            *_speed(report),
            *section("Of what, by what", facts(_facts(report))),
        ],
    )


def eval_page(report: Mapping[str, Any], ranks: Ranked, dataset: Dataset | None = None) -> str:
    """The page of `Evaluation.to_json()` and of its ranks by model and engine."""
    run = report["run"]
    last = report["reports"][list(report["reports"])[-1]]
    found = (
        f"R@1 {last['image_to_text']['r1']:.2f} from image to text, "
        f"{last['text_to_image']['r1']:.2f} from text to image, rsum {last['rsum']:.2f}"
    )
    sizes = f"{run['images']:,} images × {run['captions']:,} captions"
    title = f"{run['module']} on split {run['split']}"
    return document(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            paragraph(found, "verdict"),
            paragraph(f"{sizes}; engine {run['engine']}, {run['executed']}", "soft"),
            *_warnings(report["warnings"]),
            *_recall(ranks, _paper(dataset, run["images"])),
            *section("Of what, by what", facts(_plain(run))),
        ],
    )


def _warnings(messages: Sequence[str]) -> Iterator[str]:
    for message in messages:
        yield paragraph(f"Warning: {message}", "bad")


def _paper(dataset: Dataset | None, images: int) -> list[tuple[object, ...]]:
    """Rows of the paper's figures, where the data are said to be its."""
    if dataset is None:
        return []
    return [
        (
            "SGRAF",
            f"the paper, {NAMES[dataset]}, {of}",
            *(f"{x:.1f}" for x in figures),
            f"{rsum:.1f}",
        )
        for of, figures in published(dataset, images).items()
        for rsum in (sum(figures),)
    ]


def _recall(ranks: Ranked, paper: Sequence[tuple[object, ...]]) -> Iterator[str]:
    """R@K with an interval of every figure; nothing for random inputs."""
    if not ranks:
        return
    rows = [
        (model, engine, *_with_intervals(one))
        for model, by_engine in ranks.items()
        for engine, one in by_engine.items()
    ]
    told = (
        "Percent. Below each figure the middle 95 % of a bootstrap over images, each with all its "
        "captions: how far it would move on other images of the same kind."
    )
    columns = ("model", "engine", *FIGURES)
    yield from section("R@K", table(columns, [*rows, *paper], numbers=FIGURES, caption=told))


def _with_intervals(ranks: Mapping[str, Sequence[int]]) -> list[tuple[str, str]]:
    values = recall_by_image(ranks["image_to_text"], ranks["text_to_image"])
    ends = mean_intervals(values, ALPHA)
    return [
        (f"{mean:.2f}", f"{low:.1f} – {high:.1f}")
        for mean, (low, high) in zip(values.mean(axis=0), ends, strict=True)
    ]


def _parity(report: Mapping[str, Any]) -> Iterator[str]:
    """The differences from the reference beside their bounds, and the ranks that they changed."""
    rows, changed = [], []
    for engine, parities in report["parity"].items():
        for parity in parities:
            bounds = "; ".join(_bound(bound) for bound in parity["bounds"])
            found = parity["ranks"]["changes"] if parity["ranks"] else []
            rows.append((engine, parity["model"], f"{parity['largest']:.1e}", len(found), bounds))
            changed += [(engine, parity["model"], *_change(one)) for one in found[:MOST_CHANGES]]
    columns = ("engine", "model", "largest difference of logits", "changed ranks", "bounds")
    numbers = columns[2:4]
    yield from section(
        "Beside the reference", table(columns, rows, numbers=numbers, long=columns[4:])
    )
    if changed:
        what = ("query", "rank", "reference's", "gap")
        told = f"Changed ranks, at most {MOST_CHANGES} of each; counted from 1, queries from 0."
        head = ("engine", "model", "direction", *what, "explained")
        yield from table(head, changed, numbers=what, caption=told)


def _bound(bound: Mapping[str, Any]) -> str:
    value = "not a number" if bound["value"] is None else f"{bound['value']:.2g}"
    relation = ("≥" if bound["met"] else "<") if bound["least"] else ("≤" if bound["met"] else ">")
    return f"{bound['name']} {value} {relation} {bound['limit']:.2g}"


def _change(change: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        change["direction"].replace("_to_", " → "),
        change["query"],
        change["rank"] + 1,
        change["reference_rank"] + 1,
        f"{change['gap']:.1e}",
        "yes" if change["explained"] else "no",
    )


def _speed(report: Mapping[str, Any]) -> Iterator[str]:
    """Rates and ratios, and every round."""
    throughput = report["throughput"]
    rows = []
    for one in throughput["engines"]:
        rates = (f"{one['per_second'][scope]:,.0f}" for scope in one["per_second"])
        times, share = one["times_literal"], one["percent_of_product_rate"]
        rows.append(
            (
                *(one["engine"], *rates),
                "unstable" if times is None else f"{times:.2f} ×",
                "" if share is None else f"{share:.0f} %",
            )
        )
    columns = (
        *("engine", "images/s", "captions/s", "pairs/s scored", "pairs/s end to end"),
        *("literal loops", "of product rate"),
    )
    told = (
        f"Medians of {report['run']['repeats']} rounds on {throughput['images']} images × "
        f"{throughput['captions']} captions. Each round runs, in turn: "
        f"{', '.join(throughput['order'])}."
    )
    yield from section("Speed", table(columns, rows, numbers=columns[1:], caption=told))
    yield rounds_svg(throughput)


def _facts(report: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    run = report["run"]
    skipped = {"versions", "data", "engines", "workload"}
    yield from _plain({name: value for name, value in run.items() if name not in skipped})
    for name, value in run["data"].items():
        yield name.replace("_", " "), "none" if value is None else value
    for label, engine in run["engines"].items():
        yield label, ", ".join(str(value) for value in engine.values())
    yardstick = report["yardstick"]
    yield LITERAL, f"{yardstick['dtype']}, TF32 {'on' if yardstick['tf32'] else 'off'}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    if "command" in report:
        yield "command", report["command"]


def _plain(run: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """A run's facts by their names in words."""
    for name, value in run.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {item}" for key, item in value.items())
        yield name.replace("_", " "), "none" if shown is None else shown
