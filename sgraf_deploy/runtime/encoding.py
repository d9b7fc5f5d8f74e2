"""What made encoded images or captions: rows of one making are of use to a scorer of the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sgraf_deploy.bundle.manifest import Manifest, Member
from sgraf_deploy.config import Precision
from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.schema import SHOWN, encode, shown

Kind = Literal["images", "captions"]


@dataclass(frozen=True)
class Encoding:
    """Says by what encoders, and in which arithmetic, images or captions are encoded.

    Encoded rows of two scorers may stand for each other exactly where their encodings are equal:
    another bundle may have the same encoders. `Scorer.image_encoding` and `Scorer.text_encoding`
    make one; `schema.encode` and `schema.decode` write it to files and read it.

    Example:
        >>> encoding = scorer.image_encoding
        >>> encoding.kind, encoding.precision, encoding.executed, sorted(encoding.members)
        ('images', 'fp32', 'fp32', ['saf', 'sgr'])
        >>> encoding == scorer.image_encoding, encoding == scorer.text_encoding
        (True, False)
        >>> len(encoding.digest)
        64
    """

    kind: Kind
    precision: Precision
    """That of the encoders' graphs: `fp32`, `fp16` or `fp8`."""
    executed: str
    """The arithmetic that the engine really executed: `fp32`, `fp16-rounded`, …"""
    members: Mapping[str, Mapping[str, str]]
    """What identifies each member's encoder, by name: for images the `fingerprint` of its weights,
    `regions`, `img_dim`, `embed` and `image_norm`, and the hash of the `extractor`'s recipe where
    the bundle has one."""

    @property
    def digest(self) -> str:
        """The sha256 of all of it, in hexadecimal digits."""
        return hashlib.sha256(json.dumps(encode(self), sort_keys=True).encode()).hexdigest()

    def check(
        self, other: Encoding, what: str, *, error: type[SgrafDeployError] = InputError
    ) -> None:
        """Raise `error` if `what`, encoded by `other`, is of no use here; it names what differs.

        Example:
            >>> scorer.image_encoding.check(images.encoding, "images")
            >>> scorer.image_encoding.check(captions.encoding, "my gallery")
            Traceback (most recent call last):
            sgraf_deploy.errors.InputError: my gallery: kind: expected images, got captions; …
        """
        for name, expected, got in self._differences(other):
            hint = f"encode the {self.kind} again with this scorer"
            safe = got if got.isprintable() and len(got) <= SHOWN else shown(got)
            raise error(f"{what}: {name}", expected=expected, got=safe, hint=hint)

    def _differences(self, other: Encoding) -> list[tuple[str, str, str]]:
        """Each field that differs: its name, and its value here and there."""
        pairs: list[tuple[str, str, str]] = [
            (name, getattr(self, name), getattr(other, name))
            for name in ("kind", "precision", "executed")
        ]
        names = ", ".join(sorted(self.members)), ", ".join(sorted(other.members))
        pairs.append(("members", *names))
        for member, ours in sorted(self.members.items()):
            theirs = other.members.get(member, {})
            pairs += [
                (f"{field} of member {member}", ours.get(field, "none"), theirs.get(field, "none"))
                for field in sorted({*ours, *theirs})
            ]
        return [each for each in pairs if each[1] != each[2]]


def image_encoding(manifest: Manifest, precision: Precision, executed: str) -> Encoding:
    """Say what the image encoders of a bundle make, in a precision and an arithmetic.

    A bundle that has an extractor is bound to it: regions of another one are other images.
    """
    made = manifest.extractor
    shared = {} if made is None else {"extractor": made.identity}
    members = {name: _image_encoder(member) | shared for name, member in manifest.members.items()}
    return Encoding("images", precision, executed, members)


def text_encoding(manifest: Manifest, precision: Precision, executed: str) -> Encoding:
    """Say what the text encoders of a bundle make of strings, in a precision and an arithmetic.

    A manifest has nothing finer for a text encoder's weights than its checkpoint's hash.
    """
    shared = {
        "vocabulary": "none" if manifest.vocabulary is None else manifest.vocabulary.sha256,
        "tokenizer": manifest.tokenizer or "none",
    }
    members = {name: _text_encoder(member) | shared for name, member in manifest.members.items()}
    return Encoding("captions", precision, executed, members)


def _image_encoder(member: Member) -> dict[str, str]:
    config = member.config
    return {
        "fingerprint": member.image_encoder_fingerprint,
        "regions": str(config.regions),
        "img_dim": str(config.img_dim),
        "embed": str(config.embed),
        "image_norm": str(config.image_norm).lower(),
    }


def _text_encoder(member: Member) -> dict[str, str]:
    return {
        "checkpoint": member.checkpoint.sha256,
        "embed": str(member.config.embed),
        "text_norm": str(member.config.text_norm).lower(),
    }
