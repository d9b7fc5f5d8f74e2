"""Reads what `bench --json` wrote: as much of it as two reports are compared by, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sgraf_deploy.bench.run import SCHEMA_VERSION
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.workload import DataIdentity
from sgraf_deploy.schema import Document, check_version, decode, parse

Part = TypeVar("Part")

DOCUMENT = Document(
    "report", InputError, "measure again with `sgraf-deploy bench --json FILE`", 256 * 2**20
)


@dataclass(frozen=True)
class QueryRanks:
    """The rank of every query's best ground truth, from 1: of each image, and of each caption."""

    image_to_text: tuple[int, ...]
    text_to_image: tuple[int, ...]


@dataclass(frozen=True)
class SavedReport:
    """A report of `bench`, as it was saved.

    `ranks` are by model and then by engine, empty for random inputs; `seconds` of every round are
    by engine and then by scope, the literal loop's first. `timed` is the number of images and of
    captions that they are of.
    """

    path: Path
    bundle_sha256: str
    time: str
    processor: str
    threads: int | None
    devices: Mapping[str, str]
    data: DataIdentity
    ranks: Mapping[str, Mapping[str, QueryRanks]]
    seconds: Mapping[str, Mapping[str, tuple[float, ...]]]
    timed: tuple[int, int]

    @property
    def engines(self) -> tuple[str, ...]:
        """The labels of the engines that were measured, without the literal loop."""
        return tuple(self.devices)


def read_report(path: Path) -> SavedReport:
    """Read a report; InputError, which names the file and the field, for what cannot be used."""
    try:
        content = DOCUMENT.read(path)
    except OSError as error:
        raise InputError(
            f"report {path}", expected="a file that bench --json wrote", got=error.strerror
        ) from error
    try:
        return _report(path, parse(content, DOCUMENT))
    except InputError as error:
        raise error.at(f"report {path}") from error


def _report(path: Path, value: Any) -> SavedReport:
    check_version(value, "schema_version", (SCHEMA_VERSION,), DOCUMENT)
    run, throughput = (_part(value, name, dict[str, Any]) for name in ("run", "throughput"))
    engines = _part(run, "engines", dict[str, dict[str, Any]])
    timings = _part(throughput, "engines", tuple[dict[str, Any], ...])
    report = SavedReport(
        path=path,
        bundle_sha256=_part(run, "bundle_sha256", str),
        time=_part(run, "time", str),
        processor=_part(run, "processor", str),
        threads=_part(run, "threads", int | None),
        devices={label: _part(engine, "device", str) for label, engine in engines.items()},
        data=_part(run, "data", DataIdentity),
        ranks=_part(value, "ranks", dict[str, dict[str, QueryRanks]]),
        seconds={_part(one, "engine", str): _seconds(one) for one in timings},
        timed=(_part(throughput, "images", int), _part(throughput, "captions", int)),
    )
    _check_counts(report)
    return report


def _seconds(engine: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    scopes = _part(engine, "seconds", dict[str, dict[str, Any]])
    return {scope: _part(one, "seconds", tuple[float, ...]) for scope, one in scopes.items()}


def _check_counts(report: SavedReport) -> None:
    """There is a rank for every query, and as many rounds of everything, each longer than zero."""
    data = report.data
    for model, by_engine in report.ranks.items():
        for engine, ranks in by_engine.items():
            found = len(ranks.image_to_text), len(ranks.text_to_image)
            if found != (data.images, data.captions):
                raise DOCUMENT.wrong(
                    f"ranks.{model}.{engine}", f"{data.images} and {data.captions} ranks", found
                )
            if min(*ranks.image_to_text, *ranks.text_to_image) < 1:
                raise DOCUMENT.wrong(f"ranks.{model}.{engine}", "ranks from 1", "less")
    rounds = {len(seconds) for scopes in report.seconds.values() for seconds in scopes.values()}
    if len(rounds) > 1:
        raise DOCUMENT.wrong("throughput.engines", "as many rounds of each", sorted(rounds))
    for engine, scopes in report.seconds.items():
        for scope, seconds in scopes.items():
            if not seconds or min(seconds) <= 0:
                where = f"throughput.engines.{engine}.seconds.{scope}"
                raise DOCUMENT.wrong(where, "seconds above 0", list(seconds))


def _part(value: Mapping[str, Any], name: str, kind: type[Part] | Any) -> Any:
    """A field of an object, of exactly that type."""
    if name not in value:
        raise DOCUMENT.missing(name)
    try:
        return decode(kind, value[name], DOCUMENT)
    except InputError as error:
        raise error.at(name) from error
