"""Encoded images and captions: embeddings that stay on the device of their engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import TensorSpec
from sgraf_deploy.engines.base import Engine, Graph
from sgraf_deploy.engines.buffers import Array, Buffer
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.encoding import Encoding, Kind
from sgraf_deploy.runtime.origin import Origin
from sgraf_deploy.runtime.rows import Rows, resolve_rows


@dataclass(frozen=True, eq=False)
class ImageBuffers:
    """One member's images on the device, by the names of its graphs' inputs.

    `region_embeddings` (images, regions, embed) and `image_global` (images, embed) as stored;
    `region_gram` (images, regions, regions) float32, None where the graphs take none.
    """

    region_embeddings: Buffer
    image_global: Buffer
    region_gram: Buffer | None = None

    @property
    def named(self) -> dict[str, Buffer]:
        """The buffers by name, without those that are None."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: buffer for name, buffer in every.items() if buffer is not None}

    def inputs(
        self, graph: Graph, engine: Engine, rows: slice | NDArray[np.int32]
    ) -> dict[str, Buffer]:
        """Gather what a graph takes of the images at these rows, by input name."""
        wanted = {spec.name for spec in graph.signature.inputs}
        return {
            name: engine.gather(each, rows) for name, each in self.named.items() if name in wanted
        }


@dataclass(frozen=True, eq=False)
class TextBuffers:
    """One member's captions on the device.

    `word_embeddings` are ragged: (all words + 1, embed), the last row zeros, which stand for
    padding. `text_global`: (captions, embed).
    """

    word_embeddings: Buffer
    text_global: Buffer


class _Gallery(Protocol):
    @property
    def origin(self) -> Origin: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Rows) -> Self: ...


G = TypeVar("G", bound=_Gallery)


@dataclass(frozen=True, eq=False, repr=False)
class EncodedImages:
    """Images as every member's encoder made them, on the device of the scorer that did.

    A part of them is `images[rows]`: one number gives a gallery of one image, a slice shares
    memory, other rows (a list or an array of integers) are copied. Iterating gives the images one
    by one. `Scorer.encode_images` and `Scorer.load_images` make them.

    Example:
        >>> images
        EncodedImages(6 images, fp32, 15 kB on cpu)
        >>> images[2], images[:4]
        (EncodedImages(1 image, fp32, 2.4 kB on cpu), EncodedImages(4 images, fp32, 9.8 kB on cpu))
        >>> both = sgraf_deploy.EncodedImages.concatenate([images[:4], images[[5, 0]]])
        >>> len(both), both.nbytes == images.nbytes
        (6, True)
    """

    origin: Origin
    members: Mapping[str, ImageBuffers] = field(repr=False)
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[EncodedImages]:
        return (self[row] for row in range(self.count))

    def __getitem__(self, rows: Rows) -> EncodedImages:
        chosen = resolve_rows(rows, self.count, "image")
        gather = self.origin.engine.gather
        members = {
            name: ImageBuffers(
                **{part: gather(buffer, chosen) for part, buffer in buffers.named.items()}
            )
            for name, buffers in self.members.items()
        }
        return replace(self, members=members, count=_count(chosen))

    @property
    def nbytes(self) -> int:
        """The bytes of the embeddings on the device."""
        every = (each for buffers in self.members.values() for each in buffers.named.values())
        return sum(int(buffer.nbytes) for buffer in every)

    @property
    def encoding(self) -> Encoding:
        """What made them, which is what binds them; see `Encoding`."""
        return self.origin.images

    def to_host(self) -> dict[str, dict[str, Array]]:
        """Fetch the rows, by member and name: what `Scorer.images_from_host` takes.

        `region_embeddings` (images, regions, embed) and `image_global` (images, embed) as stored,
        and `region_gram` (images, regions, regions) float32 where the bundle's graphs take it. An
        engine on the host gives its own arrays, which must not be written to.

        Example:
            >>> rows = images.to_host()
            >>> {name: array.shape for name, array in rows["sgr"].items()}
            {'region_embeddings': (6, 7, 32), 'image_global': (6, 32), 'region_gram': (6, 7, 7)}
        """
        fetch = self.origin.engine.fetch
        return {
            member: {name: fetch(buffer) for name, buffer in buffers.named.items()}
            for member, buffers in self.members.items()
        }

    def __repr__(self) -> str:
        return f"EncodedImages({_contents(self.count, 'image', self.origin, self.nbytes)})"

    @staticmethod
    def concatenate(parts: Sequence[EncodedImages]) -> EncodedImages:
        """Join parts that the same scorer encoded, in order; InputError for others."""
        origin = _common_origin(parts, "images")
        members = {
            name: ImageBuffers(
                **{
                    field: _join(origin.engine, [part.members[name].named[field] for part in parts])
                    for field in parts[0].members[name].named
                }
            )
            for name in origin.configs
        }
        return EncodedImages(origin, members, sum(map(len, parts)))


