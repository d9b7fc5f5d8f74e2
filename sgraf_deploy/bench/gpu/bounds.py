"""What a GPU must reach, and what of it was: of every bound met, missed or not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sgraf_deploy.bench.gpu.plan import COMPARED, DEFAULT_ENGINES
from sgraf_deploy.bench.gpu.state import Record
from sgraf_deploy.config import MODULES

Met = Literal["met", "missed", "not run"]

TIMES_LITERAL = {"fused": 30.0, "trt": 10.0, "ort-cuda": 10.0}
"""How many times the literal loop an engine must reach, in shards of 100."""

FUSED_PERCENT = 25.0
"""Of the float16 matrix-product rate."""

QUERY_MS, CANDIDATES = 2.0, 1000
"""p99 of one caption against so many images."""

EVALUATION_SECONDS = {"SAF": 15.0, "SGR": 25.0}
"""For 5,000 x 25,000 with R@K, in the memory budget that is fastest."""

MODELS = ("SGR", "SAF", "SGRAF")

NO_STEP = "no such step was run"
_SHARE = "≤ 1 × the bound of the logits"


@dataclass(frozen=True)
class Verdict:
    """Of one bound: what was wanted, what was found, and why nothing was."""

    what: str
    wanted: str
    found: Any
    met: Met
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


class Records:
    """Records of one machine, the latest of each step."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = list({one.step: one for one in records}.values())

    def of(self, kind: str, **fields: Any) -> list[Record]:
        """Those of a kind with these fields; `engine` without a precision stands for any."""
        return [
            one
            for one in self._records
            if one.kind == kind and all(_fits(getattr(one, n), v) for n, v in fields.items())
        ]

    def engines(self, kind: str) -> list[str]:
        """The engines, NAME:PRECISION, of a kind of step."""
        return list(
            dict.fromkeys(one.engine for one in self._records if one.kind == kind and one.engine)
        )


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return value == wanted or value.partition(":")[0] == wanted
    return bool(value == wanted)


def verdicts(records: Records) -> Iterator[Verdict]:
    """Every bound, in the order of the steps."""
    what = "gathered rows and counted ranks on the device"
    yield _by_exit(what, "NumPy's values", records.of("kernels"))
    for module in MODULES:
        for precision in COMPARED:
            yield _fused_values(records, module, precision)
    yield _by_exit("compute-sanitizer, kernels", "no error", _sanitized(records, None))
    for module in MODULES:
        name = f"compute-sanitizer, {module} by fused"
        yield _by_exit(name, "no error", _sanitized(records, module))
    yield from _recall(records)
    yield _portable(records)
    for module in MODULES:
        yield from _speed(records, module)
        yield from _evaluation(records, module)


def _sanitized(records: Records, module: str | None) -> list[Record]:
    return records.of("sanitizer", module=module)


def _fused_values(records: Records, module: str, precision: str) -> Verdict:
    """Logits of the kernels beside float64's; what is found is a share of the bound."""
    what = f"{module} by fused:{precision} against float64"
    found = records.of("fused-values", module=module)
    reports = (found[-1].result or {}).get("fused_values", []) if found else []
    for report in reports:
        if report["precision"] == precision:
            met: Met = "met" if report["met"] else "missed"
            share = report["share_of_bound"]
            return Verdict(what, _SHARE, "not finite" if share is None else share, met)
    reason = _why(found[-1]) if found else NO_STEP
    return Verdict(what, _SHARE, None, "not run", reason)


def _by_exit(what: str, wanted: str, found: list[Record]) -> Verdict:
    """Met where the step ended well, missed where it says so."""
    if not found:
        return Verdict(what, wanted, None, "not run", NO_STEP)
    record = found[-1]
    if record.outcome == "ok":
        return Verdict(what, wanted, "nothing wrong", "met")
    if record.outcome == "missed":
        named = (record.result or {}).get("failed") or list(record.error[-1:])
        return Verdict(what, wanted, named, "missed")
    return Verdict(what, wanted, None, "not run", _why(record))


def _why(record: Record) -> str:
    parts = (record.outcome, record.reason, *record.error[-1:])
    return ": ".join(str(part) for part in parts if part and part != "not run")


def _recall(records: Records) -> Iterator[Verdict]:
    """R@K, ranks and logits of every model by every engine, on real data."""
    from sgraf_deploy.engines.registry import ENGINES

    wanted = "R@K and logits within their bounds"
    expected = [
        f"{name}:{precision}"
        for name in DEFAULT_ENGINES
        for precision in COMPARED
        if precision in ENGINES[name].precisions
    ]
    for engine in dict.fromkeys((*expected, *records.engines("recall"))):
        found = records.of("recall", engine=engine)
        parities = (found[-1].result or {}).get("parity", []) if found else []
        reason = _why(found[-1]) if found else NO_STEP
        reason = "the bundle of the real data has no such model" if parities else reason
        for model in MODELS:
            if model not in [parity["model"] for parity in parities]:
                yield Verdict(f"{model} by {engine} on real data", wanted, None, "not run", reason)
        for parity in parities:
            missed = [bound["name"] for bound in parity["bounds"] if not bound["met"]]
            what = f"{parity['model']} by {engine} on real data"
            yield Verdict(what, wanted, missed or "none missed", "missed" if missed else "met")


