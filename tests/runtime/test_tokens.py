"""Captions as strings or token ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runtime.onnx_bundles import WORDS, write_bundle

from sgraf_deploy.bundle import Bundle, hash_file
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
    with pytest.raises(BundleError, match="exported without a vocabulary"):
        CaptionReader(sgr_bundle).token_ids(["a dog"])


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ("a dog", "captions: expected a sequence of strings.*got one str"),
        (b"a dog", "got one bytes"),
        (7, "got one int"),
        ({"a dog"}, "got one set"),
        ([""], "caption 0: expected at least one word"),
        (["a dog", "  "], "caption 1: expected at least one word"),
        (["a dog", [1, 2]], "caption 1: expected a string, got list"),
        ([[1, 2], "a dog"], "caption 1: expected a sequence of integer token ids, got str"),
        ([1, 2], r"caption 0: .*got int of int64, shape \(\)"),
        ([[1, 2], []], "caption 1: expected at least one token id"),
        ([[1, 2.5]], "caption 0: .*float64"),
        ([[True, False]], "caption 0: .*bool"),
        ([[[1, 2]]], r"caption 0: .*shape \(1, 2\)"),
        ([[1, [2]]], "caption 0: expected a sequence of token ids"),
        ([[1], [1, 14]], "caption 1: expected token ids in 0 … 13, got 14"),
        ([[1], [3, -1, 2]], "caption 1: expected token ids in 0 … 13, got -1"),
        ([[1], [-1, 14]], "caption 1: expected token ids in 0 … 13, got -1"),
        ([[2**70]], "caption 0"),
        ([[2**40]], "got 1099511627776"),
        ([None], "caption 0"),
        (np.array("a dog"), "captions: .*got one ndarray"),
        (np.array(7), "captions: .*got one ndarray"),
        (np.str_("a dog"), "got one str_"),
        (np.array([b"a dog"]), "caption 0: .*got bytes_"),
        (np.array([["a", "dog"]]), "caption 0: .*got ndarray of <U3"),
        (np.array([[1, 4], [1, 5]], dtype=object), "caption 0: .*got ndarray of object"),
        (np.array([[True]]), "caption 0: .*bool"),
        (np.array([[1.0, 2.0]]), "caption 0: .*float64"),
        (torch.tensor([1, 2]), r"caption 0: .*shape \(\)"),
        (torch.tensor(1), "captions: .*got one Tensor"),
        (torch.tensor([[1.0]]), "caption 0: .*float32"),
        (torch.tensor([[1.0]], requires_grad=True), "captions: .*requires grad"),
        (iter([[1, 2]]), "got one list_iterator"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_other_captions_are_refused(bundle: Bundle, captions: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        CaptionReader(bundle).token_ids(captions)
    assert "\n" not in str(caught.value)


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
