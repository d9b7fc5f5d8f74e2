"""Reads a request's body, and refuses what is too much before anything is built from it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from sgraf_deploy.serve.calls import MalformedError, MediaTypeError, SlowError, TooLargeError
from sgraf_deploy.serve.connections import Receive
from sgraf_deploy.serve.errors import ClientGoneError
from sgraf_deploy.serve.settings import TIMEOUT_HEADER, Limits

TOKENS_EACH = 24
"""The most structural tokens of JSON that a document of any form needs, twice over."""
TOKENS_BESIDE = 256
"""Those of everything else in a request."""

# A string without its end takes the rest, so that the whole is read once whatever it is.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
_OPENING, _CLOSING, _COMMA = b"[{", b"]}", b","


def headers_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """The headers of an ASGI scope by their names; of those that come twice, the first."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


async def read_body(headers: Mapping[str, str], receive: Receive, limits: Limits) -> bytes:
    """The body of a request for JSON, within the limits on its bytes, time and shape."""
    check_media_type(headers)
    size = headers.get("content-length")
    if size is not None and size.isdecimal() and int(size) > limits.body_bytes:
        raise _too_many_bytes(limits)
    body = await _arrived(receive, limits)
    check_shape(body, limits)
    return body


async def _arrived(receive: Receive, limits: Limits) -> bytes:
    """The whole body. Most come with their headers, and need no timer: it takes longer than they.

    Raises:
        SlowError: it did not arrive in time.
    """
    joined = _joined(receive, limits)
    try:
        waits_for = joined.send(None)
    except StopIteration as whole:
        return bytes(whole.value)
    try:
        async with asyncio.timeout(limits.body_s):
            return await _Begun(joined, waits_for)
    except TimeoutError as error:
        raise SlowError("the body", expected=f"all of it within {limits.body_s:g} s") from error


async def _joined(receive: Receive, limits: Limits) -> bytes:
    parts, total, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        total += len(part)
        if total > limits.body_bytes:
            raise _too_many_bytes(limits)
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A coroutine that was begun, and what it waits for first."""

    coroutine: Coroutine[Any, Any, bytes]
    waits_for: Any

    def __await__(self) -> Generator[Any, Any, bytes]:
        try:
            yield self.waits_for
        except BaseException:
            self.coroutine.close()
            raise
        return (yield from self.coroutine.__await__())


def check_media_type(headers: Mapping[str, str]) -> None:
    """Refuse a body that is declared as something else than plain JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise MediaTypeError("content-type", expected="application/json", got=repr(kind[:40]))
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise MediaTypeError("content-encoding", expected="none", got=repr(coding[:40]))


def check_shape(body: bytes, limits: Limits) -> None:
    """Refuse JSON that is nested deeper, or has more parts, than any request needs.

    Counting bytes shows it of nearly every request; else its tokens are read, as far as the limits
    go. Neither makes an object of anything.
    """
    most = TOKENS_BESIDE + TOKENS_EACH * limits.documents
    opened = body.count(b"[") + body.count(b"{")
    if opened <= limits.depth and body.count(b",") <= most:
        return
    depth = 0
    for tokens, match in enumerate(_TOKEN.finditer(body), start=1):
        token = match[0]
        if token in _OPENING:
            depth += 1
            if depth > limits.depth:
                what = "the depth of the JSON"
                raise MalformedError(what, expected=f"at most {limits.depth}", code="too_deep")
        elif token in _CLOSING:
            depth -= 1
        if tokens > most:
            raise TooLargeError(
                "the JSON has too many parts",
                expected=f"at most {limits.documents} documents",
                code="too_many_documents",
            )


def deadline(headers: Mapping[str, str], timeout_s: float) -> float:
    """The seconds within which a request has to be answered: the client's, if they are fewer."""
    given = headers.get(TIMEOUT_HEADER)
    if given is None:
        return timeout_s
    if not re.fullmatch(r"[0-9]{1,9}", given) or int(given) < 1:
        expected = "a positive integer of milliseconds"
        raise MalformedError(TIMEOUT_HEADER, expected=expected, param=TIMEOUT_HEADER)
    return min(timeout_s, int(given) / 1000)


def _too_many_bytes(limits: Limits) -> TooLargeError:
    return TooLargeError(
        "the body",
        expected=f"at most {limits.body_bytes:,} bytes",
        hint="send fewer documents a request, or start the server with a larger --max-body",
        code="body_too_large",
    )
