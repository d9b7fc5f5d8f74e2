"""What is left of a gallery after each of these faults, many times over; run by hand, as it mounts.

The processes are those of the tests (`tests/support/galleries.py`); here they are killed at any
moment, not at named steps, and the full disk is a real one: a small tmpfs, where mounting is
allowed, or else a limit of the file's size.

    python benchmarks/gallery_faults.py --json benchmarks/results/gallery_faults.json
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from sgraf_deploy.bench.run import processor
from sgraf_deploy.errors import DataError
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.gallery import Details, Gallery
from sgraf_deploy.gallery.header import SCHEMA_VERSION, Header, RowSpec
from sgraf_deploy.gallery.store import COMPACT_STEPS, make_folder
from sgraf_deploy.runtime.encoding import Encoding
from sgraf_deploy.versions import tool_versions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import galleries

COUNT, PER_BATCH = 400, 5
TMPFS = "size=6m"


@dataclass
class Case:
    """One fault: how often it was tried, what was counted meanwhile, and what was wrong."""

    tries: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count."""
        self.counted[name] = self.counted.get(name, 0) + number

    def check(self, holds: object, what: str) -> None:
        """Remember what does not hold."""
        if not holds:
            self.wrong.append(f"try {self.tries}: {what}")


def empty(folder: Path, max_size: int = 10**9, embed: int = 64) -> Path:
    """A new gallery of small images of two members, about 20 kB each."""
    rows = {
        "region_embeddings": RowSpec((36, embed), "float32"),
        "image_global": RowSpec((embed,), "float32"),
    }
    encoding = Encoding(
        "images",
        "fp32",
        "fp32",
        {name: {"fingerprint": name, "image_norm": "true"} for name in ("sgr", "saf")},
    )
    header = Header(
        SCHEMA_VERSION, "stored", encoding, {"sgr": rows, "saf": rows}, max_size, "data.mdb"
    )
    make_folder(folder / "some.gallery", header)
    return folder / "some.gallery"


def whole(case: Case, path: Path) -> list[str]:
    """Check every record of a gallery; returns the ids."""
    with Gallery.open(path) as gallery:
        ids = gallery.ids()
        case.check(gallery.verify().damaged == {}, "a record is damaged")
        galleries.versions(gallery.read(ids))
    case.count("records read and compared", len(ids))
    return ids


def killed_index(case: Case, folder: Path, rng: random.Random) -> None:
    """SIGKILL at any moment of `index`; then `index` again."""
    path, committed = empty(folder), 0
    with galleries.start("index", path, COUNT, PER_BATCH) as child:
        for _ in range(rng.randrange(0, 40)):
            committed = int(galleries.hear(child).split()[0])
        for _ in range(rng.randrange(0, 200_000)):  # some moment of the next batch
            pass
        child.kill()
        lines = galleries.rest(child).splitlines()
    committed = int(lines[-1].split()[0]) if lines and lines[-1].isdecimal() else committed
    ids = whole(case, path)
    case.count("acknowledged images", committed)
    case.check(ids == [f"item{number}" for number in range(len(ids))], "another order")
    case.check(len(ids) >= committed, f"{committed - len(ids)} acknowledged images lost")
    case.check(len(ids) % PER_BATCH == 0, "half a batch")
    _, said = galleries.run("index", path, COUNT, PER_BATCH)
    case.check(said.splitlines()[-1] == f"{COUNT - len(ids)} {len(ids)}", "not resumed")
    case.check(len(whole(case, path)) == COUNT, "not completed")


def killed_compact(case: Case, folder: Path, rng: random.Random) -> None:
    """SIGKILL at each step of `compact`."""
    path = empty(folder)
    with Gallery.open(path) as gallery:
        gallery.write(galleries.batch_of(gallery.header, galleries.IDS))
        gallery.delete(galleries.IDS[:4])
    galleries.run("compact", path, COMPACT_STEPS[case.tries % len(COMPACT_STEPS)])
    case.check(whole(case, path) == list(galleries.IDS[4:]), "records lost")
    with Gallery.open(path) as gallery:
        gallery.compact()
        case.check(len(list(path.glob("data*.mdb"))) == 1, "a file is left")


