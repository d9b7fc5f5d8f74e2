"""Does pieces of a job, one after the other, with a scorer of its own."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.distributed.parts import Job, Piece, Request, piece_range
from sgraf_deploy.distributed.planning import make_plan
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.encoding import Kind
from sgraf_deploy.runtime.part import check_same
from sgraf_deploy.runtime.partial import PartialRanks
from sgraf_deploy.runtime.saved_encodings import SavedRows, save_gallery
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.runtime.thresholds import RankThresholds
from sgraf_deploy.runtime.top_k import PartialTopK

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """A piece that is finished, and who did it: `HOST:PROCESS`."""

    piece: Piece
    worker: str


class JobWorker:
    """Does pieces of one job; it keeps the inputs of the last one, which the next often needs."""

    def __init__(self, request: Request, folder: Path) -> None:
        self._request, self._job = request, Job(folder)
        self._images: tuple[range, EncodedImages] | None = None

    @property
    def name(self) -> str:
        """The host and the process: `HOST:PROCESS`."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def prepare(self) -> tuple[Finding, ...]:
        """Make the plan if there is none, and check that it is of this request; what is to be told.

        Raises InputError, which names what differs, for the folder of another job, and whatever is
        wrong with the data and the bundle.
        """
        identity = self._request.identity(self._bundle, self._split)
        if not self._job.is_planned:
            make_plan(self._job, identity, self._scorer, self._split)
        self._job.check(identity)
        return self._job.plan.findings

    def run(self, piece: Piece) -> Done:
        """Do a piece and write its file, unless that is there already.

        Raises whatever is wrong with the inputs, and InputError where the scorer is not one of the
        plan's execution or the file cannot be written.
        """
        if not self._job.file(piece).exists():
            check_same(
                "the scorer of this worker",
                self._job.plan.execution,
                self._scorer.execution,
                "let all workers have the same engines, or name one with --engine and --device",
            )
            getattr(self, f"_{piece.kind}_piece")(piece)
            log.info("%s: finished %s", self.name, piece.name)
        return Done(piece, self.name)

    def close(self) -> None:
        """Release the scorer."""
        if "_scorer" in vars(self):
            self._scorer.close()

    @cached_property
    def _bundle(self) -> Bundle:
        return Bundle.open(self._request.bundle)

    @cached_property
    def _split(self) -> PrecompSplit:
        return self._request.source.open(self._bundle)

    @cached_property
    def _scorer(self) -> Scorer:
        return self._request.settings.load(self._bundle)

    def _images_piece(self, piece: Piece) -> None:
        rows = piece_range(self._job.plan.images, piece.number)
        encoded = self._scorer.encode_images(self._split.regions[rows.start : rows.stop])
        save_gallery(encoded, self._job.file(piece))

    def _captions_piece(self, piece: Piece) -> None:
        """Encode batches of captions, each by itself, as all are encoded together."""
        plan, encoded = self._job.plan, []
        for batch in piece_range(plan.captions, piece.number):
            places = piece_range(plan.batches, batch)
            rows = self._job.tiling.order[places.start : places.stop].tolist()
            texts = [self._split.captions[row] for row in rows]
            encoded.append(self._scorer.encode_captions(texts))
        save_gallery(EncodedCaptions.concatenate(encoded), self._job.file(piece))

    def _truths_piece(self, piece: Piece) -> None:
        plan = self._job.plan
        rows, per_image = piece_range(plan.images, piece.number), plan.identity.captions_per_image
        captions = self._captions[rows.start * per_image : rows.stop * per_image]
        images = self._load_images(range(piece.number, piece.number + 1))
        self._scorer.rank_thresholds(images, captions, per_image).save(self._job.file(piece))

    def _part_piece(self, piece: Piece) -> None:
        """Count ranks, or find the best candidates, in a range of tiles."""
        plan, tiling = self._job.plan, self._job.tiling
        tiles = piece_range(plan.tiles, piece.number)
        held = list(tiling.select(tiles))
        first, end = min(tile.first_image for tile in held), max(tile.end_image for tile in held)
        ends = np.array(plan.images)
        shards = range(
            int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(ends, end)) + 1
        )
        images = self._load_images(shards)
        first = piece_range(plan.images, shards.start).start
        scorer, captions, identity = self._scorer, self._captions, plan.identity
        part: PartialRanks | PartialTopK
        if identity.k is None:
            part = scorer.count_tiles(
                images,
                captions,
                self._thresholds,
                tiles,
                tiling=tiling,
                first_image=first,
                ensemble_only=identity.models == "ensemble",
            )
        else:
            part = scorer.top_k_tiles(
                images, captions, identity.k, tiles, tiling=tiling, first_image=first
            )
        part.save(self._job.file(piece))

    @cached_property
    def _thresholds(self) -> RankThresholds:
        files = map(self._job.file, self._job.plan.pieces("truths"))
        return RankThresholds.concatenate([RankThresholds.load(file) for file in files])

    @cached_property
    def _captions(self) -> EncodedCaptions:
        """All captions, in the split's order."""
        saved = self._read("captions", range(len(self._job.plan.captions)))
        lengths = np.concatenate([each.lengths for each in saved if each.lengths is not None])
        ordered = self._scorer.captions_from_host(lengths, _joined(saved))
        return ordered[np.argsort(self._job.tiling.order)]

    def _load_images(self, shards: range) -> EncodedImages:
        """The images of some shards; those of the last call are kept."""
        if self._images is None or self._images[0] != shards:
            self._images = None  # Freed before the next ones are read.
            saved = self._read("images", shards)
            self._images = shards, self._scorer.images_from_host(_joined(saved))
        return self._images[1]

    def _read(self, kind: Kind, shards: range) -> list[SavedRows]:
        """What the files of some shards hold; DataError for another scorer's encodings."""
        scorer = self._scorer
        ours = scorer.image_encoding if kind == "images" else scorer.text_encoding
        found = []
        for number in shards:
            file = self._job.file(Piece(kind, number))
            found.append(scorer.read_saved(file))
            ours.check(found[-1].encoding, str(file))
        return found


def _joined(saved: list[SavedRows]) -> dict[str, dict[str, np.ndarray]]:
    """The rows of several files, by member and name."""
    return {
        member: {
            name: np.concatenate([each.arrays[member][name] for each in saved]) for name in named
        }
        for member, named in saved[0].arrays.items()
    }
