"""The one request that every dialect becomes, its answer, and why a request is refused.

Nothing here knows of HTTP but for the number that a refusal is answered with. What there are many
of in a request is made in a sixth of a dataclass's time, and not looked at by the garbage
collector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from msgspec import Struct
from numpy.typing import NDArray

from sgraf_deploy.config import Direction
from sgraf_deploy.errors import SgrafDeployError

Missing = Literal["error", "skip"]


class CaptionText(Struct, frozen=True, gc=False):
    """A caption by its text."""

    text: str


class StoredId(Struct, frozen=True, gc=False):
    """An image of the gallery by its id."""

    id: str


@dataclass(frozen=True, eq=False)
class RegionsArray:
    """An image by its regions, (regions, img_dim) float32 or float16."""

    array: NDArray[Any]


Part = CaptionText | StoredId | RegionsArray
"""A query or a document."""


@dataclass(frozen=True, eq=False)
class Call:
    """One query and its documents: images for a caption, or captions for an image.

    `documents` are at least one, all captions or all images. `top_n` is how many items to answer
    with, None for all. `missing` says what an id is that the gallery lacks: an error, or left out.
    `truncate` cuts captions that are too long, which are an error otherwise. `first` is the index
    of the first document in the request that this call is a slice of, 0 for a whole request.

    Example:
        >>> call = Call(CaptionText("a red cup"), (StoredId("7"), StoredId("3")))
        >>> call.direction, call.pairs, call.part(1, 2).first
        ('text_to_image', 2, 1)
    """

    query: Part
    documents: tuple[Part, ...]
    top_n: int | None = None
    missing: Missing = "error"
    truncate: bool = False
    first: int = 0

    @property
    def direction(self) -> Direction:
        """`image_to_text` if the documents are captions."""
        captions = isinstance(self.documents[0], CaptionText)
        return "image_to_text" if captions else "text_to_image"

    @property
    def pairs(self) -> int:
        """How many pairs are scored: the number of documents."""
        return len(self.documents)

    def part(self, start: int, stop: int) -> Call:
        """The call of the documents from `start` to before `stop`, counted in this call."""
        return replace(self, documents=self.documents[start:stop], first=self.first + start)


class Item(Struct, frozen=True, gc=False):
    """A document that was scored: its index in the whole request, its similarity and its logit."""

    index: int
    similarity: float
    logit: float


@dataclass(frozen=True)
class Answer:
    """The items of a call, the best first, at most its `top_n` of them.

    `warnings` are sentences for the client, `missing` the indices (in the whole request) of
    documents that the gallery lacks, `tokens` the word tokens that were read.
    """

    items: tuple[Item, ...]
    warnings: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()
    tokens: int = 0


def merge(call: Call, answers: Sequence[Answer]) -> Answer:
    """The answer to a whole call from those to its parts, in the parts' order.

    Items are ordered by logit, those of equal logit by index.

    Example:
        >>> call = Call(CaptionText("a red cup"), (StoredId("7"), StoredId("3")), top_n=1)
        >>> merge(call, [Answer((Item(0, 0.5, 0.0),)), Answer((Item(1, 0.73, 1.0),))]).items
        (Item(index=1, similarity=0.73, logit=1.0),)
    """
    items = sorted((item for each in answers for item in each.items), key=_best_first)
    tokens = [each.tokens for each in answers]
    return Answer(
        tuple(items[: call.top_n]),
        tuple(dict.fromkeys(told for each in answers for told in each.warnings)),
        tuple(sorted(index for each in answers for index in each.missing)),
        # A caption that is the query was read for every part, and counts once.
        max(tokens) if call.direction == "text_to_image" else sum(tokens),
    )


def _best_first(item: Item) -> tuple[float, int]:
    return -item.logit, item.index


class RequestError(SgrafDeployError):
    """A request that is not answered as asked; the children say why.

    `status` is HTTP's number, `kind` the error's type and `code` the case in it, both for programs;
    `param` is the field or document that is meant, `retry_after_s` when to try again.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal_error"

    def __init__(
        self,
        what: str,
        *,
        expected: object = None,
        got: object = None,
        hint: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(what, expected=expected, got=got, hint=hint)
        self.param, self.retry_after_s = param, retry_after_s
        self.code = code if code is not None else self.kind


class MalformedError(RequestError):
    """The request is no JSON, or not of the form that the route takes."""

    status, kind = 400, "invalid_request"


class UnauthorizedError(RequestError):
    """The request carries no key, or none that is known."""

    status, kind = 401, "authentication_error"


class ForbiddenError(RequestError):
    """The key's scope does not allow this request."""

    status, kind = 403, "permission_error"


class NotFoundError(RequestError):
    """A route, a model or an image that does not exist."""

    status, kind = 404, "not_found"


class MethodError(RequestError):
    """The route does not take this method."""

    status, kind = 405, "method_not_allowed"


class SlowError(RequestError):
    """The body did not arrive in time."""

    status, kind = 408, "request_timeout"


class TooLargeError(RequestError):
    """The request exceeds one of the limits."""

    status, kind = 413, "request_too_large"


class MediaTypeError(RequestError):
    """The body is not declared as plain JSON."""

    status, kind = 415, "unsupported_media_type"


class UnprocessableError(RequestError):
    """The request is well formed, but cannot be scored; it says which document and why."""

    status, kind = 422, "unprocessable"


class OverloadedError(RequestError):
    """The queue is full; `retry_after_s` says when to come again."""

    status, kind = 429, "overloaded"


class FailedError(RequestError):
    """The engine failed on this request, or the server is about to stop."""

    status, kind = 503, "unavailable"


class TimedOutError(RequestError):
    """The deadline passed before the request was scored."""

    status, kind = 504, "timeout"
