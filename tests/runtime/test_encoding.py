"""Encoded rows are bound to what makes them: encoders, precision and arithmetic; no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.refusals import refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import FileRef, Manifest
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime.encoding import Encoding, image_encoding, text_encoding
from sgraf_deploy.schema import Document, decode, encode

DOCUMENT = Document("encoding", DataError, None, most_bytes=2**16)
OTHER = "0" * 64


def changed(manifest: Manifest, **config: Any) -> Manifest:
    """The manifest with another configuration of member `saf`, unchecked."""
    saf = manifest.members["saf"]
    other = replace(saf, graphs={}, config=replace(saf.config, **config))
    return with_saf(manifest, other)


def with_saf(manifest: Manifest, member: Any) -> Manifest:
    found = object.__new__(Manifest)
    vars(found).update(vars(manifest), members={**manifest.members, "saf": member})
    return found


@pytest.mark.parametrize(
    ("field", "value"), [("image_norm", False), ("regions", 5), ("img_dim", 7), ("embed", 10)]
)
def test_images_are_bound_to_what_their_encoder_is(bundle: Bundle, field: str, value: Any) -> None:
    made = image_encoding(bundle.manifest, "fp32", "fp32")
    other = image_encoding(changed(bundle.manifest, **{field: value}), "fp32", "fp32")
    assert other != made
    assert other.digest != made.digest
    with refused(
        InputError,
        *("my gallery", "saf", field),
        expected=made.members["saf"][field],
        got=str(value).lower(),
        hint="images",
    ):
        made.check(other, "my gallery")


def test_images_are_bound_to_nothing_else(bundle: Bundle) -> None:
    manifest = bundle.manifest
    saf = manifest.members["saf"]
    other = replace(
        with_saf(manifest, replace(saf, checkpoint=replace(saf.checkpoint, sha256=OTHER))),
        tools={"torch": "9"},
    )
    made = image_encoding(manifest, "fp32", "fp32")
    made.check(image_encoding(other, "fp32", "fp32"), "images")
    weights = with_saf(manifest, replace(saf, image_encoder_fingerprint=OTHER))
    with refused(InputError, "fingerprint", "saf", got=OTHER):
        made.check(image_encoding(weights, "fp32", "fp32"), "images")


def test_captions_are_bound_to_weights_and_words(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert isinstance(manifest.vocabulary, FileRef)
    made = text_encoding(manifest, "fp32", "fp32")
    saf = manifest.members["saf"]
    others = {
        "checkpoint": with_saf(
            manifest, replace(saf, checkpoint=replace(saf.checkpoint, sha256=OTHER))
        ),
        "vocabulary": replace(manifest, vocabulary=replace(manifest.vocabulary, sha256=OTHER)),
        "tokenizer": replace(manifest, tokenizer="another"),
        "text_norm": changed(manifest, text_norm=False),
    }
    for field, other in others.items():
        with refused(DataError, "captions", field, expected=made.members["saf"][field]):
            made.check(text_encoding(other, "fp32", "fp32"), "captions", error=DataError)


def test_both_are_bound_to_precision_and_arithmetic(bundle: Bundle) -> None:
    made = image_encoding(bundle.manifest, "fp16", "fp16")
    with refused(InputError, "executed", expected="fp16", got="fp16-rounded"):
        made.check(image_encoding(bundle.manifest, "fp16", "fp16-rounded"), "images")
    with refused(InputError, "precision", expected="fp16", got="fp32"):
        made.check(image_encoding(bundle.manifest, "fp32", "fp16"), "images")
    with refused(InputError, "kind", expected="images", got="captions"):
        made.check(text_encoding(bundle.manifest, "fp16", "fp16"), "images")
    alone = replace(made, members={"sgr": made.members["sgr"]})
    with refused(InputError, "members", expected="saf, sgr", got="sgr"):
        made.check(alone, "images")


def test_a_file_keeps_it(bundle: Bundle) -> None:
    made = image_encoding(bundle.manifest, "fp32", "fp32")
    again = decode(Encoding, encode(made), DOCUMENT)
    made.check(again, "images")
    assert again.digest == made.digest
