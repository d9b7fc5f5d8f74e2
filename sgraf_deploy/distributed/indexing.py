"""Encodes a split into a gallery of shards, each a gallery of its own with one writer.

    OUTPUT/shards.json       how many shards there are
    OUTPUT/part-0.gallery …  the shards, in their order: those of `serve --ray`

An id is in the shard that `shard_of` says. A shard goes on after its last batch, as any gallery.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.findings import Finding, Tell
from sgraf_deploy.distributed.actors import Runner
from sgraf_deploy.distributed.parts import ScorerSettings
from sgraf_deploy.distributed.shards import shard_of
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.disk import os_errors
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.gallery.indexing import Indexed, Items, add
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.sources import SplitToIndex, open_or_create
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.schema import Document, check_version, decode, encode, parse

_AGAIN = "name another folder"
_DOCUMENT = Document("shards", DataError, _AGAIN, most_bytes=2**16)


@dataclass(frozen=True)
class IndexRequest:
    """What is indexed where; it can be sent to other processes."""

    bundle: str
    source: SplitToIndex
    output: Path
    shards: int
    settings: ScorerSettings
    dtype: Literal["stored", "float16"] | None = None
    max_size: int | None = None
    replace: bool = False
    """Whether what is there with another content is written anew, and no error."""

    def path(self, shard: int) -> Path:
        """A shard's gallery."""
        return self.output / f"part-{shard}.gallery"


@dataclass(frozen=True)
class IndexedShard:
    """What was done for a shard of a gallery."""

    shard: int
    host: str
    """The machine that has its gallery."""
    done: Indexed


@dataclass(frozen=True)
class _Shards:
    """The file that says how many shards there are: with another number, ids are elsewhere."""

    format: Literal[1]
    kind: Literal["gallery shards"]
    shards: int


class IndexWorker:
    """Encodes shards, one after the other."""

    def __init__(self, request: IndexRequest) -> None:
        self._request = request

    def prepare(self) -> Sequence[Finding]:
        """Check the data, and write how many shards there are; what is to be told of the data.

        Raises DataError for data that cannot be indexed, and InputError for a folder that has
        another number of shards.
        """
        found: list[Finding] = []
        self._request.source.open(self._scorer, found.append)
        _fix_shards(self._request.output, self._request.shards)
        return tuple(found)

    def run(self, shard: int) -> IndexedShard:
        """Write what a shard's gallery lacks; raises as `open_or_create` and `add`."""
        request, items = self._request, self._items
        rows = self._rows[shard]
        path, kind = request.path(shard), request.source.kind
        with open_or_create(path, self._scorer, kind, request.dtype, request.max_size) as gallery:
            done = add(gallery, _SomeItems(items, rows), replace=request.replace)
        return IndexedShard(shard, socket.gethostname(), done)

    def close(self) -> None:
        """Release the scorer."""
        if "_scorer" in vars(self):
            self._scorer.close()

    @cached_property
    def _scorer(self) -> Scorer:
        return self._request.settings.load(Bundle.open(self._request.bundle))

    @cached_property
    def _items(self) -> Items:
        return self._request.source.open(self._scorer, None)

    @cached_property
    def _rows(self) -> list[list[int]]:
        """The rows of each shard."""
        shards = self._request.shards
        rows: list[list[int]] = [[] for _ in range(shards)]
        for row, id_ in enumerate(self._items.ids):
            rows[shard_of(id_, shards)].append(row)
        return rows


def index_shards(
    runner: Runner[int, IndexedShard],
    request: IndexRequest,
    tell: Tell,
    progress: Progress | None = None,
) -> list[IndexedShard]:
    """Encode all shards that a runner is to do; in their order, what was written of each."""
    for finding in runner.prepare():
        tell(finding)
    found: list[IndexedShard] = []
    for each in runner.run(range(request.shards)):
        found.append(each)
        if progress is not None:
            progress(len(found), request.shards)
    return sorted(found, key=lambda each: each.shard)


class _SomeItems(Items):
    """Some rows of what is to be indexed."""

    def __init__(self, items: Items, rows: Sequence[int]) -> None:
        super().__init__([items.ids[row] for row in rows])
        self._items, self._rows = items, np.array(rows, np.int64)

    def source(self, row: int) -> bytes:
        return self._items.source(int(self._rows[row]))

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        return self._items.batch(self._rows[rows])


def _fix_shards(output: Path, shards: int) -> None:
    """Write how many shards there are, or check what was written."""
    file = output / "shards.json"
    with os_errors(f"gallery {output}", InputError):
        output.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            write_json(file, encode(_Shards(1, "gallery shards", shards)), what="shards")
            return
        content: Any = _DOCUMENT.read(file)
    try:
        value = parse(content, _DOCUMENT)
        check_version(value, "format", (1,), _DOCUMENT)
        found = decode(_Shards, value, _DOCUMENT)
    except DataError as error:
        raise error.at(f"shards {file}") from error
    if found.shards != shards:
        what = f"--shards of gallery {output}"
        raise InputError(what, expected=found.shards, got=shards, hint=_AGAIN)
