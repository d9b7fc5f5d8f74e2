"""What `opt` says against what the tensors tell, and tensors that make no model."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoint import SAF, SGR, authors_options, authors_payload

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.model.options import plain_options

Payload = dict[str, Any]

INFERENCES = {
    "img_dim": "img_dim 12 from image part: fc.weight",
    "embed_size": "embed_size 8 from image part: fc.weight",
    "sim_dim": "sim_dim 6 from similarity part: sim_tranloc_w.weight",
    "word_dim": "word_dim 7 from text part: embed.weight",
    "vocab_size": "vocab_size 11 from text part: embed.weight",
    "num_layers": "num_layers 1 from the names of the tensors",
    "bi_gru": "bi_gru True from the names of the tensors",
    "sgr_step": "sgr_step 2 from the names of the tensors",
    "module_name": "module_name SGR from the names of the tensors",
    "no_imgnorm": "no_imgnorm False assumed: opt does not say, and no tensor tells",
    "no_txtnorm": "no_txtnorm False assumed: opt does not say, and no tensor tells",
}
REGIONS = "regions 5 from the region BatchNorm"


def saved(folder: Path, payload: Payload) -> Path:
    path = folder / "checkpoint.pth.tar"
    torch.save(payload, path)
    return path


def refusal(folder: Path, payload: Payload) -> str:
    """The one line, less the path, that refuses this checkpoint."""
    path = saved(folder, payload)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


def without(part: int, *keys: str) -> Callable[[Payload], None]:
    def change(payload: Payload) -> None:
        for key in keys:
            del payload["model"][part][key]

    return change


def with_tensor(part: int, key: str, tensor: object) -> Callable[[Payload], None]:
    def change(payload: Payload) -> None:
        payload["model"][part][key] = tensor

    return change


def with_item(name: str, value: object) -> Callable[[Payload], None]:
    def change(payload: Payload) -> None:
        payload[name] = value

    return change


@pytest.mark.parametrize(("option", "sentence"), INFERENCES.items(), ids=INFERENCES)
def test_an_option_that_is_missing_is_inferred_and_said(
    tmp_path: Path, option: str, sentence: str
) -> None:
    payload = authors_payload(SGR)
    delattr(payload["opt"], option)
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    assert checkpoint.config == SGR
    assert checkpoint.inferred == (REGIONS, sentence)


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
    assert checkpoint.inferred == ("the file has no opt", REGIONS, *INFERENCES.values())


def test_saf_tells_no_steps(tmp_path: Path) -> None:
    payload = authors_payload(SAF)
    del payload["opt"].sgr_step
    assert read_checkpoint(saved(tmp_path, payload)).inferred == (REGIONS,)
    payload["opt"].sgr_step = 0
    assert read_checkpoint(saved(tmp_path, payload)).config == SAF


def test_options_may_be_a_dict(tmp_path: Path) -> None:
    payload = authors_payload(replace(SGR, image_norm=False))
    payload["opt"] = vars(payload["opt"])
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    assert checkpoint.config == replace(SGR, image_norm=False)
    assert checkpoint.inferred == (REGIONS,)


def test_only_plain_options_are_kept() -> None:
    endless: list[object] = []
    endless.append(endless)
    options = argparse.Namespace(
        path="runs/é", sizes=(1, [2, None]), nested={"a": True}, tensor=torch.zeros(1), deep=endless
    )
    kept, left_out = plain_options(options)
    assert kept == {"path": "runs/é", "sizes": [1, [2, None]], "nested": {"a": True}}
    assert left_out == ["left out of opt, being no plain values: tensor (Tensor), deep (list)"]


CONTRADICTIONS = {
    "img_dim": (2048, "expected 12 by image part: fc.weight, which is (8, 12), got 2048"),
    "embed_size": (1024, "expected 8 by image part: fc.weight, which is (8, 12), got 1024"),
    "sim_dim": (
        256,
        "expected 6 by similarity part: sim_tranloc_w.weight, which is (6, 8), got 256",
    ),
    "word_dim": (300, "expected 7 by text part: embed.weight, which is (11, 7), got 300"),
    "vocab_size": (12, "expected 11 by text part: embed.weight, which is (11, 7), got 12"),
    "num_layers": (
        2,
        "expected 1 by the names of its tensors, such as text part: cap_rnn.weight_ih_l0, got 2",
    ),
    "bi_gru": (
        False,
        "expected True by the names of its tensors, such as "
        "text part: cap_rnn.weight_ih_l0_reverse, got False",
    ),
    "sgr_step": (
        3,
        "expected 2 by the names of its tensors, such as "
        "similarity part: SGR_module.1.graph_query_w.weight, got 3",
    ),
    "module_name": (
        "SAF",
        "expected SGR by the names of its tensors, such as "
        "similarity part: SGR_module.0.graph_query_w.weight, got 'SAF'",
    ),
}


@pytest.mark.parametrize("option", CONTRADICTIONS)
def test_an_option_that_contradicts_the_tensors_is_named(tmp_path: Path, option: str) -> None:
    value, message = CONTRADICTIONS[option]
    payload = authors_payload(SGR)
    setattr(payload["opt"], option, value)
    text = refusal(tmp_path, payload)
    assert text.startswith(f"opt.{option} contradicts the tensors: {message}; ")


def test_sgr_by_opt_with_the_tensors_of_saf_contradicts(tmp_path: Path) -> None:
    payload = authors_payload(SAF)
    payload["opt"].module_name = "SGR"
    assert "opt.module_name contradicts the tensors: expected SAF" in refusal(tmp_path, payload)


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
    message = refusal(tmp_path, payload)
    assert re.match(rf"opt\.{option}( is unknown)?: expected ", message)
    assert message.endswith(f", got {value!r}")
    if option not in ("no_imgnorm", "no_txtnorm"):
        assert re.search("(image|text|similarity) part: ", message), "no tensor is named"


def without_a_module(payload: Payload) -> None:
    similarity = payload["model"][2]
    payload["model"][2] = {key: similarity[key] for key in similarity if "SAF" not in key}
    del payload["opt"].module_name


BROKEN: dict[str, tuple[ModelConfig, Callable[[Payload], None], str]] = {
    "missing": (
        SGR,
        without(1, "cap_rnn.bias_hh_l0_reverse"),
        "text part: cap_rnn.bias_hh_l0_reverse is missing: expected (3 gates of embed 24)",
    ),
    "missing-that-tells-a-dimension": (
        SGR,
        without(0, "fc.weight"),
        "image part: fc.weight is missing: expected (embed, img_dim)",
    ),
    "missing-step": (
        SGR,
        without(2, *(f"SGR_module.0.{name}_w.weight" for name in ("graph_query", "graph_key"))),
        "similarity part: SGR_module.0.graph_query_w.weight is missing (and 1 more)",
    ),
    "missing-module": (
        SAF,
        lambda payload: without(2, *[k for k in payload["model"][2] if "SAF" in k])(payload),
        "similarity part: SAF_module.attn_sim_w.weight is missing (and 6 more)",
    ),
    "missing-module-and-option": (
        SAF,
        without_a_module,
        "the tensors tell no module: expected those of either SGR or SAF, got neither",
    ),
    "unexpected": (
        SAF,
        with_tensor(2, "SGR_module.0.graph_key_w.bias", torch.zeros(6)),
        "similarity part: SGR_module.0.graph_key_w.bias is unexpected",
    ),
    "unknown": (
        SGR,
        with_tensor(0, "cnn.0.weight", torch.zeros(3)),
        "the image part holds the unknown tensor 'cnn.0.weight'",
    ),
    "misshapen": (
        SGR,
        with_tensor(2, "SGR_module.1.sim_graph_w.weight", torch.zeros(6, 5)),
        "similarity part: SGR_module.1.sim_graph_w.weight has the wrong shape: "
        "expected (sim_dim 6, sim_dim 6), got (6, 5)",
    ),
    "misshapen-that-tells-a-dimension": (
        SGR,
        with_tensor(0, "fc.weight", torch.zeros(12, 8)),
        "image part: fc.weight has the wrong shape: expected (embed 8, img_dim 12), got (12, 8)",
    ),
    "misshapen-regions": (
        SGR,
        with_tensor(2, "v_global_w.embedding_local.1.running_mean", torch.zeros(36)),
        "similarity part: v_global_w.embedding_local.1.running_mean has the wrong shape: "
        "expected (regions 5), got (36,)",
    ),
    "misshapen-scalar": (
        SGR,
        with_tensor(2, "sim_eval_w.bias", torch.zeros(())),
        "similarity part: sim_eval_w.bias has the wrong shape: expected (1), got ()",
    ),
    "no-axes": (
        SGR,
        with_tensor(1, "embed.weight", torch.zeros(77)),
        "text part: embed.weight has the wrong shape: "
        "expected (vocab_size, word_dim), each at least 1, got (77,)",
    ),
    "no-words": (
        SGR,
        with_tensor(1, "embed.weight", torch.zeros(0, 7)),
        "text part: embed.weight has the wrong shape: "
        "expected (vocab_size, word_dim), each at least 1, got (0, 7)",
    ),
    "nan": (
        SGR,
        with_tensor(0, "fc.bias", torch.tensor([0, 1, float("nan"), float("inf"), 4, 5, 6, 7])),
        "image part: fc.bias holds NaN or infinity: expected finite values, "
        "got 2 of 8 that are not",
    ),
    "beyond-float32": (
        SGR,
        with_tensor(0, "fc.bias", torch.full((8,), 1e300, dtype=torch.float64)),
        "image part: fc.bias holds NaN or infinity",
    ),
    "negative-variance": (
        SAF,
        with_tensor(2, "SAF_module.bn.running_var", torch.tensor([-0.5])),
        "similarity part: SAF_module.bn.running_var is negative: "
        "expected variances of at least 0, got -0.5",
    ),
    "whole-numbers": (
        SGR,
        with_tensor(0, "fc.bias", torch.zeros(8, dtype=torch.int32)),
        "image part: fc.bias: expected floating-point numbers, got int32",
    ),
    "complex-counter": (
        SGR,
        with_tensor(
            2,
            "v_global_w.embedding_local.1.num_batches_tracked",
            torch.tensor(1, dtype=torch.cfloat),
        ),
        "similarity part: v_global_w.embedding_local.1.num_batches_tracked: "
        "expected floating-point numbers, got complex64",
    ),
    "sparse": (
        SGR,
        with_tensor(0, "fc.weight", torch.eye(8, 12).to_sparse()),
        "the image part: expected tensors by name, got a sparse_coo Tensor under 'fc.weight'",
    ),
    "no-tensor": (
        SGR,
        with_tensor(0, "fc.weight", [1.0, 2.0]),
        "the image part: expected tensors by name, got list under 'fc.weight'",
    ),
    "no-name": (
        SGR,
        lambda payload: payload["model"][0].update({3: torch.zeros(1)}),
        "the image part: expected tensors by name, got a Tensor under 3",
    ),
    "terabytes-of-a-few-bytes": (
        SGR,
        with_tensor(1, "embed.weight", torch.zeros(1).expand(10**12, 7)),
        "text part: embed.weight is larger than what the file stores of it",
    ),
    "no-model": (
        SGR,
        lambda payload: payload.pop("model"),
        "it holds no model: expected a dict of epoch, model, best_rsum, opt and Eiters, "
        "got a dict of epoch (int), best_rsum (float), opt (Namespace), Eiters (int)",
    ),
    "two-parts": (
        SGR,
        lambda payload: payload["model"].pop(),
        "its model: expected a list of three state dicts (image, text, similarity), "
        "got a list of 2",
    ),
    "model-of-one-state-dict": (
        SGR,
        lambda payload: payload.update(model=payload["model"][2]),
        "its model: expected a list of three state dicts (image, text, similarity), "
        "got a OrderedDict",
    ),
    "part-of-no-tensors": (SGR, with_item("model", [1, 2, 3]), "the image part: expected a state"),
    "options-of-another-kind": (
        SGR,
        with_item("opt", ["--bi_gru"]),
        "opt: expected argparse.Namespace or dict, got list",
    ),
}


@pytest.mark.parametrize(("config", "change", "message"), BROKEN.values(), ids=BROKEN)
def test_what_makes_no_model_is_named(
    tmp_path: Path, config: ModelConfig, change: Callable[[Payload], None], message: str
) -> None:
    payload = authors_payload(config)
    if "larger" in message:
        del payload["opt"].vocab_size
    change(payload)
    assert refusal(tmp_path, payload).startswith(message)


@pytest.mark.parametrize(
    ("payload", "got"),
    [
        ({"fc.weight": torch.zeros(2)}, "got a bare state dict of fc.weight (2,)"),
        ({}, "got a dict of nothing"),
        (torch.zeros(2), "got a Tensor"),
        ([1, 2], "got a list"),
        (None, "got a NoneType"),
    ],
    ids=["bare-state-dict", "empty-dict", "tensor", "list", "none"],
)
def test_what_is_saved_but_no_checkpoint_is_said_to_be_none(
    tmp_path: Path, payload: Any, got: str
) -> None:
    assert (
        f"it holds no model: expected a dict of epoch, model, best_rsum, opt and Eiters, {got}"
        in (refusal(tmp_path, payload))
    )


def test_every_authors_option_that_is_read_is_tested() -> None:
    assert set(INFERENCES) <= set(authors_options(SGR))
    assert set(CONTRADICTIONS) == set(INFERENCES) - {"no_imgnorm", "no_txtnorm"}
