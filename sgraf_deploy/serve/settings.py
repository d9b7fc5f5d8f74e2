"""What a server is told: names, defaults of requests, and the limits on them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sgraf_deploy.errors import InputError
from sgraf_deploy.gallery.record import MOST_ID_BYTES
from sgraf_deploy.serve.calls import Missing

TIMEOUT_HEADER = "x-timeout-ms"
"""The header by which a client shortens its deadline, in milliseconds."""

PARTIAL_HEADER = "x-allow-partial"
"""The header by which a client takes what a part of the gallery answers: true or false."""

BUNDLE_HEADER, IS_PARTIAL_HEADER = "x-sgraf-bundle", "x-sgraf-partial"
"""The headers of an answer that name the bundle, and say that a part of the gallery is missing."""


MOST_PIXELS = 2**31 - 1
"""The most of a picture's sides, and of a box's places in it."""


@dataclass(frozen=True)
class Limits:
    """The most that a request may be; more is refused before it is decoded.

    `body_s` is the seconds that a body may take to arrive; `depth` the nesting of its JSON.
    """

    body_bytes: int = 32 * 2**20
    body_s: float = 30.0
    documents: int = 1000
    depth: int = 32
    id_bytes: int = MOST_ID_BYTES

    def __post_init__(self) -> None:
        """Raise InputError for a limit below 1, or ids longer than a gallery takes."""
        for name in ("body_bytes", "documents", "depth", "id_bytes"):
            if getattr(self, name) < 1:
                raise InputError(name, expected="at least 1", got=getattr(self, name))
        if self.body_s <= 0:
            raise InputError("body_s", expected="a positive number of seconds", got=self.body_s)
        if self.id_bytes > MOST_ID_BYTES:
            raise InputError("id_bytes", expected=f"at most {MOST_ID_BYTES}", got=self.id_bytes)


@dataclass(frozen=True)
class Settings:
    """How requests are read.

    `models` are the names that clients may use; answers carry the one that was asked for, or the
    first. A string that begins with `image_prefix` is an image's id; with an empty prefix every
    string in `documents` is one. `missing` and `truncate` are those of a `Call`; `timeout_s` is the
    deadline of a request, which a client may shorten.

    Example:
        >>> Settings(models=("sgraf", "rerank-english-v3.0"), missing="skip").image_prefix
        'image:'
    """

    models: tuple[str, ...] = ("sgraf",)
    image_prefix: str = "image:"
    missing: Missing = "error"
    truncate: bool = False
    timeout_s: float = 30.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raise InputError for no model name, or a deadline that is not positive."""
        if not self.models or not all(self.models):
            raise InputError("models", expected="at least one name", got=self.models)
        if self.timeout_s <= 0:
            expected = "a positive number of seconds"
            raise InputError("timeout_s", expected=expected, got=self.timeout_s)
