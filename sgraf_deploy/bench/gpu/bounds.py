"""The bounds that a GPU must meet, and for each whether it is met, missed or not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sgraf_deploy.bench.gpu.plan import COMPARED, DEFAULT_ENGINES
from sgraf_deploy.bench.gpu.state import Record
from sgraf_deploy.config import MODULES

Met = Literal["met", "missed", "not run"]

TIMES_LITERAL = {"fused": 30.0, "trt": 10.0, "ort-cuda": 10.0}
"""Engine -> the least speed as a multiple of the literal loop's in shards of 100."""

FUSED_PERCENT = 25.0
"""The least speed of engine fused, in percent of the float16 matrix-product rate."""

QUERY_MS, CANDIDATES = 2.0, 1000
"""The largest p99, in milliseconds, of one caption against this many images."""

EVALUATION_SECONDS = {"SAF": 15.0, "SGR": 25.0}
"""Most seconds for 5,000 x 25,000 with R@K, in the fastest memory budget."""

MODELS = ("SGR", "SAF", "SGRAF")

NO_STEP = "no such step was run"
_SHARE = "≤ 1 × the bound of the logits"


@dataclass(frozen=True)
class Verdict:
    """The result for one bound: the requirement, the measured value, or the reason for none."""

    what: str
    wanted: str
    found: Any
    met: Met
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON object."""
        return asdict(self)


class Records:
    """The records of one machine, the latest of each step."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = list({record.step: record for record in records}.values())

    def of(self, kind: str, **fields: Any) -> list[Record]:
        """The records of a kind with these fields; `engine` without a precision matches any."""
        return [
            record
            for record in self._records
            if record.kind == kind and all(_fits(getattr(record, n), v) for n, v in fields.items())
        ]

    def engines(self, kind: str) -> list[str]:
        """The engines, as NAME:PRECISION, of a kind of step."""
        engines = (record.engine for record in self._records if record.kind == kind)
        return list(dict.fromkeys(engine for engine in engines if engine))


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return value == wanted or value.partition(":")[0] == wanted
    return bool(value == wanted)


def verdicts(records: Records) -> Iterator[Verdict]:
    """The verdict for every bound, in the order of the steps."""
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
    """Logits of the kernels compared with float64; the value is a share of the bound."""
    what = f"{module} by fused:{precision} against float64"
    steps = records.of("fused-values", module=module)
    reports = (steps[-1].result or {}).get("fused_values", []) if steps else []
    for report in reports:
        if report["precision"] == precision:
            met: Met = "met" if report["met"] else "missed"
            share = report["share_of_bound"]
            return Verdict(what, _SHARE, "not finite" if share is None else share, met)
    return Verdict(what, _SHARE, None, "not run", _reason(steps))


def _by_exit(what: str, wanted: str, steps: list[Record]) -> Verdict:
    """Met if the step succeeded, missed if it reports a miss."""
    if not steps:
        return Verdict(what, wanted, None, "not run", NO_STEP)
    record = steps[-1]
    if record.outcome == "ok":
        return Verdict(what, wanted, "nothing wrong", "met")
    if record.outcome == "missed":
        named = (record.result or {}).get("failed") or list(record.error[-1:])
        return Verdict(what, wanted, named, "missed")
    return Verdict(what, wanted, None, "not run", _why(record))


def _reason(steps: list[Record]) -> str:
    """The reason why the latest of these steps has no result."""
    return _why(steps[-1]) if steps else NO_STEP


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
        steps = records.of("recall", engine=engine)
        parities = (steps[-1].result or {}).get("parity", []) if steps else []
        reason = "the bundle of the real data has no such model" if parities else _reason(steps)
        for model in MODELS:
            if model not in [parity["model"] for parity in parities]:
                yield Verdict(f"{model} by {engine} on real data", wanted, None, "not run", reason)
        for parity in parities:
            missed = [bound["name"] for bound in parity["bounds"] if not bound["met"]]
            what = f"{parity['model']} by {engine} on real data"
            yield Verdict(what, wanted, missed or "none missed", "missed" if missed else "met")


def _portable(records: Records) -> Verdict:
    """Whether a portable plan opens; any answer meets the requirement."""
    what, wanted = "does a portable plan of TensorRT for RTX open here", "an answer"
    steps = records.of("portable")
    result = steps[-1].result if steps else None
    if result is None:
        return Verdict(what, wanted, None, "not run", _reason(steps))
    answer = "yes" if result["runs"] else "it opens, but does not run" if result["opens"] else "no"
    return Verdict(what, wanted, f"{answer} (mask {result['mask']})", "met", result["reason"])


def _speed(records: Records, module: str) -> Iterator[Verdict]:
    for name, times in TIMES_LITERAL.items():
        steps = records.of("speed", module=module, engine=name)
        wanted = [(f"≥ {times:g} × the literal loop", _times(times))]
        if name == "fused":
            percent = f"≥ {FUSED_PERCENT:g} % of the float16 product rate"
            wanted.append((percent, _percent))
        wanted.append((f"1 × {CANDIDATES:,}: p99 ≤ {QUERY_MS:g} ms", _query))
        wanted.append(("logits within their bounds", _parity))
        for text, check in wanted:
            yield _of_result(f"{module} by {name}", text, steps, check)


Check = Callable[[dict[str, Any]], tuple[Any, bool] | None]
"""From a report to the measured value and whether it is enough; None if the report lacks it."""


def _of_result(what: str, wanted: str, steps: list[Record], check: Check) -> Verdict:
    if not steps:
        return Verdict(what, wanted, None, "not run", NO_STEP)
    record = steps[-1]
    checked = None if record.result is None else check(record.result)
    if checked is None:
        reason = _why(record) if record.result is None else "the report does not contain it"
        return Verdict(what, wanted, None, "not run", reason)
    value, enough = checked
    return Verdict(what, wanted, value, "met" if enough else "missed")


def _engine_speed(report: dict[str, Any]) -> dict[str, Any] | None:
    """The engine's speed in a bench of one engine; None if it only emulates a precision."""
    names = list(report["run"]["engines"])
    speeds = report["throughput"]["engines"]
    return next((speed for speed in speeds if speed["engine"] in names), None)


def _times(least: float) -> Check:
    def check(report: dict[str, Any]) -> tuple[Any, bool] | None:
        speed = _engine_speed(report)
        if speed is None:
            return None
        return _ratio(speed, "times_literal", least)

    return check


def _percent(report: dict[str, Any]) -> tuple[Any, bool] | None:
    speed = _engine_speed(report)
    return None if speed is None else _ratio(speed, "percent_of_product_rate", FUSED_PERCENT)


def _ratio(speed: dict[str, Any], name: str, least: float) -> tuple[Any, bool]:
    """A ratio, and whether it is large enough; one that was withheld as unstable is not."""
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
        steps = records.of("evaluation", module=module, engine=name)
        what, wanted = f"{module} by {name}, 5,000 × 25,000 with R@K", f"≤ {most:g} s"
        results = [record.result for record in steps if record.result is not None]
        if not results:
            yield Verdict(what, wanted, None, "not run", _reason(steps))
            continue
        seconds = {
            result["asked_gib"]: result["seconds"]["score"] or result["seconds"]["first_score"]
            for result in results
        }
        best = min(seconds, key=lambda gib: seconds[gib])
        text = ", ".join(f"{gib} GiB {value:.1f} s" for gib, value in sorted(seconds.items()))
        yield Verdict(what, wanted, text, "met" if seconds[best] <= most else "missed")
