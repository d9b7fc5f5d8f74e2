"""Reads a query and its documents: captions, ids of stored images, or regions."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.serve.calls import (
    CaptionText,
    MalformedError,
    Part,
    RegionsArray,
    RequestError,
    StoredId,
    TooLargeError,
    UnprocessableError,
)
from sgraf_deploy.serve.settings import Settings

SEND = (
    "send a caption and the ids of images, or the id of an image and captions: an image is "
    '{"image_id": ID}, {"regions": BASE64, "dtype": "float16", "shape": [REGIONS, DIM]}, or a '
    "string of the prefix and its id, such as image:ID"
)
"""The hint of every request that cannot be scored."""

_DTYPES: dict[str | None, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
MOST_VALUE = 1e15
"""The largest size of a region's value: sums of products of larger ones may overflow float32 in
the model, whose logits are then no numbers. Features that anybody extracts are below 1e4."""

_ADDRESS = re.compile(r"\s*(?:[a-zA-Z][a-zA-Z0-9+.-]*://\S+|data:[^\s,]*,.*)\s*", re.DOTALL)
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of surrogate pairs, which are no text."""
_INDEX = re.compile(r"at `\$\[(\d+)\]")


Whole = int | float
"""An integer in JSON, which knows no other numbers than floats: 4.0 is 4."""


