"""API keys: a file with the digest of each, and whether a request carries one of them.

    # name      scope   digest
    frontend    read    sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    indexer     write   sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752

The digest is SHA-256 of the key in UTF-8. Keys must be random, so that nobody finds one from its
digest: `openssl rand -hex 32` makes such a key.
"""

from __future__ import annotations

import codecs
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from sgraf_deploy.errors import InputError
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.serve.calls import ForbiddenError, UnauthorizedError

Scope = Literal["read", "write"]
"""`write` may do what `read` may, and change the gallery."""

MOST_BYTES = 2**20
_LINE = re.compile(r"(?P<name>[\w.-]{1,64})\s+(?P<scope>\w+)\s+sha256:(?P<digest>[0-9a-fA-F]{64})")
_HINT = "a line is NAME, read or write, and sha256: with the key's digest, with spaces between"
_BEARER = "bearer "


def hash_key(key: str) -> str:
    """What stands in the file for a key.

    Example:
        >>> hash_key("an example that is not random")[:13]
        'sha256:22a40e'
    """
    return f"sha256:{_digest(key).hex()}"


@dataclass(frozen=True)
class Key:
    """One line of the file: a name for people, what the key may do, and its digest (32 bytes)."""

    name: str
    scope: Scope
    digest: bytes = field(repr=False)


class Keys:
    """The keys of a file, which `reload` reads again."""

    def __init__(self, path: PathLike) -> None:
        """Read the file; InputError names the line that is wrong."""
        self.path = Path(path)
        self._keys = _read(self.path)

    def __len__(self) -> int:
        return len(self._keys)

    def reload(self) -> None:
        """Read the file again; upon an InputError the former keys stay in force."""
        self._keys = _read(self.path)

    def check(self, authorization: str | None, scope: Scope) -> None:
        """Refuse a request without a key of this scope in its header Authorization.

        Every key is compared, in a time that does not depend on how much of one agrees.
        """
        given = (authorization or "").strip()
        if given[: len(_BEARER)].lower() != _BEARER:
            expected = "the header Authorization: Bearer KEY"
            raise UnauthorizedError("an API key is missing", expected=expected, code="missing_key")
        digest, found = _digest(given[len(_BEARER) :].strip()), None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise UnauthorizedError("the API key is not known", code="invalid_key")
        if scope == "write" and found.scope != "write":
            what = "the API key may not change the gallery"
            raise ForbiddenError(what, expected="one of scope write", code="read_only_key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _read(path: Path) -> tuple[Key, ...]:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"keys {path} cannot be read", got=reason) from error
    if len(text) > MOST_BYTES:
        raise InputError(f"keys {path}", expected=f"at most {MOST_BYTES} bytes", got="more")
    keys: dict[str, Key] = {}
    lines = text.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        stripped = line.partition("#")[0].strip()
        if stripped:
            key = _key(stripped, f"keys {path}, line {number}")
            if key.name in keys or any(key.digest == other.digest for other in keys.values()):
                raise InputError(
                    f"keys {path}, line {number}", expected="each name and key once", got=key.name
                )
            keys[key.name] = key
    if not keys:
        raise InputError(f"keys {path}", expected="at least one key", got="none", hint=_HINT)
    return tuple(keys.values())


def _key(line: str, where: str) -> Key:
    """One line; the error does not repeat it, as it may hold a key that was not hashed."""
    match = _LINE.fullmatch(line)
    if match is None or match["scope"] not in get_args(Scope):
        raise InputError(where, expected="a name, a scope and a digest", got="others", hint=_HINT)
    scope: Scope = "write" if match["scope"] == "write" else "read"
    return Key(match["name"], scope, bytes.fromhex(match["digest"]))