@dataclass(frozen=True, eq=False, repr=False)
class EncodedCaptions:
    """Captions as every member's encoder made them, on the device of the scorer that did.

    A part of them is `captions[rows]`, with rows as of `EncodedImages`; it shares the words' memory
    with the whole. `lengths` and `offsets` (captions,) int32 say how many words a caption has,
    `<start>` and `<end>` included, and in which row of the words it starts.
    `Scorer.encode_captions` and `Scorer.load_captions` make them.

    Example:
        >>> captions
        EncodedCaptions(2 captions, fp32, 4.6 kB on cpu)
        >>> captions.lengths
        array([8, 7], dtype=int32)
        >>> len(captions[1])
        1
    """

    origin: Origin
    members: Mapping[str, TextBuffers] = field(repr=False)
    lengths: NDArray[np.int32] = field(repr=False)
    offsets: NDArray[np.int32] = field(repr=False)
    padding_row: int
    """The row of zeros, which comes after all words."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[EncodedCaptions]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, rows: Rows) -> EncodedCaptions:
        chosen = resolve_rows(rows, len(self), "caption")
        members = {
            name: replace(
                buffers, text_global=self.origin.engine.gather(buffers.text_global, chosen)
            )
            for name, buffers in self.members.items()
        }
        return replace(
            self, members=members, lengths=self.lengths[chosen], offsets=self.offsets[chosen]
        )

    @property
    def nbytes(self) -> int:
        """The bytes of these captions' embeddings, lengths and offsets."""
        words = int(self.lengths.sum(dtype=np.int64)) + 1
        embeds = sum(config.embed for config in self.origin.configs.values())
        vectors = (words + len(self)) * embeds * self.origin.dtype.itemsize
        return vectors + self.lengths.nbytes + self.offsets.nbytes

    @property
    def encoding(self) -> Encoding:
        """What made them, which is what binds them; see `Encoding`."""
        return self.origin.captions

    def to_host(self) -> dict[str, dict[str, Array]]:
        """Fetch the rows, by member and name: what `Scorer.captions_from_host` takes.

        `word_embeddings` (all words, embed), the captions' real words one after the other, and
        `text_global` (captions, embed), as stored. `lengths` go with them.

        Example:
            >>> rows = captions.to_host()
            >>> {name: array.shape for name, array in rows["saf"].items()}
            {'word_embeddings': (15, 32), 'text_global': (2, 32)}
        """
        fetch = self.origin.engine.fetch
        return {
            member: {
                "word_embeddings": self.compact_words(member),
                "text_global": fetch(buffers.text_global),
            }
            for member, buffers in self.members.items()
        }

    def __repr__(self) -> str:
        return f"EncodedCaptions({_contents(len(self), 'caption', self.origin, self.nbytes)})"

    def word_rows(self, captions: NDArray[np.integer[Any]] | slice, words: int) -> Array:
        """Return the rows of some captions' words, padded: (captions, words) int32."""
        steps = np.arange(words, dtype=np.int32)
        offsets, lengths = self.offsets[captions], self.lengths[captions]
        real = steps < lengths[:, None]
        return np.where(real, offsets[:, None] + steps, np.int32(self.padding_row))

    def inputs(
        self, graphs: Mapping[str, Graph], rows: NDArray[np.integer[Any]], words: int
    ) -> dict[str, dict[str, Buffer]]:
        """Gather what the members' graphs take of the captions at these rows, by input name.

        Graphs that take captions without padding are given all words as they are; for others the
        words are gathered, and padded to so many `words`.
        """
        engine = self.origin.engine
        index = rows.astype(np.int32)
        ragged = all(graph.ragged is not None for graph in graphs.values())
        places = engine.put(self.offsets[index]) if ragged else self.word_rows(index, words)
        lengths = engine.put(self.lengths[index])
        # Nothing gathered is named here: what is out of memory would hold it until it was handled.
        return {
            name: {
                "word_embeddings": buffers.word_embeddings
                if ragged
                else engine.gather(buffers.word_embeddings, places),
                "text_global": engine.gather(buffers.text_global, index),
                "lengths": lengths,
                **({"offsets": places} if ragged else {}),
            }
            for name, buffers in self.members.items()
        }

    def compact_words(self, member: str, *, padded: bool = False) -> Array:
        """Fetch the words of these captions alone, in order: (words, embed).

        With `padded`, the row of zeros follows them.
        """
        engine, lengths = self.origin.engine, self.lengths.astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        rows = np.arange(lengths.sum()) + np.repeat(self.offsets - starts, lengths)
        rows = np.append(rows, self.padding_row) if padded else rows
        words = self.members[member].word_embeddings
        return engine.fetch(engine.gather(words, rows.astype(np.int32)))

    @staticmethod
    def concatenate(parts: Sequence[EncodedCaptions]) -> EncodedCaptions:
        """Join parts that the same scorer encoded, in order; InputError for others."""
        origin = _common_origin(parts, "captions")
        lengths = np.concatenate([part.lengths for part in parts])
        members = {}
        for name, config in origin.configs.items():
            words = [part.compact_words(name) for part in parts]
            words.append(np.zeros((1, config.embed), dtype=origin.dtype))
            members[name] = TextBuffers(
                origin.engine.put(np.concatenate(words)),
                _join(origin.engine, [part.members[name].text_global for part in parts]),
            )
        return make_captions(origin, members, lengths)


