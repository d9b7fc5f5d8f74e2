"""Records that are not what was written, or were made by another model, are never scored."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

from gallery.conftest import Make
from support.changed_bundles import changed_members
from support.galleries import IDS, batch_of, versions
from support.refusals import ANY, naming, refused
from support.scorers import CAPTIONS, Faked, make_regions

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import DataError
from sgraf_deploy.gallery import Batch, Details, Gallery
from sgraf_deploy.runtime import Scorer


class Place:
    """Where an id's record is in the data file, and in how many pages that are no longer used."""

    def __init__(self, gallery: Gallery, id_: str) -> None:
        with gallery._reading() as (opened, txn):
            key = id_.encode()
            record, _ = opened.record(txn, key, opened.numbers(txn, [key])[0])
            content, self.path = bytes(record), gallery.path / opened.header.data
        self.size = len(content)
        self.starts = [each.start() for each in re.finditer(re.escape(content), self.read())]
        assert self.starts

    def read(self) -> bytes:
        return self.path.read_bytes()

    def flip(self, place: int, bit: int = 0) -> None:
        with self.path.open("r+b") as file:
            for start in self.starts:
                file.seek(start + place)
                (byte,) = file.read(1)
                file.seek(start + place)
                file.write(bytes([byte ^ 1 << bit]))


def test_every_flipped_bit_of_a_record_is_found_and_named(make: Make) -> None:
    gallery = make()
    every = [Details({"id": id_}, size=(3, 4)) for id_ in IDS]
    gallery.write(batch_of(gallery.header, IDS, details=every))
    place = Place(gallery, "id5")
    others = [id_ for id_ in IDS if id_ != "id5"]
    for byte in range(0, place.size, 5):
        place.flip(byte, byte % 8)
        with Gallery.open(gallery.path) as fresh:
            for ask in (fresh.read, fresh.details):
                with refused(DataError, "id5", hint="gallery update"):
                    ask(IDS)
            assert len(fresh.read(others)) == len(others)
        place.flip(byte, byte % 8)
    assert len(Gallery.open(gallery.path).read(IDS)) == len(IDS)


def test_verify_finds_what_was_damaged_after_it_was_read(make: Make, fake: Scorer) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    assert (gallery.verify().records, gallery.verify().damaged) == (len(IDS), {})
    place = Place(gallery, "id7")
    place.flip(place.size // 2)
    found = gallery.verify()
    assert (found.records, list(found.damaged)) == (len(IDS) - 1, ["id7"])
    with refused(DataError, "id7"):
        gallery.images(fake, ["id7"])
    with refused(DataError, "id7"):
        Gallery.open(gallery.path, resident="all").images(fake, ["id7"])
    gallery.write(batch_of(gallery.header, ["id7"], 0), replace=True)
    assert gallery.verify().damaged == {}
    assert versions(gallery.read(IDS)) == [0] * len(IDS)


def test_a_record_under_another_id_is_found(make: Make) -> None:
    """Its checksum is seeded with the id: the index cannot lead to another image's rows."""
    gallery = make()
    gallery.write(batch_of(gallery.header, ["a", "b"]))
    with gallery._writing() as opened, opened.environment.writing() as txn:
        txn.put(b"ia", txn.get(b"ib", b""))
    with refused(DataError, "a"):
        Gallery.open(gallery.path).read(["a"])
    assert list(gallery.verify().damaged) == ["a"]


def test_an_index_without_its_record_is_found(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, ["a", "b"]))
    with gallery._writing() as opened, opened.environment.writing() as txn:
        txn.delete(b"r" + struct.pack(">Q", 0))
    with refused(DataError, "a", got="none"):
        gallery.read(["a"])
    assert set(gallery.verify().damaged) == {"", "a"}


def test_a_file_that_was_cut_off_is_not_read(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    gallery.close()
    path = gallery.path / "data.mdb"
    size = path.stat().st_size
    os.truncate(path, size - 8192)
    with refused(DataError, gallery.path, "data.mdb", expected=naming(size), got=size - 8192):
        Gallery.open(gallery.path)
    os.truncate(path, 0)
    with refused(DataError, gallery.path, "data.mdb", expected=ANY, got=0, hint="index"):
        Gallery.open(gallery.path)
    path.unlink()
    with refused(DataError, gallery.path, expected=naming("data.mdb")):
        Gallery.open(gallery.path)


def test_a_file_that_is_none_is_refused(make: Make) -> None:
    gallery = make()
    gallery.close()
    (gallery.path / "data.mdb").write_bytes(b"no database" * 2000)
    with refused(DataError, gallery.path, hint="sgraf-deploy index"):
        Gallery.open(gallery.path)


def test_the_gallery_of_another_checkpoint_or_image_norm_is_never_scored(
    bundle: Bundle, faked: Callable[..., Faked], tmp_path: Path
) -> None:
    scorer = faked().scorer
    with Gallery.create(tmp_path / "g", scorer) as gallery:
        gallery.write(Batch.of(["a"], scorer.encode_images(make_regions(1))))
        for field, other in (
            ("image_norm", changed_members(bundle, tmp_path / "norm.sgraf", image_norm=False)),
            ("fingerprint", changed_members(bundle, tmp_path / "made.sgraf", fingerprint="0" * 64)),
        ):
            foreign = faked(of=other).scorer
            assert foreign.members == scorer.members
            with refused(DataError, gallery.path, field, "saf"):
                foreign.score(gallery.images(foreign, ["a"]), CAPTIONS)
            resident = Gallery.open(gallery.path, resident="all")
            with refused(DataError, gallery.path, field, "saf"):
                foreign.score(resident.images(foreign, ["a"]), CAPTIONS)
