"""What `sgraf-deploy bench` prints: accuracy, parity, speed, latency and memory, in tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sgraf_deploy.cli.common import megabytes
from sgraf_deploy.cli.terminal import table

if TYPE_CHECKING:
    from sgraf_deploy.bench.latency import Latency
    from sgraf_deploy.bench.measure import Ratio
    from sgraf_deploy.bench.run import BenchReport
    from sgraf_deploy.evaluation.parity import Parity

_RECALLS = ("R@1", "R@5", "R@10")


def report_lines(report: BenchReport) -> Iterator[str]:
    """The report as text: accuracy, parity, speed, latency, memory."""
    yield f"on {report.run['processor']}, {report.run['threads']} threads"
    yield f"literal loop: {report.yardstick}"
    yield ""
    if any(report.reference.values()):
        yield "R@K in percent; differences from the literal loop in brackets"
        yield from recall_table(report)
        yield ""
    yield from parity_lines(report)
    yield ""
    yield from speed_lines(report)
    yield ""
    yield from latency_lines(report)
    yield from withheld_lines(
        [ratio for speed in report.throughput.speeds for ratio in speed.ratios.values()]
        + [ratio for latency in report.latency for ratio in latency.ratios.values()]
    )
    if report.memory.peak is not None:
        yield f"peak memory of this process: {megabytes(report.memory.peak)}"
    for engine, sizes in report.device_memory.items():
        if sizes:
            parts = ", ".join(f"{name} {megabytes(size)}" for name, size in sizes.items())
            yield f"memory on the device, engine {engine}: {parts}"


def withheld_lines(ratios: Iterable[Ratio]) -> Iterator[str]:
    """The meaning of `unstable`, if a table shows it."""
    from sgraf_deploy.bench.measure import UNSTABLE_RATIO, WITHHELD

    if any(ratio.withheld for ratio in ratios):
        yield (
            f"{WITHHELD}: the rounds of this ratio scatter over more than "
            f"{100 * UNSTABLE_RATIO:.0f} % of it; use more --repeats and --queries, on a quiet "
            "machine"
        )


def recall_table(report: BenchReport) -> list[str]:
    """R@K of every model by every engine."""
    rows = []
    for model, reference in report.reference.items():
        if reference is None:
            continue
        rows.append((model, "literal loop", *_recalls(reference, None)))
        for engine, parities in report.parity.items():
            for parity in parities:
                if parity.model == model and parity.recall is not None:
                    rows.append((model, engine, *_recalls(parity.recall, parity.deltas)))
    directions = [f"{arrow} {name}" for arrow in ("i→t", "t→i") for name in _RECALLS]
    return table(rows, ("model", "engine", *directions, "rsum"), (*directions, "rsum"))


def _recalls(report: Any, deltas: dict[str, float] | None) -> list[str]:
    values = {
        f"{arrow} {name}": getattr(side, f"r{name[2:]}")
        for arrow, side in (("i→t", report.image_to_text), ("t→i", report.text_to_image))
        for name in _RECALLS
    } | {"rsum": report.rsum}
    changes = {name: (deltas or {}).get(name, 0.0) for name in values}
    return [
        f"{value:.2f}" + (f" ({changes[name]:+.2f})" if abs(changes[name]) > 1e-9 else "")
        for name, value in values.items()
    ]


def parity_lines(report: BenchReport) -> Iterator[str]:
    """The differences between the logits and the literal loop's, and the bounds."""
    ranked = any(report.reference.values())
    rows = [
        (engine, *_parity_row(parity, ranked=ranked))
        for engine, parities in report.parity.items()
        for parity in parities
    ]
    numbers = ["largest", "mean", "of std", "Spearman", *(["ranks changed"] if ranked else [])]
    yield "difference of logits from the literal loop's, in float32"
    yield from table(rows, ("engine", "model", *numbers, "bounds"), numbers)


def _parity_row(parity: Parity, *, ranked: bool) -> tuple[str, ...]:
    share = parity.largest / parity.deviation if parity.deviation else float("nan")
    changed = [f"{len(parity.ranks.changes):,}"] if ranked and parity.ranks else []
    verdict = "MISSED: " + ", ".join(map(str, parity.missed)) if parity.missed else "met"
    return (
        *(parity.model, f"{parity.largest:.1e}", f"{parity.mean:.1e}", f"{100 * share:.3g} %"),
        *(f"{parity.spearman:.6f}", *changed, verdict),
    )


def speed_lines(report: BenchReport) -> Iterator[str]:
    """Throughput by scope."""
    throughput = report.throughput
    rows = []
    for speed in throughput.speeds:
        share = speed.percent_of_product_rate
        rows.append(
            (
                speed.engine,
                *(f"{rate:,.0f}" for rate in speed.rates.values()),
                speed.times_literal.shown(),
                "" if share is None else share.shown(".0f", " %"),
            )
        )
    yield (
        f"throughput, medians of {report.run['repeats']} interleaved rounds on {throughput.images} "
        f"images × {throughput.captions} captions; matrix products of "
        f"{throughput.product_library}: {throughput.product_rate / 1e9:,.0f} GFLOP/s "
        f"({throughput.product_dtype})"
    )
    units = ("images/s", "captions/s", "pairs/s scored", "pairs/s end to end", "× literal")
    yield from table(rows, ("engine", *units, "of product rate"), (*units, "of product rate"))


def latency_lines(report: BenchReport) -> Iterator[str]:
    """Milliseconds of one caption against galleries of several sizes."""
    rows = [
        (
            *(latency.engine, f"{latency.candidates:,}"),
            *(*_percentiles(latency.score), *_percentiles(latency.end_to_end), _coldest(latency)),
            *(
                ratio.shown()
                for ratio in (latency.times_floor, latency.times_literal, latency.tail)
            ),
        )
        for latency in report.latency
    ]
    if not rows:
        return
    numbers = [f"{scope}{percent}" for scope in ("p", "e2e p") for percent in (50, 95, 99)]
    numbers += ["first", "× floor", "× literal", "tail"]
    yield (
        "latency in ms of one caption against encoded images: p for scoring alone, e2e from the "
        "caption's token ids;"
    )
    yield (
        "× floor: p50 over the time of the arithmetic at the rate of the matrix products; "
        "tail: p99/p50 over that of a matrix product of the same size, measured in between; "
        "first: the longest of the first queries of each length, which the percentiles leave out"
    )
    yield from table(rows, ("engine", "images", *numbers), ("images", *numbers))


def _coldest(latency: Latency) -> str:
    seconds = [max(timing.seconds) for timing in latency.cold.values()]
    return f"{1e3 * max(seconds):.2f}" if seconds else ""


def _percentiles(timing: Any) -> list[str]:
    return [f"{1e3 * timing.percentile(percent):.2f}" for percent in (50, 95, 99)]
