"""Captions as strings or token ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.onnx_bundles import WORDS, write_bundle
from support.refusals import naming, refused

from sgraf_deploy.bundle.bundle import Bundle, hash_file
from sgraf_deploy.data.tokenizer import UNTRAINED, VOCABULARY
from sgraf_deploy.data.vocabulary import UNKNOWN, Vocabulary
from sgraf_deploy.errors import BundleError, DataError
from sgraf_deploy.runtime.tokens import CaptionReader, check_token_ids


def test_strings_become_ids_of_the_bundles_vocabulary(bundle: Bundle) -> None:
    found = CaptionReader(bundle).token_ids(["A dog runs.", "a zebra"])
    words = [[WORDS[token] for token in ids] for ids in found]
    assert words == [
        ["<start>", "a", "dog", "runs", "<unk>", "<end>"],
        ["<start>", "a", "<unk>", "<end>"],
    ]
    assert {ids.dtype for ids in found} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    "captions",
    [
        [[1, 4, 2], [1, 5, 6, 2]],
        ([1, 4, 2], (1, 5, 6, 2)),
        [np.array([1, 4, 2], dtype=np.int64), np.array([1, 5, 6, 2], dtype=np.uint8)],
        [torch.tensor([1, 4, 2]), torch.tensor([1, 5, 6, 2], dtype=torch.uint8)],
        [list(torch.tensor([1, 4, 2])), [np.int16(1), 5, 6, 2]],
        np.array([[1, 4, 2], [1, 5, 6, 2]], dtype=object),
    ],
    ids=["lists", "tuples", "arrays", "tensors", "scalars", "objects"],
)
def test_ids_are_taken_as_they_are(sgr_bundle: Bundle, captions: Any) -> None:
    found = CaptionReader(sgr_bundle).token_ids(captions)
    assert [ids.tolist() for ids in found] == [[1, 4, 2], [1, 5, 6, 2]]
    assert {ids.dtype for ids in found} == {np.dtype(np.int32)}


def test_a_rectangle_is_captions_of_one_length(sgr_bundle: Bundle) -> None:
    found = CaptionReader(sgr_bundle).token_ids(np.array([[1, 4, 2], [1, 5, 2]]))
    assert [ids.tolist() for ids in found] == [[1, 4, 2], [1, 5, 2]]


@pytest.mark.parametrize(
    "captions",
    [
        np.array(["a dog", "a cat"]),
        np.array(["a dog", "a cat"], dtype=object),
        ("a dog", "a cat"),
        [np.str_("a dog"), "a cat"],
    ],
    ids=["array", "objects", "tuple", "scalars"],
)
def test_strings_of_any_kind_are_read(bundle: Bundle, captions: Any) -> None:
    found = CaptionReader(bundle).token_ids(captions)
    assert [[WORDS[token] for token in ids[1:-1]] for ids in found] == [["a", "dog"], ["a", "cat"]]


def test_no_captions_are_no_captions(bundle: Bundle) -> None:
    assert CaptionReader(bundle).token_ids([]) == []


def test_strings_need_a_vocabulary(sgr_bundle: Bundle) -> None:
    with refused(BundleError, sgr_bundle.path, hint="--vocab FILE"):
        CaptionReader(sgr_bundle).token_ids(["a dog"])


@pytest.mark.parametrize(
    ("captions", "kind"),
    [
        ("a dog", "str"),
        (b"a dog", "bytes"),
        (7, "int"),
        ({"a dog"}, "set"),
        (np.array("a dog"), "ndarray"),
        (np.array(7), "ndarray"),
        (np.str_("a dog"), "str_"),
        (torch.tensor(1), "Tensor"),
        (torch.tensor([[1.0]], requires_grad=True), "requires grad"),  # what PyTorch says
        (iter([[1, 2]]), "list_iterator"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_what_is_no_list_of_captions_is_refused(bundle: Bundle, captions: Any, kind: str) -> None:
    with refused(DataError, "captions", expected=naming(), got=naming(kind)) as caught:
        CaptionReader(bundle).token_ids(captions)
    assert "\n" not in str(caught.error)


@pytest.mark.parametrize(
    ("captions", "index", "expected", "got"),
    [
        ([""], 0, naming(), "''"),
        (["a dog", "  "], 1, naming(), "'  '"),
        (["a dog", [1, 2]], 1, naming(), "list"),
        ([[1, 2], "a dog"], 1, naming(), naming("str")),
        ([1, 2], 0, naming(), naming("int", "int64", "()")),
        ([[1, 2], []], 1, naming(), naming()),
        ([[1, 2.5]], 0, naming(), naming("float64")),
        ([[True, False]], 0, naming(), naming("bool")),
        ([[[1, 2]]], 0, naming(), naming("(1, 2)")),
        ([[1, [2]]], 0, naming(), naming("inhomogeneous")),  # what NumPy says
        ([[1], [1, 14]], 1, naming(0, 13), 14),
        ([[1], [3, -1, 2]], 1, naming(0, 13), -1),
        ([[1], [-1, 14]], 1, naming(0, 13), -1),
        ([[2**70]], 0, naming(), naming()),
        ([[2**40]], 0, naming(0, 13), 2**40),
        ([None], 0, naming(), naming("NoneType")),
        (np.array([b"a dog"]), 0, naming(), naming("bytes_")),
        (np.array([["a", "dog"]]), 0, naming(), naming("ndarray", "<U3")),
        (np.array([[1, 4], [1, 5]], dtype=object), 0, naming(), naming("ndarray", "object")),
        (np.array([[True]]), 0, naming(), naming("bool")),
        (np.array([[1.0, 2.0]]), 0, naming(), naming("float64")),
        (torch.tensor([1, 2]), 0, naming(), naming("()")),
        (torch.tensor([[1.0]]), 0, naming(), naming("float32")),
    ],
    ids=repr,
)
def test_other_captions_are_refused(
    bundle: Bundle, captions: Any, index: int, expected: naming, got: object
) -> None:
    with refused(DataError, index, expected=expected, got=got) as caught:
        CaptionReader(bundle).token_ids(captions)
    assert "\n" not in str(caught.error)


def test_ids_are_copied() -> None:
    mine = np.array([1, 2], dtype=np.int32)
    (found,) = check_token_ids([mine], 3)
    mine[0] = 0
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        (VOCABULARY, ["a", "mr.", "dog"]),
        (UNTRAINED, ["a", UNKNOWN, UNKNOWN, "dog"]),
    ],
)
def test_a_bundle_reads_captions_as_its_own_tokenizer_does(
    variant: str, words: list[str], tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "words.sgraf")
    vocabulary = Vocabulary("mr." if word == "sofa" else word for word in WORDS)
    vocabulary.save(bundle.path / "vocab.json")
    ref = hash_file(bundle.path / "vocab.json", relative_to=bundle.path)
    manifest = replace(bundle.manifest, tokenizer=variant, vocabulary=ref)

    (ids,) = CaptionReader(Bundle(bundle.path, manifest, bundle.sha256)).token_ids(["A Mr. dog"])

    assert ids.tolist() == vocabulary.encode(words)
