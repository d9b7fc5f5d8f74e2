"""The scorer: images and captions in, similarities out, on any engine."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS, Precision
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.engines.base import Engine, EngineOptions
from sgraf_deploy.engines.ensemble import Logits, ensemble_logits, similarities
from sgraf_deploy.engines.machine import Machine
from sgraf_deploy.engines.native.instructions import VARIABLE as ISA
from sgraf_deploy.engines.policy import AUTO, Choice, Request, choose
from sgraf_deploy.engines.ranks import RankCounts
from sgraf_deploy.engines.registry import open_engine
from sgraf_deploy.gate.engines import gate_engine
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime import matrix, pairs, ranks
from sgraf_deploy.runtime.arguments import check_kept, check_load, merge_options, request_of
from sgraf_deploy.runtime.caption_cache import DEFAULT_CACHE_BYTES
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.opened import Captions, Images
from sgraf_deploy.runtime.outputs import check_outputs, name_outputs
from sgraf_deploy.runtime.pairs import Index
from sgraf_deploy.runtime.sharing import Sharing
from sgraf_deploy.runtime.tiles import TileLimits, TileShape, Tiling

log = logging.getLogger(__name__)


def load(  # noqa: PLR0913  # what it takes is the public face of a dozen modules
    bundle: Bundle | str | os.PathLike[str],
    engine: str = AUTO,
    precision: Precision | None = None,
    device: str | None = None,
    threads: int | None = None,
    *,
    options: EngineOptions | None = None,
    memory_budget: int | None = None,
    tile: TileShape | None = None,
    max_words: int | None = MAX_WORDS,
    caption_cache: int = DEFAULT_CACHE_BYTES,
    prune: bool = True,
) -> Scorer:
    """Open a bundle for scoring, with all of its graphs, so that damage shows now and not later.

    `auto` takes the fastest engine that works on this machine, on a GPU only if `device` asks for
    it or if the bundle has compiled plans that were compared with the reference on this GPU.

    Args:
        bundle: A `Bundle`, its folder, or its address on the Hub, `hf://OWNER/NAME[@REVISION]`.
        engine: `auto`, or one of the names that `sgraf-deploy doctor` lists; or `NAME:PRECISION`.
        precision: `fp32`, `fp16` or `fp8`; None for the one that the engine prefers.
        device: `cpu`, `cuda` or `cuda:N`; None for the one that the engine prefers.
        threads: CPU threads that score; None for the number that the engine prefers.
        options: `device`, `threads` and options that are rarely needed: see `EngineOptions`.
        memory_budget: Bytes that one tile may take: by default 1 GiB, on a GPU part of its memory.
        tile: A fixed size of the tiles, in place of the size that the budget gives.
        max_words: The most tokens of a caption, `<start>` and `<end>` included; None for any.
        caption_cache: Bytes of encoded queries that are kept, 64 MiB by default; 0 keeps none.
        prune: Whether members are left out where they cannot change a result, on engine native.

    Raises:
        BundleError: a bundle, or a compiled plan, that cannot be used or fetched.
        InputError: an unknown engine, a precision that the bundle lacks, unfit arguments.
        UnavailableError: no engine here can do what was asked for; it says what is missing.
        GateError: a compiled plan, which is compared with the reference now, misses a bound.

    Example:
        >>> with sgraf_deploy.load("f8k.sgraf") as scorer:
        ...     similarities = scorer.score(regions, ["two dogs play in the snow"])
        >>> sgraf_deploy.load("f8k.sgraf", engine="ort", precision="fp32", threads=2)
        Scorer(f8k.sgraf, ort, fp32 on cpu)
    """
    check_load(bundle, engine, precision, device, threads, options, memory_budget, tile, max_words)
    check_kept(caption_cache, prune)
    wanted = merge_options(options, device=device, threads=threads)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    request = request_of(engine, precision, wanted.device)
    running, choice = _open(opened, request, wanted)
    return Scorer(
        opened,
        running,
        precision=choice.precision,
        limits=TileLimits(memory_budget or running.tile_advice.tile_bytes, running.tile_advice),
        tile=tile,
        max_words=max_words,
        caption_cache=caption_cache,
        prune=prune,
    )


def _open(bundle: Bundle, request: Request, options: EngineOptions) -> tuple[Engine, Choice]:
    """Choose an engine and open all graphs; compare plans that were never compared before."""
    choice = choose(request, Machine(bundle, options))
    _say(request.engine, choice, bundle)
    options = replace(options, device=choice.device)
    running = open_engine(choice.engine, bundle, choice.precision, options)
    try:
        for member in bundle.manifest.members:
            for graph in GRAPHS:
                running.open(member, graph)
        if running.unverified:
            gate_engine(bundle, running, choice.precision)
            running.mark_verified()
    except BaseException:
        running.close()
        raise
    return running, choice


def _say(asked: str, choice: Choice, bundle: Bundle) -> None:
    """Log which engine `auto` took; warn if a CPU has no fp32 graphs to run, which is slow."""
    if asked != AUTO:
        return
    name = bundle.path.name
    log.info("%s: engine %s, %s on %s", name, choice.engine, choice.precision, choice.device)
    if choice.device == "cpu" and choice.engine != "native" and os.environ.get(ISA):
        log.warning(
            "%s asks for an instruction set of engine native, which does not work here: engine %s "
            "is taken; `sgraf-deploy doctor` says why",
            ISA,
            choice.engine,
        )
    if choice.device == "cpu" and "fp32" not in bundle.manifest.precisions:
        log.warning(
            "%s has no fp32 graphs, the only ones that engines native and ort run: engine %s "
            "computes %s, more slowly",
            name,
            choice.engine,
            choice.precision,
        )


class Scorer(Sharing):
    """Encodes images and captions and scores them, with one bundle on one engine.

    `load` makes one; use it as a context manager, or close it. Wherever a method takes images, they
    are encoded ones (`encode_images`) or regions (images, regions, img_dim) float32 or float16; and
    captions are encoded ones (`encode_captions`), strings, or token ids. Encode what is used twice.

    A similarity is a float32 in 0 … 1, the model's sigmoid; for a bundle of several members it is
    the mean of theirs. Ranks follow the logits, which do not saturate.

    Threads may share a scorer: every call keeps its own state. Under asyncio, call it through
    `asyncio.to_thread`. A process forked after `load` must not use it, and gets an error: load
    after the fork, in every worker. `progress` is called with (done, total) in images, captions or
    pairs.

    Example:
        >>> import numpy as np
        >>> import sgraf_deploy
        >>> regions = np.load("dev_ims.npy", mmap_mode="r")
        >>> names = [f"photo{row}.jpg" for row in range(len(regions))]
        >>> scorer = sgraf_deploy.load("f8k.sgraf", device="cpu")
        >>> images = scorer.encode_images(regions)
        >>> captions = scorer.encode_captions(["two dogs play in the snow", "a man climbs a rock"])
        >>> similarities = scorer.score(images, captions)
        >>> best = scorer.rank("two dogs play in the snow", images, top_k=3, ids=names)
        >>> scorer.members, scorer.precision, scorer.max_words
        (('sgr', 'saf'), 'fp32', 512)

    The examples of the methods go on from here.
    """

    def score(
        self,
        images: Images,
        captions: Captions,
        *,
        out: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Score every image with every caption: similarities (images, captions) float32.

        They are written into `out` if it is given: an array (images, captions) float32, a part of
        one, or a memory map. Beyond encoded inputs and the result, memory does not grow with the
        matrix.

        Raises:
            DataError: images or captions that do not fit the bundle; an `out` of another shape or
                dtype, whose elements overlap, or that shares memory with the inputs.
            EngineMemoryError: not even one pair fits on the device.

        Example:
            >>> scorer.score(images, captions).shape
            (6, 2)
            >>> large = np.lib.format.open_memmap("all.npy", "w+", np.float32, (6, 2))
            >>> scorer.score(images, captions, out=large) is large
            True
        """
        sides = self._checked(images, captions)
        if out is not None:
            check_outputs({"out": out}, (len(sides[0]), len(sides[1])), (images, captions))
        one, other = self._encoded(*sides)
        return matrix.similarity_matrix(self._context, one, other, out, progress)

    def logits(
        self,
        images: Images,
        captions: Captions,
        *,
        out: Mapping[str, NDArray[np.float32]] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Compute every member's logits (images, captions) float32, for evaluation.

        `out` may hold an array or a memory map for each member, which share no memory;
        `engines.ensemble.ensemble_logits` combines the members.

        Raises:
            DataError, EngineMemoryError: as `score`.

        Example:
            >>> logits = scorer.logits(images, captions)
            >>> {member: matrix.shape for member, matrix in logits.items()}
            {'sgr': (6, 2), 'saf': (6, 2)}
        """
        named = None if out is None else name_outputs(out, self.members)
        sides = self._checked(images, captions)
        if named is not None:
            check_outputs(named, (len(sides[0]), len(sides[1])), (images, captions))
        one, other = self._encoded(*sides)
        return matrix.member_matrices(self._context, one, other, out, progress)

    def count_ranks(
        self,
        images: Images,
        captions: Captions,
        captions_per_image: int = 5,
        *,
        ensemble_only: bool = False,
        out: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, RankCounts]:
        """Count the ranks of the ground truths, both ways, by member and for the ensemble.

        Its name is `sgraf` for one SGR and one SAF, `ensemble` for others of several members.
        Caption `captions_per_image * i + j` belongs to image `i`. Tiles are counted where they are
        scored, on a GPU on the GPU, so that no matrix is held; ties rank last. `out` takes the
        similarities on the way, as in `score`.

        With `ensemble_only` the members' own ranks are not counted. The most costly members then
        score only the pairs with which they can change the ensemble's ranks, where the engine
        allows that (see `load`) and there is no `out`; the counts are the same.

        Raises:
            InputError: an image has another number of captions.
            DataError: as `score`.

        Example:
            >>> counts = scorer.count_ranks(images[:2], captions, captions_per_image=1)
            >>> list(counts), counts["sgraf"].text_to_image.shape
            (['sgr', 'saf', 'sgraf'], (2,))
        """
        sides = self._checked(images, captions)
        if out is not None:
            check_outputs({"out": out}, (len(sides[0]), len(sides[1])), (images, captions))
        one, other = self._encoded(*sides)
        return ranks.count_ranks(
            self._context,
            one,
            other,
            captions_per_image,
            progress,
            out,
            ensemble_only=ensemble_only,
        )

    def score_pairs(
        self,
        images: Images,
        captions: Captions,
        image_index: Index | None = None,
        caption_index: Index | None = None,
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Score single pairs: similarities (pairs,) float32.

        Image `image_index[i]` is paired with caption `caption_index[i]`, both (pairs,) integers;
        without them image `i` with caption `i`, of which there are as many.

        Raises:
            DataError: an index that is no integer or out of range, two of unequal length, one
                alone, or other numbers of images and captions where there is none.

        Example:
            >>> scorer.score_pairs(images[:2], captions).shape
            (2,)
            >>> scorer.score_pairs(images, captions, [0, 3, 5], [1, 0, 0]).shape
            (3,)
        """
        logits = self.logits_pairs(images, captions, image_index, caption_index, progress=progress)
        return similarities(ensemble_logits(logits))

    def logits_pairs(
        self,
        images: Images,
        captions: Captions,
        image_index: Index | None = None,
        caption_index: Index | None = None,
        *,
        progress: Progress | None = None,
    ) -> dict[str, Logits]:
        """Compute every member's logits (pairs,) float32 of single pairs, as `score_pairs` does.

        Raises:
            DataError: as `score_pairs`.

        Example:
            >>> sorted(scorer.logits_pairs(images[:2], captions))
            ['saf', 'sgr']
        """
        sides = self._checked(images, captions)
        rows = pairs.pair_rows(image_index, caption_index, len(sides[0]), len(sides[1]))
        one, other = self._encoded(*sides)
        return pairs.pair_logits(self._context, one, other, *rows, progress)

    def plan(self, images: EncodedImages, captions: EncodedCaptions) -> Tiling:
        """Do what `tiling` does, under the name that it had before.

        Example:
            >>> scorer.plan(images, captions).pairs
            12
        """
        return self.tiling(images, captions)
