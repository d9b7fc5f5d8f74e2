"""The best candidates of every query of a split, found and written to a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np

from sgraf_deploy.config import Direction
from sgraf_deploy.data.findings import Tell
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.evaluation.evaluate import check_for
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.files.writer import staged_file
from sgraf_deploy.progress import Stage
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.runtime.top_k import PartialTopK, TopK

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

_TAG = "sgraf-deploy"
_COLUMNS = ("direction", "query", "rank", "candidate", "similarity", "logit")


def best_candidates(
    scorer: Scorer,
    split: PrecompSplit,
    k: int,
    *,
    stage: Stage = lambda name: None,
    tell: Tell = lambda finding: None,
) -> PartialTopK:
    """Score a split, and keep the best `k` candidates of every query; raises as `check_for`.

    What is returned holds all tiles.
    """
    checked = check_for(scorer.bundle, split, scorer.max_words)
    for finding in checked.findings:
        tell(finding)
    images = scorer.encode_images(split.regions, progress=stage("encoding images"))
    captions = scorer.encode_captions(checked.token_ids, progress=stage("encoding captions"))
    return scorer.top_k_tiles(images, captions, k, progress=stage("scoring"))


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best candidates by direction, with the ids of images and captions by their rows."""

    found: Mapping[Direction, TopK]
    images: Sequence[str]
    captions: Sequence[str]

    def sides(self, direction: Direction) -> tuple[Sequence[str], Sequence[str]]:
        """The ids of the queries and of the candidates."""
        both = self.images, self.captions
        return both if direction == "image_to_text" else both[::-1]

    def write(self, path: PathLike) -> None:
        """Write a file in the format that its name ends with; whole or not at all.

        Raises InputError where it cannot be written, and DataError for an id that the format
        cannot hold.
        """
        write = check_format(path, len(self.found))
        with staged_file(path, what="--output") as file:
            write(self, file)


def check_format(path: PathLike, directions: int) -> Callable[[Candidates, BinaryIO], None]:
    """What writes the format that a file's name ends with; InputError for another ending.

    A run of TREC holds one direction.
    """
    ending = Path(path).suffix
    if ending not in _FORMATS:
        raise InputError(f"format of {path}", expected=", ".join(_FORMATS), got=ending or "none")
    if ending == ".trec" and directions != 1:
        hint = "name one with --direction"
        raise InputError(f"directions in {path}", expected=1, got=directions, hint=hint)
    return _FORMATS[ending]


def _write_npz(candidates: Candidates, file: BinaryIO) -> None:
    arrays: dict[str, Any] = {
        "image_ids": np.array(candidates.images),
        "caption_ids": np.array(candidates.captions),
    }
    for direction, best in candidates.found.items():
        arrays[f"{direction}.indices"] = best.indices
        arrays[f"{direction}.similarities"] = best.similarities
        arrays[f"{direction}.logits"] = best.logits
    np.savez(file, allow_pickle=False, **arrays)


def _write_csv(candidates: Candidates, file: BinaryIO) -> None:
    with _Text(file) as text:
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for direction in candidates.found:
            for query, ranked in _ranked(candidates, direction):
                rows.writerows(
                    (direction, query, rank, id_, _digits(similarity), _digits(logit))
                    for rank, (id_, similarity, logit) in enumerate(ranked, 1)
                )


def _write_jsonl(candidates: Candidates, file: BinaryIO) -> None:
    with _Text(file) as text:
        for direction in candidates.found:
            for query, ranked in _ranked(candidates, direction):
                found = [
                    {
                        "id": id_,
                        "similarity": float(_digits(similarity)),
                        "logit": float(_digits(logit)),
                    }
                    for id_, similarity, logit in ranked
                ]
                line = {"direction": direction, "query": query, "candidates": found}
                text.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_trec(candidates: Candidates, file: BinaryIO) -> None:
    """Logits are the scores: similarities of good candidates may all be 1."""
    for ids in (candidates.images, candidates.captions):
        for id_ in ids:
            if not id_ or any(map(str.isspace, id_)):
                expected = "ids without spaces, which separate the columns"
                hint = "write another format, or give the images other names"
                raise DataError("ids in a run of TREC", expected=expected, got=repr(id_), hint=hint)
    with _Text(file) as text:
        for direction in candidates.found:
            for query, ranked in _ranked(candidates, direction):
                text.writelines(
                    f"{query} Q0 {id_} {rank} {_digits(logit)} {_TAG}\n"
                    for rank, (id_, _, logit) in enumerate(ranked, 1)
                )


_FORMATS: dict[str, Callable[[Candidates, BinaryIO], None]] = {
    ".npz": _write_npz,
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".trec": _write_trec,
}


def _ranked(
    candidates: Candidates, direction: Direction
) -> Iterator[tuple[str, Iterator[tuple[str, np.float32, np.float32]]]]:
    """Every query's id, and its candidates' ids, similarities and logits, the best first."""
    best, (queries, others) = candidates.found[direction], candidates.sides(direction)
    for row, query in enumerate(queries):
        ids = (others[index] for index in best.indices[row])
        yield query, zip(ids, best.similarities[row], best.logits[row], strict=True)


def _digits(value: np.float32) -> str:
    """The fewest digits from which the same float32 is read."""
    return np.format_float_positional(value, unique=True, trim="-")


class _Text(io.TextIOWrapper):
    """UTF-8 into a stream, which stays open."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8", newline="", write_through=False)

    def __exit__(self, *error: object) -> None:
        self.flush()
        self.detach()
