"""The figures of the steps, one line each: rates, latencies, seconds, kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sgraf_deploy.bench.gpu.bounds import CANDIDATES
from sgraf_deploy.bench.gpu.state import Record


def figures(records: Iterable[Record]) -> Iterator[tuple[str, str]]:
    """The name and the figures of every step that measures something."""
    for record in records:
        lines = _LINES.get(record.kind)
        if lines is not None and record.result is not None:
            yield record.step, "; ".join(lines(record.result))


def _speed(report: dict[str, Any]) -> Iterator[str]:
    for speed in report["throughput"]["engines"]:
        text = f"{speed['engine']} {speed['per_second']['score']:,.0f} pairs/s"
        if speed["percent_of_product_rate"] is not None:
            text += f" ({speed['percent_of_product_rate']:.1f} % of products)"
        if speed["times_literal"] is not None and speed["engine"] in report["run"]["engines"]:
            text += f" = {speed['times_literal']:.1f} × literal"
        yield text
    for latency in report["latency"]:
        if latency["candidates"] == CANDIDATES:
            score, cold = latency["score_ms"], latency["cold_ms"].get("score")
            first = "" if cold is None else f", first of a length {cold['largest']:.1f} at most"
            yield f"1 × {CANDIDATES:,}: p50 {score['p50']:.2f}, p99 {score['p99']:.2f} ms{first}"


def _evaluation(report: dict[str, Any]) -> Iterator[str]:
    seconds, gib = report["seconds"], report["memory_budget"] / 2**30
    size = f"{report['images']:,} × {report['captions']:,}"
    yield f"{size} in {report['tiles']:,} tiles of at most {gib:g} GiB"
    warm = "" if seconds["score"] is None else f", again {seconds['score']:.2f}"
    yield f"encoded in {seconds['encode']:.2f} s, ranked in {seconds['first_score']:.2f}{warm}"


def _profile(report: dict[str, Any]) -> Iterator[str]:
    for kernel in report["kernels"][:2]:
        yield f"{kernel['name']}: {100 * kernel['share']:.0f} %, {kernel['us_each']:,.1f} µs each"


def _reference(report: dict[str, Any]) -> Iterator[str]:
    for model, recall in report["recall"].items():
        yield f"{model} rsum {recall['rsum']:.1f}"
    yield f"{report['images']:,} × {report['captions']:,} in {report['seconds']:.1f} s"


_LINES: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "reference": _reference,
    "speed": _speed,
    "evaluation": _evaluation,
    "profile": _profile,
}
