"""A bundle that is opened on an engine: it encodes, and saves and loads what was encoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import MAX_PIXELS, Precision
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.engines.base import Engine
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.features.base import RegionExtractor
from sgraf_deploy.features.decode import Source
from sgraf_deploy.features.photographs import Unread, check_photos
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime import encode
from sgraf_deploy.runtime.arguments import check_process
from sgraf_deploy.runtime.caption_cache import DEFAULT_CACHE_BYTES, CaptionCache
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages, name_of
from sgraf_deploy.runtime.encoding import Encoding, Kind, image_encoding, text_encoding
from sgraf_deploy.runtime.estimate import Estimate, estimate
from sgraf_deploy.runtime.origin import Origin
from sgraf_deploy.runtime.photos import ForeignWatch, LazyExtractor, reader_of
from sgraf_deploy.runtime.tiles import TileLimits, TileShape
from sgraf_deploy.runtime.tokens import CaptionReader, Lengths, RawCaptions, TokenIds

Images = EncodedImages | NDArray[Any]
"""Encoded images, or regions (images, regions, img_dim) of floats, also as a memory map."""

Captions = EncodedCaptions | RawCaptions

CheckedImages = EncodedImages | NDArray[Any]
CheckedCaptions = EncodedCaptions | list[TokenIds]


class OpenedBundle:
    """The part of a `Scorer` that encodes."""

    def __init__(  # noqa: PLR0913  # what `load` passes on
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        precision: Precision,
        limits: TileLimits,
        tile: TileShape | None = None,
        max_words: int | None = MAX_WORDS,
        caption_cache: int = DEFAULT_CACHE_BYTES,
        prune: bool = True,
    ) -> None:
        """Take over an engine that was opened on the bundle; `load` does this for you."""
        configs = {name: member.config for name, member in bundle.manifest.members.items()}
        made = (bundle.manifest, precision, engine.executed)
        origin = Origin(bundle.sha256, configs, engine, image_encoding(*made), text_encoding(*made))
        self.bundle = bundle
        self._context = Context(
            origin, limits, tile, cache=CaptionCache(caption_cache), prune=prune
        )
        self._process = os.getpid()
        self._closed = False
        self._reader = CaptionReader(bundle, max_words)
        self._extractor = LazyExtractor(bundle)

    @property
    def engine_name(self) -> str:
        """The name of the engine that runs, also where `auto` chose it."""
        return self._context.engine.name

    @property
    def executed(self) -> str:
        """The arithmetic that the engine really executes: `fp32`, `fp16-rounded`, …"""
        return self._context.engine.executed

    @property
    def device(self) -> str:
        """Where the engine runs: `cpu`, or `cuda:N` for the GPU of that number."""
        return self._context.engine.device

    @property
    def precision(self) -> Precision:
        """The precision of the bundle's graphs that run: `fp32`, `fp16` or `fp8`."""
        return self._context.origin.precision

    @property
    def members(self) -> tuple[str, ...]:
        """The bundle's members: `sgr`, `saf`, and others of a module as `sgr-2`, …"""
        return tuple(self._context.configs)

    @property
    def prunes(self) -> bool:
        """Whether members are left out where they cannot change a result: see `load`."""
        return self._context.prunes

    @property
    def max_words(self) -> int | None:
        """The most tokens of a caption that is read; None for any number."""
        return self._reader.bound.max_words

    @property
    def image_encoding(self) -> Encoding:
        """What binds this scorer's images: a scorer of an equal one may use their rows."""
        return self._context.origin.images

    @property
    def text_encoding(self) -> Encoding:
        """What binds this scorer's captions: a scorer of an equal one may use their rows."""
        return self._context.origin.captions

    def encode_images(
        self, regions: NDArray[Any], *, progress: Progress | None = None
    ) -> EncodedImages:
        """Encode images, which stay on the engine's device until nothing refers to them.

        `regions` are the region features of every image, (images, regions, img_dim) float32 or
        float16; float64 and another byte order are converted, with one RegionsWarning. A memory map
        is read batch by batch. `progress` is called with (done, total) images.

        Raises:
            DataError: another shape or dtype, or a value that is not finite; it names the image.

        Example:
            >>> regions.shape, regions.dtype
            ((6, 7, 64), dtype('float32'))
            >>> scorer.encode_images(regions)
            EncodedImages(6 images, fp32, 15 kB on cpu)
        """
        self._check_usable()
        return encode.encode_images(self._context, regions, progress)

    @property
    def extractor(self) -> RegionExtractor:
        """What makes the bundle's regions of photographs; opened, and checked, at the first use.

        Its `extract` takes decoded pictures, its `spec` is the recipe.

        Raises:
            BundleError: the bundle was exported without `--extractor`, or it is damaged.
            UnavailableError: Pillow or ONNX Runtime is missing.
            GateError: it makes other regions of the reference picture here.

        Example:
            >>> with sgraf_deploy.load("photos.sgraf") as seeing:
            ...     seeing.extractor.regions, seeing.extractor.img_dim, seeing.extractor.spec.kind
            (7, 64, 'grid')
        """
        self._check_usable()
        return self._extractor.get()

    def encode_photos(
        self,
        photos: Sequence[Source],
        *,
        progress: Progress | None = None,
        unread: Unread | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> EncodedImages:
        """Encode photographs, as `encode_images` encodes the regions that `extractor` finds there.

        `photos` are paths of files, bytes of files, or pictures (height, width, 3) uint8 in RGB and
        upright. They are decoded and extracted batch by batch, so that memory stays bounded; one of
        more than `max_pixels` pixels counts as one that cannot be read.
        `progress` is called with (done, total) photographs. Regions unlike those of the training,
        as far as the bundle knows them, are warned of, with RegionsWarning. With `unread` those
        that cannot be read are left out, and it is called for each, in order, with the photograph's
        number, counted from 0, and the DataError: the others follow one another.

        Raises:
            DataError: it names the photograph that cannot be read, without `unread`.
            InputError: it names the photograph in which the extractor finds no regions.
            BundleError, UnavailableError, GateError: as `extractor`.

        Example:
            >>> with sgraf_deploy.load("photos.sgraf") as seeing:
            ...     photos = seeing.encode_photos(["photos/photo0.png", "photos/photo1.png"])
            ...     best = seeing.rerank("two dogs play in the snow", photos)
            >>> len(photos), len(best)
            (2, 2)
        """
        extractor = self.extractor
        checked = check_photos(photos)
        watch = ForeignWatch(self.bundle.manifest)
        reasons: dict[int, DataError] = {}
        note = None if unread is None else reasons.__setitem__
        read = reader_of(extractor, checked, progress, watch.add, note, max_pixels)
        encoded = encode.encode_batches(self._context, len(checked), read)
        watch.warn()
        if unread is None or not reasons:
            return encoded
        for row in sorted(reasons):
            unread(row, reasons[row])
        return encoded[[row for row in range(len(checked)) if row not in reasons]]

    def encode_captions(
        self,
        captions: RawCaptions,
        lengths: Lengths | None = None,
        *,
        progress: Progress | None = None,
        queries: bool = False,
    ) -> EncodedCaptions:
        """Encode captions, which stay on the engine's device until nothing refers to them.

        `captions` are strings, or every caption's token ids with `<start>` and `<end>`, in any
        order of lengths. Padded ids, such as an array (captions, words), need `lengths`: how many
        of each caption's ids are real, (captions,) integers. `progress` is called with (done,
        total) captions. Ids without `<start>` or `<end>` are warned of, once, with CaptionWarning.
        `queries`, which come again, are taken from the scorer's cache, or encoded and kept there.

        Raises:
            DataError: it names the caption that is empty, longer than `max_words`, or whose ids are
                no integers, lie outside the vocabulary or hold `<pad>` (0 without a vocabulary).
            BundleError: strings, where the bundle has no vocabulary.

        Example:
            >>> scorer.encode_captions(["two dogs play in the snow", "a man climbs a rock"])
            EncodedCaptions(2 captions, fp32, 4.6 kB on cpu)
            >>> padded = np.array([[1, 17, 9, 2], [1, 30, 2, 0]])
            >>> scorer.encode_captions(padded, lengths=[4, 3]).lengths
            array([4, 3], dtype=int32)
        """
        self._check_usable()
        token_ids = self._reader.token_ids(captions, lengths)
        return encode.encode_captions(self._context, token_ids, progress, queries=queries)

    def cache_counts(self) -> tuple[int, int]:
        """How many captions of queries were found in the cache, and how many were not.

        Example:
            >>> hits, misses = scorer.cache_counts()
            >>> encoded = scorer.encode_captions(["a dog on a beach"], queries=True)
            >>> encoded = scorer.encode_captions(["a dog on a beach"], queries=True)
            >>> scorer.cache_counts() == (hits + 1, misses + 1)
            True
        """
        return self._context.cache.hits, self._context.cache.misses

    def scored_pairs(self) -> dict[str, int]:
        """How many pairs each member has scored since the bundle was opened; threads add up.

        Members are left out where they cannot change a result: see `load`.

        Example:
            >>> before = scorer.scored_pairs()
            >>> scores = scorer.score(images, captions)
            >>> {member: pairs - before[member] for member, pairs in scorer.scored_pairs().items()}
            {'sgr': 12, 'saf': 12}
        """
        return self._context.scored.counts()

    def estimate(self, images: int, lengths: Sequence[int] | NDArray[Any]) -> Estimate:
        """Estimate what so many images, and captions (captions,) of so many words, will take.

        Words count `<start>` and `<end>`. Nothing is encoded.

        Example:
            >>> scorer.estimate(6, [9, 11]).matrix
            48
        """
        self._check_usable()
        return estimate(self._context, images, np.asarray(lengths, np.int32))

    def device_memory(self) -> dict[str, int]:
        """Bytes on a GPU by purpose: `peak`, what the engine took at most, `free` and `total`.

        Nothing for an engine on the host.

        Example:
            >>> scorer.device, scorer.device_memory()
            ('cpu', {})
        """
        return self._context.engine.device_memory()

    def close(self) -> None:
        """Release the engine; what was encoded cannot be used any more. `with` does it for you.

        Example:
            >>> other = sgraf_deploy.load("f8k.sgraf")
            >>> other.close()
            >>> other.encode_images(regions)
            Traceback (most recent call last):
            sgraf_deploy.errors.InputError: this scorer is closed; load the bundle again
        """
        if not self._closed:
            self._closed = True
            if self._process == os.getpid():
                self._context.pool.close()
                self._context.cache.clear()
                self._context.engine.close()
                self._extractor.close()

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
        what = f"{self.bundle.short_name}, {self.engine_name}, {self.executed} on {self.device}"
        return f"{type(self).__name__}({what}{', closed' if self._closed else ''})"

    def _check_usable(self) -> None:
        if self._closed:
            raise InputError("this scorer is closed", hint="load the bundle again")
        check_process(
            self._process,
            "this scorer was loaded before the process was forked",
            "call load after the fork, in every worker",
        )

    def _checked(self, images: Any, captions: Any) -> tuple[CheckedImages, CheckedCaptions]:
        """Check images and captions, so that an error comes before anything is encoded."""
        self._check_usable()
        origin = self._context.origin
        sides: tuple[tuple[Any, Kind], ...] = ((images, "images"), (captions, "captions"))
        for given, name in sides:
            if isinstance(given, EncodedImages | EncodedCaptions):
                if name_of(given) != name:
                    raise InputError(name, expected=name, got=f"encoded {name_of(given)}")
                origin.check(given.origin, name)
        if not isinstance(images, EncodedImages):
            images = encode.check_regions_layout(images, next(iter(origin.configs.values())))
        if not isinstance(captions, EncodedCaptions):
            captions = self._reader.token_ids(captions)
        return images, captions

    def _encoded(
        self, images: CheckedImages, captions: CheckedCaptions, *, queries: bool = False
    ) -> tuple[EncodedImages, EncodedCaptions]:
        """Encode what is not encoded of images and captions that `_checked` returned.

        Captions that are `queries` may come from the cache.
        """
        if isinstance(images, np.ndarray):
            images = encode.encode_images(self._context, images)
        if not isinstance(captions, EncodedCaptions):
            captions = encode.encode_captions(self._context, captions, queries=queries)
        return images, captions
