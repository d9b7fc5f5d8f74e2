"""The part of a scorer that does some tiles of a matrix, so that several can share all of them."""

from __future__ import annotations

import numpy as np

from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime import encode, ranks
from sgraf_deploy.runtime.arguments import check_count, check_kind
from sgraf_deploy.runtime.encode import EncodingBatches
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.opened import Captions, Images
from sgraf_deploy.runtime.part import Execution
from sgraf_deploy.runtime.partial import PartialRanks
from sgraf_deploy.runtime.reranking import Reranking
from sgraf_deploy.runtime.share import Share, TileNumbers, check_share
from sgraf_deploy.runtime.thresholds import RankThresholds
from sgraf_deploy.runtime.tiles import Tiling
from sgraf_deploy.runtime.tokens import Lengths
from sgraf_deploy.runtime.top_k import PartialTopK


class Sharing(Reranking):
    """The part of a `Scorer` that does some tiles of a matrix."""

    def tiling(self, images: EncodedImages, captions: EncodedCaptions) -> Tiling:
        """Compute the tiles that `score` would use, with the bytes of a tile and of the result.

        Raises:
            InputError: images or captions that another scorer encoded.

        Example:
            >>> tiling = scorer.tiling(images, captions)
            >>> tiling.pairs, tiling.result_bytes
            (12, 48)
        """
        one, other = self._encoded(*self._checked(images, captions))
        return self._context.tiling(len(one), other.lengths)

    @property
    def execution(self) -> Execution:
        """What computes the logits here: those who share tiles must have equal ones.

        Example:
            >>> scorer.execution.engine, scorer.execution.precision
            ('native', 'fp32')
        """
        return Execution.of(self._context)

    def tiling_of(self, images: int, lengths: Lengths) -> Tiling:
        """Compute the tiles of so many images and captions of these lengths, as `tiling` does.

        `lengths` (captions,) count words, `<start>` and `<end>` included. Nothing is encoded.

        Example:
            >>> sizes = len(images), captions.lengths
            >>> scorer.tiling_of(*sizes).digest == scorer.tiling(images, captions).digest
            True
        """
        self._check_usable()
        return self._context.tiling(images, np.asarray(lengths, np.int32))

    def encoding_batches(self, lengths: Lengths) -> EncodingBatches:
        """Say in which batches images, and captions of these lengths (captions,), are encoded.

        The last bits of a caption depend on those that are encoded with it: several who share the
        encoding must take whole batches, each by itself.

        Example:
            >>> scorer.encoding_batches(captions.lengths).captions
            (2,)
        """
        self._check_usable()
        return encode.encoding_batches(self._context, np.asarray(lengths, np.int32))

    def rank_thresholds(
        self, images: Images, captions: Captions, captions_per_image: int = 5
    ) -> RankThresholds:
        """Score the ground truths alone: what every tile is compared with to count ranks.

        Caption `captions_per_image * i + j` belongs to image `i`.

        Raises:
            InputError: an image has another number of captions.
            DataError: as `score`.

        Example:
            >>> scorer.rank_thresholds(images[:2], captions, captions_per_image=1)
            RankThresholds(2 images, 2 captions, native, fp32)
        """
        one, other = self._encoded(*self._checked(images, captions))
        return ranks.score_truths(self._context, one, other, captions_per_image)

    def count_tiles(  # noqa: PLR0913  # what is counted, where, and who is told
        self,
        images: Images,
        captions: Captions,
        thresholds: RankThresholds,
        tiles: TileNumbers | None = None,
        *,
        tiling: Tiling | None = None,
        first_image: int = 0,
        ensemble_only: bool = False,
        progress: Progress | None = None,
    ) -> PartialRanks:
        """Count in some tiles what `count_ranks` counts in all; parts add up to the same counts.

        `tiles` are numbers of the tiling's, from 0: a range or a list; None for all. `tiling` is
        what all who share the tiles were given, as it depends on the memory of the machine that
        made it; without it, this scorer's own. `images` may be those alone that the tiles hold, of
        which the first is the tiling's image `first_image`; `captions` are all of them. Whoever
        shares the tiles takes the same encoded images and captions: the last bits of a caption
        depend on those that are encoded with it. `ensemble_only` is that of `count_ranks`, and all
        parts take the same.

        Raises:
            InputError: tiles that the tiling has not, or one twice; a tiling of other sizes, or
                images that it needs and that are not there; thresholds of another bundle, engine
                or precision, or of other sizes.
            DataError: as `score`.

        Example:
            >>> thresholds = scorer.rank_thresholds(images[:2], captions, captions_per_image=1)
            >>> part = scorer.count_tiles(images[:2], captions, thresholds, range(0, 1))
            >>> counts = part.counts(thresholds)
            >>> whole = scorer.count_ranks(images[:2], captions, captions_per_image=1)
            >>> bool((counts["sgraf"].text_to_image == whole["sgraf"].text_to_image).all())
            True
        """
        check_kind("thresholds", thresholds, RankThresholds)
        one, other = self._encoded(*self._checked(images, captions))
        share = self._share(one, other, tiles, tiling, first_image)
        return ranks.count_share(
            self._context, one, other, thresholds, share, progress, ensemble_only=ensemble_only
        )

    def top_k_tiles(
        self,
        images: Images,
        captions: Captions,
        k: int,
        tiles: TileNumbers | None = None,
        *,
        tiling: Tiling | None = None,
        first_image: int = 0,
        progress: Progress | None = None,
    ) -> PartialTopK:
        """Find the best `k` captions of every image, and images of every caption, in some tiles.

        The best are those of all members combined, as in `rerank`; equal ones rank by their row.
        The other arguments are those of `count_tiles`. The most costly members score only the pairs
        that can be among the best, where the engine allows that (see `load`); the result is the
        same.

        Raises:
            InputError: a `k` below 1; else as `count_tiles`.
            DataError: as `score`.

        Example:
            >>> best = scorer.top_k_tiles(images, captions, k=3).result()
            >>> best["text_to_image"].indices.shape, best["image_to_text"].indices.shape
            ((2, 3), (6, 2))
        """
        check_count("k", k)
        one, other = self._encoded(*self._checked(images, captions))
        share = self._share(one, other, tiles, tiling, first_image)
        return ranks.find_best(self._context, one, other, int(k), share, progress)

    def _share(
        self,
        images: EncodedImages,
        captions: EncodedCaptions,
        tiles: TileNumbers | None,
        tiling: Tiling | None,
        first_image: int,
    ) -> Share:
        """The tiles to do; raises as `check_share`."""
        if tiling is None:
            tiling = self._context.tiling(len(images), captions.lengths)
        check_kind("tiling", tiling, Tiling)
        return check_share(tiling, tiles, images, captions, first_image)