def make_captions(
    origin: Origin, members: Mapping[str, TextBuffers], lengths: NDArray[np.int32]
) -> EncodedCaptions:
    """Make captions of lengths (captions,) whose words follow each other in memory."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if total >= np.iinfo(np.int32).max:
        raise InputError("captions", expected="fewer than 2**31 words", got=total)
    offsets = (ends - lengths).astype(np.int32)
    for array in (lengths, offsets):
        array.setflags(write=False)
    return EncodedCaptions(origin, members, lengths, offsets, total)


def name_of(encoded: EncodedImages | EncodedCaptions) -> Kind:
    """Return what messages call them: images or captions."""
    return "images" if isinstance(encoded, EncodedImages) else "captions"


def size_text(size: int) -> str:
    """Format bytes with two digits, or with all digits of a whole number: `2.1 kB`, `73 MB`."""
    scale, unit = next(((s, u) for s, u in ((1e9, "GB"), (1e6, "MB")) if size >= s), (1e3, "kB"))
    return f"{size / scale:,.{0 if size >= 10 * scale else 1}f} {unit}"


def empty_images(origin: Origin, member: str, count: int) -> ImageBuffers:
    """Make room on the device for what a member's image encoder computes of so many images."""
    outputs = origin.engine.open(member, "image_encoder").signature.outputs
    return ImageBuffers(
        **{
            spec.name: origin.engine.empty((count, *image_row(spec)), np.dtype(spec.dtype))
            for spec in outputs
        }
    )


def image_row(spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of an image's row, which is an output's without its first axis."""
    return tuple(axis for axis in spec.axes if isinstance(axis, int))


def _common_origin(parts: Sequence[G], what: Kind) -> Origin:
    if not parts:
        raise InputError(f"encoded {what} to concatenate", expected="at least one", got="none")
    origin = parts[0].origin
    for part in parts[1:]:
        origin.check(part.origin, what)
    return origin


def _join(engine: Engine, buffers: Sequence[Buffer]) -> Buffer:
    return engine.put(np.concatenate([engine.fetch(buffer) for buffer in buffers]))


def _contents(count: int, one: str, origin: Origin, size: int) -> str:
    """Describe a gallery: `1,000 images, fp32, 73 MB on cpu`."""
    many = f"{count:,} {one}{'' if count == 1 else 's'}"
    return f"{many}, {origin.precision}, {size_text(size)} on {origin.engine.device}"


def _count(rows: slice | NDArray[np.int32]) -> int:
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)