def _portable(records: Records) -> Verdict:
    """A question, which is answered either way."""
    what, wanted = "does a portable plan of TensorRT for RTX open here", "an answer"
    found = records.of("portable")
    result = found[-1].result if found else None
    if result is None:
        reason = _why(found[-1]) if found else NO_STEP
        return Verdict(what, wanted, None, "not run", reason)
    answer = "yes" if result["runs"] else "it opens and does not run" if result["opens"] else "no"
    return Verdict(what, wanted, f"{answer} (mask {result['mask']})", "met", result["reason"])


def _speed(records: Records, module: str) -> Iterator[Verdict]:
    for name, times in TIMES_LITERAL.items():
        found = records.of("speed", module=module, engine=name)
        wanted = [(f"≥ {times:g} × the literal loop", _times(times))]
        if name == "fused":
            percent = f"≥ {FUSED_PERCENT:g} % of the float16 product rate"
            wanted.append((percent, _percent))
        wanted.append((f"1 × {CANDIDATES:,}: p99 ≤ {QUERY_MS:g} ms", _query))
        wanted.append(("logits within their bounds", _parity))
        for text, look in wanted:
            yield _of_result(f"{module} by {name}", text, found, look)


Look = Callable[[dict[str, Any]], tuple[Any, bool] | None]
"""Of a report: what it found and whether that is enough; None where it says nothing of it."""


def _of_result(what: str, wanted: str, found: list[Record], look: Look) -> Verdict:
    if not found:
        return Verdict(what, wanted, None, "not run", NO_STEP)
    record = found[-1]
    seen = None if record.result is None else look(record.result)
    if seen is None:
        reason = _why(record) if record.result is None else "the report says nothing of it"
        return Verdict(what, wanted, None, "not run", reason)
    return Verdict(what, wanted, seen[0], "met" if seen[1] else "missed")


def _engine_speed(report: dict[str, Any]) -> dict[str, Any] | None:
    """The engine's own part of a bench of one engine; none where it only imitates a precision."""
    names = list(report["run"]["engines"])
    speeds = report["throughput"]["engines"]
    return next((one for one in speeds if one["engine"] in names), None)


def _times(least: float) -> Look:
    def look(report: dict[str, Any]) -> tuple[Any, bool] | None:
        speed = _engine_speed(report)
        if speed is None:
            return None
        return _ratio(speed, "times_literal", least)

    return look


def _percent(report: dict[str, Any]) -> tuple[Any, bool] | None:
    speed = _engine_speed(report)
    return None if speed is None else _ratio(speed, "percent_of_product_rate", FUSED_PERCENT)


def _ratio(speed: dict[str, Any], name: str, least: float) -> tuple[Any, bool]:
    """A ratio; one that was withheld as unstable has reached nothing."""
    value = speed[name]
    if value is None:
        return speed["withheld"].get(name, "withheld"), False
    return value, value >= least


def _query(report: dict[str, Any]) -> tuple[Any, bool] | None:
    for latency in report["latency"]:
        if latency["candidates"] == CANDIDATES:
            p99 = latency["score_ms"]["p99"]
            return p99, p99 <= QUERY_MS
    return None


def _parity(report: dict[str, Any]) -> tuple[Any, bool]:
    return report["failed"] or "none missed", not report["failed"]


def _evaluation(records: Records, module: str) -> Iterator[Verdict]:
    most = EVALUATION_SECONDS[module]
    for name in TIMES_LITERAL:
        found = records.of("evaluation", module=module, engine=name)
        what, wanted = f"{module} by {name}, 5,000 × 25,000 with R@K", f"≤ {most:g} s"
        results = [one.result for one in found if one.result is not None]
        if not results:
            reason = _why(found[-1]) if found else NO_STEP
            yield Verdict(what, wanted, None, "not run", reason)
            continue
        seconds = {
            one["asked_gib"]: one["seconds"]["score"] or one["seconds"]["first_score"]
            for one in results
        }
        best = min(seconds, key=lambda gib: seconds[gib])
        text = ", ".join(f"{gib} GiB {value:.1f} s" for gib, value in sorted(seconds.items()))
        yield Verdict(what, wanted, text, "met" if seconds[best] <= most else "missed")
