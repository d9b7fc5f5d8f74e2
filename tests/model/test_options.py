"""What `opt` says against what the tensors tell, and tensors that make no model."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.authors_checkpoint import SAF, SGR, authors_options, authors_payload
from support.refusals import ANY, check_error, naming
from support.refusing import check_notes, refusal

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.model.options import plain_options

Payload = dict[str, Any]

INFERENCES: dict[str, tuple[object, ...]] = {
    "img_dim": (12, "fc.weight"),
    "embed_size": (8, "fc.weight"),
    "sim_dim": (6, "sim_tranloc_w.weight"),
    "word_dim": (7, "embed.weight"),
    "vocab_size": (11, "embed.weight"),
    "num_layers": (1,),
    "bi_gru": (True,),
    "sgr_step": (2,),
    "module_name": ("SGR",),
    "no_imgnorm": (False,),
    "no_txtnorm": (False,),
}
"""An option -> the value that is inferred, and the tensor whose shape tells it."""

REGIONS = ("regions", 5)


def saved(folder: Path, payload: Payload) -> Path:
    path = folder / "checkpoint.pth.tar"
    torch.save(payload, path)
    return path


def without(part: int, *keys: str) -> Callable[[Payload], None]:
    def change(payload: Payload) -> None:
        for key in keys:
            del payload["model"][part][key]

    return change


def with_tensor(part: int, key: str, tensor: object) -> Callable[[Payload], None]:
    def change(payload: Payload) -> None:
        payload["model"][part][key] = tensor

    return change


@pytest.mark.parametrize("option", INFERENCES)
def test_an_option_that_is_missing_is_inferred_and_said(tmp_path: Path, option: str) -> None:
    payload = authors_payload(SGR)
    delattr(payload["opt"], option)
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    assert checkpoint.config == SGR
    check_notes(checkpoint.inferred, REGIONS, (option, *INFERENCES[option]))


@pytest.mark.parametrize("explicit", [True, False], ids=["none", "absent"])
def test_a_file_without_options_is_inferred_whole(tmp_path: Path, explicit: bool) -> None:
    payload = authors_payload(SGR)
    payload["opt"] = None
    if not explicit:
        del payload["opt"]
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    assert checkpoint.config == SGR
    assert checkpoint.options == {}
    assert checkpoint.data_name is None
    inferences = [(option, *names) for option, names in INFERENCES.items()]
    check_notes(checkpoint.inferred, ("opt",), REGIONS, *inferences)


def test_saf_tells_no_steps(tmp_path: Path) -> None:
    payload = authors_payload(SAF)
    del payload["opt"].sgr_step
    check_notes(read_checkpoint(saved(tmp_path, payload)).inferred, REGIONS)
    payload["opt"].sgr_step = 0
    assert read_checkpoint(saved(tmp_path, payload)).config == SAF


def test_options_may_be_a_dict(tmp_path: Path) -> None:
    payload = authors_payload(replace(SGR, image_norm=False))
    payload["opt"] = vars(payload["opt"])
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    assert checkpoint.config == replace(SGR, image_norm=False)
    check_notes(checkpoint.inferred, REGIONS)


def test_only_plain_options_are_kept() -> None:
    endless: list[object] = []
    endless.append(endless)
    options = argparse.Namespace(
        path="runs/é", sizes=(1, [2, None]), nested={"a": True}, tensor=torch.zeros(1), deep=endless
    )
    kept, left_out = plain_options(options)
    assert kept == {"path": "runs/é", "sizes": [1, [2, None]], "nested": {"a": True}}
    check_notes(left_out, ("opt", "tensor", "Tensor", "deep", "list"))


CONTRADICTIONS: dict[str, tuple[object, naming]] = {
    "img_dim": (2048, naming(12, "fc.weight", "(8, 12)")),
    "embed_size": (1024, naming(8, "fc.weight", "(8, 12)")),
    "sim_dim": (256, naming(6, "sim_tranloc_w.weight", "(6, 8)")),
    "word_dim": (300, naming(7, "embed.weight", "(11, 7)")),
    "vocab_size": (12, naming(11, "embed.weight", "(11, 7)")),
    "num_layers": (2, naming(1, "cap_rnn.weight_ih_l0")),
    "bi_gru": (False, naming(True, "cap_rnn.weight_ih_l0_reverse")),
    "sgr_step": (3, naming(2, "SGR_module.1.graph_query_w.weight")),
    "module_name": ("SAF", naming("SGR", "SGR_module.0.graph_query_w.weight")),
}
"""An option -> a value that the tensors contradict, and what they tell."""


@pytest.mark.parametrize("option", CONTRADICTIONS)
def test_an_option_that_contradicts_the_tensors_is_named(tmp_path: Path, option: str) -> None:
    value, expected = CONTRADICTIONS[option]
    payload = authors_payload(SGR)
    setattr(payload["opt"], option, value)
    error = refusal(saved(tmp_path, payload))
    check_error(error, f"opt.{option}", expected=expected, got=repr(value), hint=naming())


def test_sgr_by_opt_with_the_tensors_of_saf_contradicts(tmp_path: Path) -> None:
    payload = authors_payload(SAF)
    payload["opt"].module_name = "SGR"
    error = refusal(saved(tmp_path, payload))
    check_error(error, "opt.module_name", expected=naming("SAF"), got="'SGR'", hint=naming())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("module_name", "SCAN"),
        ("module_name", ["SGR"]),
        ("img_dim", "12"),
        ("img_dim", 12.0),
        ("img_dim", True),
        ("sim_dim", 0),
        ("sim_dim", -6),
        ("num_layers", True),
        ("num_layers", 10**12),
        ("sgr_step", 0),
        ("bi_gru", "yes"),
        ("bi_gru", 2),
        ("no_imgnorm", "False"),
    ],
    ids=repr,
)
def test_an_option_of_no_meaning_is_named_with_its_value(
    tmp_path: Path, option: str, value: object
) -> None:
    payload = authors_payload(SGR)
    setattr(payload["opt"], option, value)
    _, expected = CONTRADICTIONS.get(option, (None, naming("True", "False")))
    error = refusal(saved(tmp_path, payload))
    check_error(error, f"opt.{option}", expected=expected, got=repr(value), hint=None)


def without_a_module(payload: Payload) -> None:
    similarity = payload["model"][2]
    payload["model"][2] = {key: similarity[key] for key in similarity if "SAF" not in key}
    del payload["opt"].module_name


def with_a_word_of_terabytes(payload: Payload) -> None:
    payload["model"][1]["embed.weight"] = torch.zeros(1).expand(10**12, 7)
    del payload["opt"].vocab_size


@dataclass(frozen=True)
class Broken:
    """A model that is changed into none, and what the error names of it."""

    config: ModelConfig
    change: Callable[[Payload], object]
    names: tuple[object, ...]
    expected: object = ANY
    got: object = ANY


FIELDS = ("epoch", "best_rsum", "opt", "Eiters")
BROKEN = {
    "missing": Broken(
        SGR,
        without(1, "cap_rnn.bias_hh_l0_reverse"),
        ("text", "cap_rnn.bias_hh_l0_reverse"),
        expected=naming("embed 24"),
        got=None,
    ),
    "missing-that-tells-a-dimension": Broken(
        SGR,
        without(0, "fc.weight"),
        ("image", "fc.weight"),
        expected=naming("embed", "img_dim"),
        got=None,
    ),
    "missing-step": Broken(
        SGR,
        without(2, *(f"SGR_module.0.{name}_w.weight" for name in ("graph_query", "graph_key"))),
        ("similarity", "SGR_module.0.graph_query_w.weight", 1),
        got=None,
    ),
    "missing-module": Broken(
        SAF,
        lambda payload: without(2, *[k for k in payload["model"][2] if "SAF" in k])(payload),
        ("similarity", "SAF_module.attn_sim_w.weight", 6),
        got=None,
    ),
    "missing-module-and-option": Broken(
        SAF, without_a_module, (), expected=naming("SGR", "SAF"), got=naming()
    ),
    "unexpected": Broken(
        SAF,
        with_tensor(2, "SGR_module.0.graph_key_w.bias", torch.zeros(6)),
        ("similarity", "SGR_module.0.graph_key_w.bias"),
        got=naming("(6,)"),
    ),
    "unknown": Broken(
        SGR,
        with_tensor(0, "cnn.0.weight", torch.zeros(3)),
        ("image", "'cnn.0.weight' (3,)"),
        got=None,
    ),
    "misshapen": Broken(
        SGR,
        with_tensor(2, "SGR_module.1.sim_graph_w.weight", torch.zeros(6, 5)),
        ("similarity", "SGR_module.1.sim_graph_w.weight"),
        expected="(sim_dim 6, sim_dim 6)",
        got=(6, 5),
    ),
    "misshapen-that-tells-a-dimension": Broken(
        SGR,
        with_tensor(0, "fc.weight", torch.zeros(12, 8)),
        ("image", "fc.weight"),
        expected="(embed 8, img_dim 12)",
        got=(12, 8),
    ),
    "misshapen-regions": Broken(
        SGR,
        with_tensor(2, "v_global_w.embedding_local.1.running_mean", torch.zeros(36)),
        ("similarity", "v_global_w.embedding_local.1.running_mean"),
        expected="(regions 5)",
        got=(36,),
    ),
    "misshapen-scalar": Broken(
        SGR,
        with_tensor(2, "sim_eval_w.bias", torch.zeros(())),
        ("similarity", "sim_eval_w.bias"),
        expected="(1)",
        got=(),
    ),
    "no-axes": Broken(
        SGR,
        with_tensor(1, "embed.weight", torch.zeros(77)),
        ("text", "embed.weight"),
        expected=naming("vocab_size", "word_dim"),
        got=(77,),
    ),
    "no-words": Broken(
        SGR,
        with_tensor(1, "embed.weight", torch.zeros(0, 7)),
        ("text", "embed.weight"),
        expected=naming("vocab_size", "word_dim"),
        got=(0, 7),
    ),
    "nan": Broken(
        SGR,
        with_tensor(0, "fc.bias", torch.tensor([0, 1, float("nan"), float("inf"), 4, 5, 6, 7])),
        ("image", "fc.bias"),
        got=naming(2, 8),
    ),
    "beyond-float32": Broken(
        SGR,
        with_tensor(0, "fc.bias", torch.full((8,), 1e300, dtype=torch.float64)),
        ("image", "fc.bias"),
        got=naming(8),
    ),
    "negative-variance": Broken(
        SAF,
        with_tensor(2, "SAF_module.bn.running_var", torch.tensor([-0.5])),
        ("similarity", "SAF_module.bn.running_var"),
        got=-0.5,
    ),
    "whole-numbers": Broken(
        SGR,
        with_tensor(0, "fc.bias", torch.zeros(8, dtype=torch.int32)),
        ("image", "fc.bias"),
        got="int32",
    ),
    "complex-counter": Broken(
        SGR,
        with_tensor(
            2,
            "v_global_w.embedding_local.1.num_batches_tracked",
            torch.tensor(1, dtype=torch.cfloat),
        ),
        ("similarity", "v_global_w.embedding_local.1.num_batches_tracked"),
        got="complex64",
    ),
    "sparse": Broken(
        SGR,
        with_tensor(0, "fc.weight", torch.eye(8, 12).to_sparse()),
        ("image",),
        got=naming("sparse_coo", "fc.weight"),
    ),
    "no-tensor": Broken(
        SGR, with_tensor(0, "fc.weight", [1.0, 2.0]), ("image",), got=naming("list", "fc.weight")
    ),
    "no-name": Broken(
        SGR,
        lambda payload: payload["model"][0].update({3: torch.zeros(1)}),
        ("image",),
        got=naming("Tensor", 3),
    ),
    "terabytes-of-a-few-bytes": Broken(
        SGR,
        with_a_word_of_terabytes,
        ("text", "embed.weight"),
        expected=naming(28 * 10**12),
        got=4,
    ),
    "no-model": Broken(
        SGR,
        lambda payload: payload.pop("model"),
        (),
        expected=naming("model", *FIELDS),
        got=naming(*FIELDS),
    ),
    "two-parts": Broken(
        SGR,
        lambda payload: payload["model"].pop(),
        (),
        expected=naming("image", "text", "similarity"),
        got=naming("list", 2),
    ),
    "model-of-one-state-dict": Broken(
        SGR,
        lambda payload: payload.update(model=payload["model"][2]),
        (),
        expected=naming("image", "text", "similarity"),
        got=naming("OrderedDict"),
    ),
    "part-of-no-tensors": Broken(
        SGR, lambda payload: payload.update(model=[1, 2, 3]), ("image",), got="int"
    ),
    "options-of-another-kind": Broken(
        SGR,
        lambda payload: payload.update(opt=["--bi_gru"]),
        ("opt",),
        expected=naming("argparse.Namespace", "dict"),
        got="list",
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_what_makes_no_model_is_named(tmp_path: Path, broken: Broken) -> None:
    payload = authors_payload(broken.config)
    broken.change(payload)
    error = refusal(saved(tmp_path, payload))
    check_error(error, *broken.names, expected=broken.expected, got=broken.got)


@pytest.mark.parametrize(
    ("payload", "got"),
    [
        ({"fc.weight": torch.zeros(2)}, "fc.weight (2,)"),
        ({}, "dict"),
        (torch.zeros(2), "Tensor"),
        ([1, 2], "list"),
        (None, "NoneType"),
    ],
    ids=["bare-state-dict", "empty-dict", "tensor", "list", "none"],
)
def test_what_is_saved_but_no_checkpoint_is_said_to_be_none(
    tmp_path: Path, payload: Any, got: str
) -> None:
    expected = naming("model", *FIELDS)
    check_error(refusal(saved(tmp_path, payload)), expected=expected, got=naming(got))


def test_every_authors_option_that_is_read_is_tested() -> None:
    assert set(INFERENCES) <= set(authors_options(SGR))
    assert set(CONTRADICTIONS) == set(INFERENCES) - {"no_imgnorm", "no_txtnorm"}
