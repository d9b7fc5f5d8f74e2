"""Galleries of records whose content follows from their ids, and processes that use them.

Run as a script, `galleries.py WORKER GALLERY …` is one of the functions in `WORKERS`.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import SgrafDeployError
from sgraf_deploy.gallery import Batch, Details, Gallery, Rows, indexing
from sgraf_deploy.gallery.header import PER_WORD, Header
from sgraf_deploy.gallery.indexing import Items
from sgraf_deploy.gallery.record import source_of

PATHS = Path(__file__).parents[2], Path(__file__).parents[1]

IDS = tuple(f"id{number}" for number in range(12))
"""The ids that writers and readers beside each other share."""
LAST = 40
"""The last version that `writer` writes."""


def content(id_: str, name: str, version: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """What a record's rows of a name are, by id and version: the same number all over."""
    value = zlib.crc32(f"{id_} {name} {version}".encode()) % 2000
    return np.full(shape, value, dtype)


def batch_of(header: Header, ids: Sequence[str], version: int = 0, **more: Any) -> Batch:
    """A batch of images with these contents."""
    arrays = {
        member: {
            name: np.stack([content(id_, name, version, spec.shape, spec.dtype) for id_ in ids])
            for name, spec in specs.items()
        }
        for member, specs in header.rows.items()
    }
    return Batch(ids, header.encoding, arrays, **more)


def versions(rows: Rows) -> list[int]:
    """The version of each record that was read; an error if one is not of one piece."""
    found = []
    for row, id_ in enumerate(rows.ids):
        version = (rows.details(row).metadata or {"version": 0})["version"]
        for named in rows.arrays.values():
            for name, array in named.items():
                if not (array[row] == content(id_, name, version, array.shape[1:], "f4")).all():
                    raise ValueError(f"{id_} is not of one piece in {name}")
        found.append(version)
    return found


def words_of(header: Header, ids: Sequence[str], lengths: Sequence[int]) -> Batch:
    """A batch of captions of these lengths; each word is the number of its caption's row."""
    arrays = {
        member: {
            name: np.repeat(np.arange(len(ids)), lengths if name == PER_WORD else 1)[
                :, None
            ].astype(spec.dtype)
            * np.ones(spec.shape, spec.dtype)
            for name, spec in specs.items()
        }
        for member, specs in header.rows.items()
    }
    return Batch(ids, header.encoding, arrays, np.array(lengths, np.int32))