def full_disk(case: Case, folder: Path, rng: random.Random) -> None:
    """Write until the disk is full."""
    with small_disk(folder) as disk:
        case.count("on a tmpfs" if disk != folder else "by a limit of the file's size")
        path, written = empty(disk), 0
        if disk == folder:
            _, said = galleries.run("full", path)
            case.check(said.startswith("DataError"), "no error")
            case.check(whole(case, path), "nothing is left")
            return
        with Gallery.open(path) as gallery:
            try:
                for number in range(10**6):
                    ids = [f"{number}-{each}" for each in range(rng.randrange(1, 9))]
                    gallery.write(galleries.batch_of(gallery.header, ids))
                    written += len(ids)
            except DataError as error:
                case.check("the disk is full" in str(error), f"another error: {error}")
            case.check(len(gallery) == written, "another number of images")
            galleries.versions(gallery.read(gallery.ids()))
        case.check(len(whole(case, path)) == written > 0, "committed images lost")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of a few megabytes, or the folder itself where none may be mounted."""
    target = folder / "disk"
    target.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", TMPFS, "tmpfs", str(target)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield folder
        return
    try:
        yield target
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def full_map(case: Case, folder: Path, rng: random.Random) -> None:
    """Write until --max-size is reached."""
    path, written = empty(folder, max_size=rng.randrange(2 * 10**6, 10**7)), 0
    with Gallery.open(path) as gallery:
        try:
            for number in range(10**6):
                ids = [f"{number}-{each}" for each in range(rng.randrange(1, 9))]
                gallery.write(galleries.batch_of(gallery.header, ids))
                written += len(ids)
        except DataError as error:
            case.check("--max-size" in str(error), f"another error: {error}")
    case.check(len(whole(case, path)) == written > 0, "committed images lost")


def flipped_bit(case: Case, folder: Path, rng: random.Random) -> None:
    """Flip any bit of any record's page in the file; it is named, and the others are read."""
    path = empty(folder)
    with Gallery.open(path) as gallery:
        gallery.write(galleries.batch_of(gallery.header, galleries.IDS))
        id_ = rng.choice(galleries.IDS)
        with gallery._reading() as (opened, txn):
            number = opened.numbers(txn, [id_.encode()])[0]
            content = bytes(opened.record(txn, id_.encode(), number)[0])
        file = path / gallery.header.data
    start, bit = file.read_bytes().index(content), rng.randrange(8 * len(content))
    with file.open("r+b") as stream:
        stream.seek(start + bit // 8)
        byte = stream.read(1)[0] ^ 1 << bit % 8
        stream.seek(start + bit // 8)
        stream.write(bytes([byte]))
    with Gallery.open(path) as gallery:
        try:
            gallery.read(galleries.IDS)
            case.check(False, f"bit {bit} was not found")
        except DataError as error:
            case.check(repr(id_) in str(error), f"not named: {error}")
        galleries.versions(gallery.read([each for each in galleries.IDS if each != id_]))
        case.check(list(gallery.verify().damaged) == [id_], "verify says something else")
        gallery.write(galleries.batch_of(gallery.header, [id_]), replace=True)
    whole(case, path)


def two_writers(case: Case, folder: Path, rng: random.Random) -> None:
    """A second writer while one is in its transaction, and after that was killed."""
    path = empty(folder)
    with Gallery.open(path) as gallery, galleries.start("holding", path) as child:
        galleries.hear(child)
        for work in (
            lambda: gallery.write(galleries.batch_of(gallery.header, ["mine"])),
            gallery.compact,
        ):
            try:
                work()
                case.check(False, "not refused")
            except DataError as error:
                case.check(str(child.pid) in str(error), "the writer is not named")
        if case.tries % 2:
            child.kill()
        else:
            child.communicate("\n")
        child.wait()
        gallery.write(galleries.batch_of(gallery.header, ["mine"]))
    expected = ["mine"] if case.tries % 2 else ["held", "mine"]
    case.check(whole(case, path) == expected, "another content")


def readers_beside_a_writer(case: Case, folder: Path, rng: random.Random) -> None:
    """Four processes read all ids while one writes 40 versions of them."""
    path = empty(folder)
    with Gallery.open(path) as gallery:
        details = [Details({"version": 0})] * len(galleries.IDS)
        gallery.write(galleries.batch_of(gallery.header, galleries.IDS, details=details))
    readers = [galleries.start("reader", path) for _ in range(4)]
    writer = galleries.start("writer", path)
    for child in (*readers, writer):
        output, errors = child.communicate()
        case.check(child.returncode == 0, errors.strip()[-200:])
        case.count("reads of 12 records, each of one version", int(output or 0))
    whole(case, path)


def write_during_compact(case: Case, folder: Path, rng: random.Random) -> None:
    """Another process writes at each step of `compact`, and right after it."""
    path = empty(folder)
    with Gallery.open(path) as gallery, galleries.start("obeying", path) as child:
        gallery.write(galleries.batch_of(gallery.header, galleries.IDS))

        def ask(line: str) -> str:
            return galleries.ask(child, line)

        galleries.hear(child)
        answers: list[str] = []
        gallery.compact(step=lambda name: answers.append(ask(f"at-{name}")))
        case.check(all(said.startswith("DataError") for said in answers), f"written: {answers}")
        case.count("refused writes", len(answers))
        case.check(ask("after") == "1", "not written after it")
        child.communicate()
        case.check(gallery.ids() == [*galleries.IDS, "after"], "a write was lost")
    whole(case, path)


def stale_readers(case: Case, folder: Path, rng: random.Random) -> None:
    """Three readers are killed in a transaction; the next writer uses the pages that they held."""
    path = empty(folder)
    with Gallery.open(path) as gallery:
        gallery.write(galleries.batch_of(gallery.header, galleries.IDS))
        for _ in range(3):
            with galleries.start("reading", path) as child:
                galleries.hear(child)
                child.kill()
        sizes = []
        for version in range(30):
            batch = galleries.batch_of(gallery.header, galleries.IDS, version)
            details = [Details({"version": version})] * len(galleries.IDS)
            gallery.write(replace(batch, details=details), replace=True)
            sizes.append((path / gallery.header.data).stat().st_size)
        case.check(sizes[-1] == sizes[8], f"the file grows: {sizes}")
        case.count("killed readers", 3)
    whole(case, path)


def another_encoding(case: Case, folder: Path, rng: random.Random) -> None:
    """Rows of another checkpoint, another image_norm, precision or arithmetic are refused."""
    path = empty(folder)
    with Gallery.open(path) as gallery:
        batch, own = galleries.batch_of(gallery.header, ["a"]), gallery.encoding
        saf = own.members["saf"]
        for other in (
            replace(own, members={**own.members, "saf": {**saf, "fingerprint": "other"}}),
            replace(own, members={**own.members, "saf": {**saf, "image_norm": "false"}}),
            replace(own, members={"sgr": own.members["sgr"]}),
            replace(own, precision="fp16"),
            replace(own, executed="fp16-rounded"),
        ):
            try:
                gallery.write(replace(batch, encoding=other))
                case.check(False, "written")
            except DataError:
                case.count("refused writes")
            try:
                other.check(gallery.encoding, "images", error=DataError)
                case.check(False, "read")
            except DataError:
                case.count("refused reads")
        case.check(len(gallery) == 0, "something was written")


CASES: dict[str, Callable[[Case, Path, random.Random], None]] = {
    case.__name__: case
    for case in (
        *(killed_index, killed_compact, full_disk, full_map, flipped_bit, two_writers),
        *(readers_beside_a_writer, write_during_compact, stale_readers, another_encoding),
    )
}


@click.command()
@click.option("--tries", default=20, show_default=True, help="Of each fault.")
@click.option("--only", type=click.Choice(sorted(CASES)), help="One fault alone.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(*, tries: int, only: str | None, json_file: Path | None) -> None:
    """Try every fault, and report what was wrong after it."""
    rng, found = random.Random(0), {}
    for name, work in CASES.items():
        if only not in (None, name):
            continue
        case = found[name] = Case()
        for case.tries in range(1, tries + 1):
            with tempfile.TemporaryDirectory() as folder:
                work(case, Path(folder), rng)
        click.echo(f"{name:24} {case.tries} tries, {len(case.wrong)} wrong, {case.counted}")
    report: dict[str, Any] = {
        "command": f"python benchmarks/gallery_faults.py --tries {tries}",
        "machine": {"processor": processor(), "versions": tool_versions()},
        "faults": {name: vars(case) for name, case in found.items()},
    }
    wrong = [what for case in found.values() for what in case.wrong]
    click.echo(json.dumps(wrong, indent=1))
    if json_file is not None:
        write_json(json_file, report)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
