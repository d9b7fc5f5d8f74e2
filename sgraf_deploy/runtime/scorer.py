"""The scorer: images and captions in, similarities out, on any engine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle import Bundle
from sgraf_deploy.config import GRAPHS, Precision
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import encode, gallery, matrix, pairs, ranks
from sgraf_deploy.runtime.arguments import check_load
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages, Origin
from sgraf_deploy.runtime.engine import Engine, EngineOptions, open_engine
from sgraf_deploy.runtime.estimate import Estimate, estimate
from sgraf_deploy.runtime.halving import Progress
from sgraf_deploy.runtime.logits import Logits, ensemble_logits, similarities
from sgraf_deploy.runtime.outputs import check_outputs, name_outputs
from sgraf_deploy.runtime.ranks import RankCounts
from sgraf_deploy.runtime.rerank import RerankResult, check_top_k, query_direction, rank
from sgraf_deploy.runtime.tiles import (
    DEFAULT_TILE_BYTES,
    TileLimits,
    TilePlan,
    TileShape,
)
from sgraf_deploy.runtime.tokens import CaptionReader, Lengths, RawCaptions
from sgraf_deploy.runtime.verify import verify_engine

Images = EncodedImages | NDArray[Any]
"""Encoded, or regions (images, regions, img_dim) float32 or float16, a memory map too."""

Captions = EncodedCaptions | RawCaptions


def load(
    bundle: Bundle | str | os.PathLike[str],
    *,
    engine: str = "auto",
    precision: Precision = "fp32",
    options: EngineOptions | None = None,
    memory_budget: int | None = None,
    tile: TileShape | None = None,
    max_words: int | None = MAX_WORDS,
) -> Scorer:
    """Open a bundle for scoring, all of its graphs at once, so that no request finds one damaged.

    `memory_budget` is what one tile may take, in bytes, beyond encoded inputs and the result;
    `tile` fixes the tiles' shape instead. A caption of more than `max_words` tokens, `<start>` and
    `<end>` included, is refused before it is read; None lifts that. A compiled engine that was
    never compared with the reference is compared now, if `options` allow it at all. Raises
    GateError if it fails then, BundleError for a bundle that cannot be used, InputError for an
    unknown engine, a precision that the bundle does not have or an argument of another type, and
    UnavailableError for an engine that does not work on this machine.
    """
    check_load(
        bundle,
        engine=engine,
        precision=precision,
        options=options,
        memory_budget=memory_budget,
        tile=tile,
        max_words=max_words,
    )
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    precisions = opened.manifest.precisions
    if precision not in precisions:
        raise InputError(
            f"bundle {opened.path} has no {precision} graphs",
            expected=f"precision {' or '.join(precisions)}",
            got=precision,
        )
    running = open_engine(engine, opened, precision, options or EngineOptions())
    try:
        for member in opened.manifest.members:
            for graph in GRAPHS:
                running.open(member, graph)
        if running.unverified:
            verify_engine(opened, running, precision)
            running.mark_verified()
    except BaseException:
        running.close()
        raise
    limits = TileLimits(memory_budget or DEFAULT_TILE_BYTES, running.tile_advice)
    return Scorer(
        opened, running, precision=precision, limits=limits, tile=tile, max_words=max_words
    )


class Scorer:
    """Encodes and scores with one bundle on one engine; made by `load`, closed by `with`.

    Threads may share a scorer: every call keeps its own state. Under asyncio, call it through
    `asyncio.to_thread`. A process forked after `load` must not use it, and is told so: load after
    the fork, in every worker. Progress is reported as (done, total) in images, captions or pairs.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        precision: Precision,
        limits: TileLimits,
        tile: TileShape | None = None,
        max_words: int | None = MAX_WORDS,
    ) -> None:
        """Take over an engine that was opened on the bundle."""
        configs = {name: member.config for name, member in bundle.manifest.members.items()}
        origin = Origin(bundle.sha256, precision, configs, engine)
        self.bundle = bundle
        self._context = Context(origin, limits, tile)
        self._process = os.getpid()
        self._closed = False
        self._reader = CaptionReader(bundle, max_words)

    @property
    def engine_name(self) -> str:
        """The engine that runs, `auto` resolved."""
        return self._context.engine.name

    @property
    def executed(self) -> str:
        """What the arithmetic really is: `fp32`, `fp16-rounded`, …"""
        return self._context.engine.executed

    @property
    def device(self) -> str:
        """Where it runs: `cpu`, …"""
        return self._context.engine.device

    @property
    def precision(self) -> Precision:
        """The precision of the bundle's graphs that was asked for."""
        return self._context.origin.precision

    @property
    def members(self) -> tuple[str, ...]:
        """The bundle's members: `sgr`, `saf` or both."""
        return tuple(self._context.configs)

    @property
    def max_words(self) -> int | None:
        """The most tokens of a caption that is read; None for any number."""
        return self._reader.bound.max_words

    def encode_images(
        self, regions: NDArray[Any], *, progress: Progress | None = None
    ) -> EncodedImages:
        """Encode regions (images, regions, img_dim) float32 or float16, a memory map too.

        Raises DataError for another shape or dtype, and names the image that is not finite.
        """
        self._check_usable()
        return encode.encode_images(self._context, regions, progress)

    def encode_captions(
        self,
        captions: RawCaptions,
        lengths: Lengths | None = None,
        *,
        progress: Progress | None = None,
    ) -> EncodedCaptions:
        """Encode strings, or token ids with `<start>` and `<end>`, in any order of lengths.

        Padded ids, such as an array (captions, words), need `lengths`: how many of each caption's
        ids are real, (captions,) integers. Raises DataError, which names the caption, for an empty
        one, one longer than `max_words`, and ids that are not integers, lie outside the vocabulary
        or hold `<pad>` (0 where there is no vocabulary); BundleError for strings when the bundle
        has no vocabulary. Warns once, with CaptionWarning, of ids without `<start>` or `<end>`.
        """
        self._check_usable()
        token_ids = self._reader.token_ids(captions, lengths)
        return encode.encode_captions(self._context, token_ids, progress)

    def score(
        self,
        images: Images,
        captions: Captions,
        *,
        out: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Similarities (images, captions) float32, written into `out` if it is given.

        `out` may be a memory map, or a part of an array; DataError if its elements overlap or share
        memory with the inputs. Beyond encoded inputs and the result, memory does not grow with
        the matrix. Raises EngineMemoryError when not even one pair fits on the device.
        """
        one, other = self._encoded(images, captions, None if out is None else {"out": out})
        return matrix.similarity_matrix(self._context, one, other, out, progress)

    def logits(
        self,
        images: Images,
        captions: Captions,
        *,
        out: Mapping[str, NDArray[np.float32]] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Every member's logits (images, captions) float32, for evaluation.

        `out` may hold an array or a memory map for each member, which share no memory;
        `runtime.logits.ensemble_logits` combines two members.
        """
        named = None if out is None else name_outputs(out, self.members)
        one, other = self._encoded(images, captions, named)
        return matrix.member_matrices(self._context, one, other, out, progress)

    def count_ranks(
        self,
        images: Images,
        captions: Captions,
        captions_per_image: int = 5,
        *,
        out: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, RankCounts]:
        """Ranks of ground truths in both directions, by member and for the ensemble, `sgraf`.

        Caption `captions_per_image * i + j` belongs to image `i`. Tiles are counted where they are
        scored, on a GPU on the GPU, so that no matrix is held; ties rank last. `out` takes the
        similarities on the way, as in `score`. Raises InputError unless every image has so many
        captions, DataError as `score`.
        """
        one, other = self._encoded(images, captions, None if out is None else {"out": out})
        return ranks.count_ranks(self._context, one, other, captions_per_image, progress, out)

    def score_pairs(
        self,
        images: Images,
        captions: Captions,
        image_index: Sequence[int] | NDArray[Any],
        caption_index: Sequence[int] | NDArray[Any],
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Similarities (pairs,) float32 of the images and captions at the given rows."""
        logits = self.logits_pairs(images, captions, image_index, caption_index, progress=progress)
        return similarities(ensemble_logits(logits))

    def logits_pairs(
        self,
        images: Images,
        captions: Captions,
        image_index: Sequence[int] | NDArray[Any],
        caption_index: Sequence[int] | NDArray[Any],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Logits]:
        """Every member's logits (pairs,) float32 of the images and captions at the given rows."""
        one, other = self._encoded(images, captions)
        return pairs.pair_logits(self._context, one, other, image_index, caption_index, progress)

    def rerank(
        self,
        query: str | Sequence[int] | NDArray[Any] | EncodedImages | EncodedCaptions,
        candidates: Images | Captions,
        top_k: int | None = None,
    ) -> RerankResult:
        """The best `top_k` candidates (all if it is None) for a query, the best first.

        A caption (a string, its token ids or one EncodedCaptions) is answered with images, an
        image (its regions (regions, img_dim) or one EncodedImages) with captions.
        """
        self._check_usable()
        check_top_k(top_k)
        direction = query_direction(query)
        wanted: Any
        if direction == "text_to_image":
            wanted = query if isinstance(query, EncodedCaptions) else [query]
            images, captions = self._encoded(candidates, wanted)
        else:
            wanted = query if isinstance(query, EncodedImages) else np.asarray(query)[None]
            images, captions = self._encoded(wanted, candidates)
        logits = matrix.ensemble_matrix(self._context, images, captions)
        return rank(direction, logits.reshape(-1), top_k)

    def plan(self, images: EncodedImages, captions: EncodedCaptions) -> TilePlan:
        """The tiles that `score` would use, with the bytes of a tile and of the result."""
        return self._context.plan(*self._encoded(images, captions))

    def estimate(self, images: int, lengths: Sequence[int] | NDArray[Any]) -> Estimate:
        """What so many images, and captions (captions,) of so many words, will take.

        Words count `<start>` and `<end>`. Nothing is encoded.

        Example:
            >>> scorer.estimate(6, [9, 11]).matrix
            48
        """
        self._check_usable()
        return estimate(self._context, images, np.asarray(lengths, np.int32))

    def save_encoded(
        self, encoded: EncodedImages | EncodedCaptions, path: str | os.PathLike[str]
    ) -> Path:
        """Write encoded images or captions to one `.npz` file, whole or not at all."""
        self._check_usable()
        self._context.origin.check(encoded.origin, _name(encoded))
        return gallery.save_gallery(encoded, path)

    def load_images(self, path: str | os.PathLike[str]) -> EncodedImages:
        """Read what `save_encoded` wrote; DataError if another bundle or precision made it."""
        self._check_usable()
        return gallery.load_images(self._context.origin, path)

    def load_captions(self, path: str | os.PathLike[str]) -> EncodedCaptions:
        """Read what `save_encoded` wrote; DataError if another bundle or precision made it."""
        self._check_usable()
        return gallery.load_captions(self._context.origin, path)

    def device_memory(self) -> dict[str, int]:
        """Bytes on a GPU by purpose: the peak of what the engine took, and what is free.

        Nothing for an engine on the host.
        """
        return self._context.engine.device_memory()

    def close(self) -> None:
        """Release the engine; what was encoded cannot be used any more."""
        if not self._closed:
            self._closed = True
            if self._process == os.getpid():
                self._context.crew.close()
                self._context.engine.close()

    def __enter__(self) -> Self:
        self._check_usable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        what = f"{self.bundle.path.name}, {self.engine_name}, {self.executed} on {self.device}"
        return f"Scorer({what}{', closed' if self._closed else ''})"

    def _check_usable(self) -> None:
        if self._closed:
            raise InputError("this scorer is closed", mend="load the bundle again")
        if self._process != os.getpid():
            raise InputError(
                "this scorer was loaded before the process was forked",
                expected=f"process {self._process}",
                got=f"process {os.getpid()}",
                mend="call load after the fork, in every worker",
            )

    def _encoded(
        self, images: Any, captions: Any, out: Mapping[str, object] | None = None
    ) -> tuple[EncodedImages, EncodedCaptions]:
        """Both sides encoded by this scorer, once `out`, by name, is found fit for the result."""
        self._check_usable()
        origin = self._context.origin
        for given, name in ((images, "images"), (captions, "captions")):
            if isinstance(given, EncodedImages | EncodedCaptions):
                if _name(given) != name:
                    raise InputError(name, expected=name, got=f"encoded {_name(given)}")
                origin.check(given.origin, name)
        regions = token_ids = None  # What is raw is checked before anything is encoded.
        if not isinstance(images, EncodedImages):
            regions = encode.check_regions_layout(images, next(iter(origin.configs.values())))
        if not isinstance(captions, EncodedCaptions):
            token_ids = self._reader.token_ids(captions)
        if out is not None:
            rows = len(images if regions is None else regions)
            columns = len(captions if token_ids is None else token_ids)
            check_outputs(out, (rows, columns), (images, captions))
        if regions is not None:
            images = encode.encode_images(self._context, regions)
        if token_ids is not None:
            captions = encode.encode_captions(self._context, token_ids)
        return images, captions


def _name(encoded: EncodedImages | EncodedCaptions) -> str:
    return "images" if isinstance(encoded, EncodedImages) else "captions"