def start(worker: str, gallery: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start this file as a script."""
    return subprocess.Popen(
        [sys.executable, __file__, worker, str(gallery), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def hear(child: subprocess.Popen[str]) -> str:
    """The next line that a process says."""
    assert child.stdout is not None
    return child.stdout.readline().rstrip("\n")


def rest(child: subprocess.Popen[str]) -> str:
    """All that a process says until it ends."""
    assert child.stdout is not None
    return child.stdout.read()


def ask(child: subprocess.Popen[str], line: str) -> str:
    """Say a line to a process; what it answers."""
    assert child.stdin is not None
    child.stdin.write(f"{line}\n")
    child.stdin.flush()
    return hear(child)


def run(worker: str, gallery: Path, *arguments: object) -> tuple[int, str]:
    """Run this file as a script; its exit code and output."""
    with start(worker, gallery, *arguments) as child:
        output, errors = child.communicate()
    assert "Traceback" not in errors, errors
    return child.returncode, output


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def dying_at(step: str, turn: int) -> Callable[[str], None]:
    """A step that kills this process when it is called with a name for the `turn`-th time."""
    seen = []

    def report(name: str) -> None:
        seen.append(name)
        if name == step and seen.count(step) == turn:
            os.kill(os.getpid(), signal.SIGKILL)

    return report


def killed(path: Path, step: str, turn: str) -> None:
    """Write batches of three, say what was committed, and be killed at a step of one of them."""
    report = dying_at(step, int(turn))
    with Gallery.open(path) as gallery:
        for first in range(0, len(IDS), 3):
            ids = IDS[first : first + 3]
            gallery.write(batch_of(gallery.header, ids), step=report)
            say(" ".join(ids))


class MadeItems(Items):
    """What `index` writes of these ids, without a model."""

    def __init__(self, gallery: Gallery, ids: Sequence[str]) -> None:
        super().__init__(ids)
        self._gallery = gallery

    def source(self, row: int) -> bytes:
        return source_of([self.ids[row].encode()])

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        ids = [self.ids[row] for row in rows]
        return batch_of(self._gallery.header, ids, sources=[self.source(int(row)) for row in rows])


def index(path: Path, count: str, per_batch: str) -> None:
    """Index so many ids, a few in a batch; says how many are committed after each."""
    indexing.MOST_PER_BATCH = int(per_batch)
    ids = [f"item{number}" for number in range(int(count))]
    with Gallery.open(path) as gallery:
        present = sum(id_ in gallery for id_ in ids)
        done = indexing.add(
            gallery, MadeItems(gallery, ids), lambda written, _: say(present + written)
        )
        say(f"{done.written} {done.present}")


def compact(path: Path, step: str) -> None:
    """Compact, and be killed at a step."""
    with Gallery.open(path) as gallery:
        gallery.compact(step=dying_at(step, 1))


def writer(path: Path) -> None:
    """Write one version after the other of all ids, each in one transaction."""
    with Gallery.open(path) as gallery:
        for version in range(1, LAST + 1):
            details = [Details({"version": version})] * len(IDS)
            batch = batch_of(gallery.header, IDS, version, details=details)
            gallery.write(batch, replace=True)


def reader(path: Path) -> None:
    """Read all ids until the last version is there; says how many reads were of one piece."""
    reads = 0
    with Gallery.open(path) as gallery:
        while True:
            found = set(versions(gallery.read(IDS)))
            if len(found) != 1:
                raise ValueError(f"versions {found} in one read")
            reads += 1
            if found == {LAST}:
                break
    say(reads)


def reading(path: Path) -> None:
    """Hold a read transaction until a line comes."""
    with Gallery.open(path) as gallery, gallery._reading():
        say("reading")
        sys.stdin.readline()


def obeying(path: Path) -> None:
    """For each line, write its id or, for `? ID`, say its version; says the error if any."""
    with Gallery.open(path) as gallery:
        say("open")
        for line in sys.stdin:
            word = line.strip()
            try:
                if word.startswith("? "):
                    say(versions(gallery.read([word[2:]]))[0])
                else:
                    say(gallery.write(batch_of(gallery.header, [word])))
            except SgrafDeployError as error:
                say(f"{type(error).__name__} {error.what}")


def holding(path: Path) -> None:
    """Write one id, but say when the lock is held and wait for a line first."""

    def step(name: str) -> None:
        if name == "put":
            say("put")
            sys.stdin.readline()

    with Gallery.open(path) as gallery:
        gallery.write(batch_of(gallery.header, ["held"]), step=step)
        say("committed")


def full(path: Path) -> None:
    """Write until files may not grow any more; says the error, and then what can be read."""
    with Gallery.open(path) as gallery:
        gallery.write(batch_of(gallery.header, IDS[:3]))
        size = (path / gallery.header.data).stat().st_size + 2**16
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        number = 0
        try:
            while True:
                ids = [f"more{number}-{each}" for each in range(20)]
                gallery.write(batch_of(gallery.header, ids))
                number += 1
        except SgrafDeployError as error:
            say(f"{type(error).__name__} {error}")
        say(number)
        say(len(set(versions(gallery.read(gallery.ids())))))


WORKERS = {
    each.__name__: each
    for each in (killed, index, compact, writer, reader, reading, obeying, holding, full)
}

if __name__ == "__main__":
    WORKERS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