class Given(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A query or a document that is an object: exactly one of text, image_id and regions."""

    text: str | None = None
    image_id: str | None = None
    regions: str | None = None
    dtype: str | None = None
    shape: tuple[Whole, Whole] | None = None


Sent = str | Given
_QUERY = msgspec.json.Decoder(Sent)
_DOCUMENTS = msgspec.json.Decoder(list[Sent])


@dataclass(frozen=True)
class Reader:
    """Reads the queries and documents of requests, by a server's settings.

    `regions` and `img_dim` are the dimensions of the model's images.
    """

    settings: Settings
    regions: int
    img_dim: int

    def query(self, raw: msgspec.Raw, captions: bool) -> Part:
        """The query to documents that are captions, or images."""
        try:
            sent = _QUERY.decode(raw)
        except msgspec.DecodeError as error:
            raise _no_part("query", error) from error
        if isinstance(sent, str):
            prefix = self.settings.image_prefix
            if captions and prefix and sent.startswith(prefix):
                return self._stored(sent[len(prefix) :], "query")
            part: Part = CaptionText(_text(sent, "query"))
        else:
            part = self.part(sent, "query")
        if isinstance(part, CaptionText) is captions:
            both = "captions" if captions else "images"
            raise UnprocessableError(
                "query and documents",
                expected="a caption and images, or an image and captions",
                got=f"{both} on both sides",
                hint=SEND,
                param="query",
                code="same_kind",
            )
        return part

    def documents(self, raw: msgspec.Raw, field: str) -> tuple[tuple[Part, ...], Sequence[Sent]]:
        """The documents of a field, all captions or all images, and as they were sent."""
        try:
            sent = _DOCUMENTS.decode(raw)
        except msgspec.DecodeError as error:
            index = _INDEX.search(str(error))
            raise _no_part(f"{field}[{index[1]}]" if index else field, error) from error
        most = self.settings.limits.documents
        if len(sent) > most:
            raise TooLargeError(
                field,
                expected=f"at most {most} of them",
                got=len(sent),
                param=field,
                code="too_many_documents",
            )
        if not sent:
            raise UnprocessableError(
                field, expected="at least one", got="none", param=field, code="no_documents"
            )
        return self._named(sent) or self._parts(sent, field), sent

    def _named(self, sent: Sequence[Sent]) -> tuple[StoredId, ...] | None:
        """Documents that are strings with usual ids of images, as nearly all are; None for others.

        It takes a fifth of the time of looking at each.
        """
        strings = [one for one in sent if isinstance(one, str)]
        text = "".join(strings)
        if len(strings) != len(sent) or not (text.isascii() and text.isprintable()):
            return None
        prefix, start = self.settings.image_prefix, len(self.settings.image_prefix)
        longest = start + self.settings.limits.id_bytes
        named = [one for one in strings if one.startswith(prefix) and start < len(one) <= longest]
        if len(named) != len(sent):
            return None
        return tuple([StoredId(one[start:]) for one in named])

    def _parts(self, sent: Sequence[Sent], field: str) -> tuple[Part, ...]:
        """Documents of any form, all captions or all images."""
        parts = tuple(self._document(one, f"{field}[{row}]") for row, one in enumerate(sent))
        captions = isinstance(parts[0], CaptionText)
        for row, part in enumerate(parts):
            if isinstance(part, CaptionText) is not captions:
                raise UnprocessableError(
                    f"{field}[{row}]",
                    expected="captions alone, or images alone",
                    got="both",
                    hint=SEND,
                    param=f"{field}[{row}]",
                    code="mixed_documents",
                )
        return parts

    def _document(self, sent: Sent, name: str) -> Part:
        if not isinstance(sent, str):
            return self.part(sent, name)
        prefix = self.settings.image_prefix
        if sent.startswith(prefix):
            return self._stored(sent[len(prefix) :], name)
        return CaptionText(_text(sent, name))

    def part(self, sent: Given, name: str) -> Part:
        """What an object holds; the error names the document."""
        if sent == Given(image_id=sent.image_id) and sent.image_id is not None:
            return self._stored(sent.image_id, name)
        forms = [one for one in (sent.text, sent.image_id, sent.regions) if one is not None]
        extra = sent.regions is None and (sent.dtype is not None or sent.shape is not None)
        if len(forms) != 1 or extra:
            raise UnprocessableError(
                name,
                expected="one of text, image_id, and regions with dtype and shape",
                got="others",
                hint=SEND,
                param=name,
                code="no_document",
            )
        if sent.text is not None:
            return CaptionText(_text(sent.text, name))
        if sent.image_id is not None:
            return self._stored(sent.image_id, name)
        return RegionsArray(self.array(sent, name))

    def array(self, sent: Given, name: str) -> NDArray[Any]:
        """The regions of an object, (regions, img_dim), finite; checked before it is decoded."""
        wanted = (self.regions, self.img_dim)
        if sent.dtype not in _DTYPES or sent.shape != wanted or sent.regions is None:
            raise _no_regions(
                name,
                f"dtype float32 or float16, and shape [{self.regions}, {self.img_dim}]",
                f"dtype {_short(sent.dtype)}, shape {list(sent.shape or ())}",
            )
        dtype = _DTYPES[sent.dtype]
        size = self.regions * self.img_dim * dtype.itemsize
        length = 4 * -(-size // 3)
        if len(sent.regions) != length:
            expected = f"{length} characters of base64, for {size} bytes"
            raise _no_regions(name, expected, str(len(sent.regions)))
        try:
            decoded = binascii.a2b_base64(sent.regions, strict_mode=True)
        except (binascii.Error, ValueError) as error:
            raise _no_regions(name, "base64", "others") from error
        if len(decoded) != size:
            raise _no_regions(name, f"{size} bytes", str(len(decoded)))
        array = np.frombuffer(decoded, dtype).reshape(wanted)  # (regions, img_dim)
        if not (np.abs(array) <= np.float32(MOST_VALUE)).all():  # NaN is not either
            expected = f"finite numbers from -{MOST_VALUE:g} to {MOST_VALUE:g}"
            raise _no_regions(name, expected, "NaN, infinities or larger ones")
        return array

    def _stored(self, id_: str, name: str) -> StoredId:
        return StoredId(check_id(id_, name, self.settings.limits.id_bytes))


def _is_plain(id_: str, most: int) -> bool:
    return 0 < len(id_) <= most and id_.isascii() and id_.isprintable()


def check_id(id_: str, name: str, most: int) -> str:
    """An image's id: text of 1 to `most` bytes in UTF-8 without control characters."""
    if _is_plain(id_, most):
        return id_  # nearly all of them, at a third of the time
    size = len(id_.encode("utf-8", "surrogatepass"))
    if 0 < size <= most and not _UNFIT.search(id_):
        return id_
    raise UnprocessableError(
        f"{name}: the id of an image",
        expected=f"1 to {most} bytes without control characters",
        got=f"{size} bytes: {_short(id_)}",
        param=name,
        code="invalid_id",
    )


def _text(text: str, name: str) -> str:
    """A caption; addresses and data URIs are refused, and never scored as words."""
    if _ADDRESS.fullmatch(text[:4096] if text.lstrip()[:5].lower() == "data:" else text):
        raise UnprocessableError(
            name,
            expected="a caption, or an image's id or regions",
            got="an address or a data URI: nothing is fetched, and pixels are not scored here",
            hint=SEND,
            param=name,
            code="address",
        )
    return text


def _no_part(name: str, error: msgspec.DecodeError) -> RequestError:
    if not isinstance(error, msgspec.ValidationError):
        return malformed(error)
    told = str(error).partition(" - at ")[0][:200]
    return UnprocessableError(name, got=told, hint=SEND, param=name, code="no_document")


def _no_regions(name: str, expected: str, got: str) -> UnprocessableError:
    return UnprocessableError(
        f"{name}: regions", expected=expected, got=got, param=name, code="invalid_regions"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def decode_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The fields of a JSON object, undecoded, those of null included."""
    try:
        if not body.isascii():
            body.decode()
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from error


def malformed(error: Exception) -> MalformedError:
    """The error for what is no JSON, or no object."""
    told = type(error).__name__
    if isinstance(error, msgspec.DecodeError):
        told = str(error)[:200]
    return MalformedError("the body", expected="a JSON object in UTF-8", got=told)
