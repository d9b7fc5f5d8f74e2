"""Reads what `bench --json` wrote: as much of it as two reports are compared by, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.bench.run import SCHEMA_VERSION
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.workload import LITERAL, DataIdentity
from sgraf_deploy.schema import Document, Excerpt, check_version, decode, parse

DOCUMENT = Document(
    "report", InputError, "measure again with `sgraf-deploy bench --json FILE`", 256 * 2**20
)

SCOPES = ("score", "end to end")
"""The timed scopes that are compared: encoding alone is in the second."""


@dataclass(frozen=True)
class QueryRanks:
    """The rank of every query's best ground truth, from 1: of each image, and of each caption."""

    image_to_text: tuple[int, ...]
    text_to_image: tuple[int, ...]


@dataclass(frozen=True)
class MeasuredEngine(Excerpt):
    """Where an engine ran."""

    device: str


@dataclass(frozen=True)
class Run(Excerpt):
    """What was measured, on what, and by which engines, by their labels."""

    bundle_sha256: str
    time: str
    processor: str
    threads: int | None
    engines: Mapping[str, MeasuredEngine]
    data: DataIdentity


@dataclass(frozen=True)
class Rounds(Excerpt):
    """The seconds of every round."""

    seconds: tuple[float, ...]


@dataclass(frozen=True)
class TimedEngine(Excerpt):
    """The rounds of an engine, or of the literal loop, by scope."""

    engine: str
    seconds: Mapping[str, Rounds]


@dataclass(frozen=True)
class Throughput(Excerpt):
    """How many images and captions were timed, and the rounds."""

    images: int
    captions: int
    engines: tuple[TimedEngine, ...]


@dataclass(frozen=True)
class SavedReport(Excerpt):
    """A report of `bench`, as it was saved; `ranks` by model and engine, empty for random inputs.

    Raises InputError unless there is a rank for every query, and as many rounds of everything.
    """

    run: Run
    ranks: Mapping[str, Mapping[str, QueryRanks]]
    throughput: Throughput

    def __post_init__(self) -> None:
        _check_ranks(self.ranks, self.run)
        _check_rounds(self.throughput)

    @property
    def seconds(self) -> dict[str, dict[str, tuple[float, ...]]]:
        """The seconds of every round by engine and scope, those of the literal loop too."""
        return {
            one.engine: {scope: rounds.seconds for scope, rounds in one.seconds.items()}
            for one in self.throughput.engines
        }


def read_report(path: Path) -> SavedReport:
    """Read a report; InputError, which names the file and the field, for what cannot be used."""
    try:
        content = DOCUMENT.read(path)
    except OSError as error:
        raise InputError(
            f"report {path}", expected="a file that bench --json wrote", got=error.strerror
        ) from error
    try:
        value = parse(content, DOCUMENT)
        check_version(value, "schema_version", (SCHEMA_VERSION,), DOCUMENT)
        return decode(SavedReport, value, DOCUMENT)
    except InputError as error:
        raise error.at(f"report {path}") from error


def _check_ranks(ranks: Mapping[str, Mapping[str, QueryRanks]], run: Run) -> None:
    data = run.data
    if ranks and (data.images < 1 or data.captions % data.images):
        raise DOCUMENT.wrong("run.data.captions", f"a multiple of {data.images}", data.captions)
    for model, by_engine in ranks.items():
        for engine in (LITERAL, *run.engines):
            if engine not in by_engine:
                raise DOCUMENT.missing(f"ranks.{model}.{engine}")
        for engine, one in by_engine.items():
            found = len(one.image_to_text), len(one.text_to_image)
            where = f"ranks.{model}.{engine}"
            if found != (data.images, data.captions):
                raise DOCUMENT.wrong(where, f"{data.images} and {data.captions} ranks", found)
            if min(*one.image_to_text, *one.text_to_image) < 1:
                raise DOCUMENT.wrong(where, "ranks from 1", "less")


def _check_rounds(throughput: Throughput) -> None:
    """The literal loop is among what was timed, and each has as many rounds of both scopes."""
    if LITERAL not in (one.engine for one in throughput.engines):
        raise DOCUMENT.missing(f"throughput.engines.{LITERAL}")
    counts = set()
    for one in throughput.engines:
        where = f"throughput.engines.{one.engine}.seconds"
        for scope in SCOPES:
            if scope not in one.seconds:
                raise DOCUMENT.missing(f"{where}.{scope}")
        for scope, rounds in one.seconds.items():
            if not rounds.seconds or min(rounds.seconds) <= 0:
                got = list(rounds.seconds)
                raise DOCUMENT.wrong(f"{where}.{scope}", "seconds above 0", got)
            counts.add(len(rounds.seconds))
    if len(counts) > 1:
        raise DOCUMENT.wrong("throughput.engines", "as many rounds of each", sorted(counts))
