"""Where in a file the three state dicts are, and the lines that save a clean copy."""

from __future__ import annotations

import argparse
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, ItemsView
from pathlib import Path
from typing import Any

import pytest
import torch
from support.authors_checkpoint import SGR, authors_options, authors_payload
from support.refusals import check_error, holds, naming
from support.refusing import is_noted, refusal
from torch import nn

from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.checkpoint import Checkpoint, read_checkpoint
from sgraf_deploy.model.keys import ONLY_SGRAF

PREFIXES = ("img_enc.", "txt_enc.", "sim_enc.")


def saved(folder: Path, payload: object, **options: Any) -> Path:
    path = folder / "odd  name.pth.tar"
    torch.save(payload, path, **options)
    return path


def same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    return all((one.weights[name] == other.weights[name]).all() for name in other.weights)


def moved(**places: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A payload with its model at other places: a function of the model by each key."""

    def change(payload: dict[str, Any]) -> dict[str, Any]:
        model = payload.pop("model")
        return payload | {key: make(model) for key, make in places.items()}

    return change


def itself(model: object) -> object:
    return model


def flat(model: list[dict[str, Any]], prefixes: tuple[str, ...] = PREFIXES) -> dict[str, Any]:
    return {
        f"{prefix}{key}": value
        for prefix, part in zip(prefixes, model, strict=True)
        for key, value in part.items()
    }


READ: dict[str, tuple[Callable[[dict[str, Any]], object], tuple[str, ...]]] = {
    "state_dict": (moved(state_dict=itself), ("state_dict",)),
    "net": (moved(net=itself), ("net",)),
    "model_A-alone": (moved(model_A=itself), ("model_A",)),
    "within": (moved(state=lambda model: {"net": model}), ("state.net",)),
    "beside-model": (lambda payload: payload | {"ema": payload["model"]}, ("ema", "--key")),
    "bare-list": (lambda payload: payload["model"], ("list",)),
    "args": (
        lambda payload: {"model": payload["model"], "args": payload["opt"]},
        ("opt", "args"),
    ),
    "whole-inside": (lambda payload: {"checkpoint": payload}, ("checkpoint.model",)),
}
"""Where the model is, and what a note names of that."""


@pytest.mark.parametrize(("change", "names"), READ.values(), ids=READ)
def test_a_model_in_the_only_place_there_is_is_read_with_a_note(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], names: tuple[str, ...]
) -> None:
    payload = change(authors_payload(SGR))
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    assert checkpoint.config == SGR
    assert is_noted(checkpoint.inferred, *names)
    if isinstance(payload, dict):
        assert checkpoint.options == authors_options(SGR)


def test_a_tuple_is_as_good_as_a_list(tmp_path: Path) -> None:
    plain, changed = authors_payload(SGR), moved(model=tuple)(authors_payload(SGR))
    expected = read_checkpoint(saved(tmp_path, plain))
    checkpoint = read_checkpoint(saved(tmp_path, changed))
    assert same_weights(checkpoint, expected)
    assert checkpoint.inferred == expected.inferred
    assert checkpoint.options == authors_options(SGR)


def test_options_under_another_name_tell_what_no_tensor_does(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["opt"].no_imgnorm = True
    changed = {"model": payload["model"], "config": vars(payload["opt"]), "metrics": {"rsum": 1}}
    assert not read_checkpoint(saved(tmp_path, changed)).config.image_norm


def two_models(payload: dict[str, Any]) -> dict[str, Any]:
    other = authors_payload(SGR, seed=1)["model"]
    return moved(model_A=itself, model_B=lambda model: other)(payload)


def test_of_several_models_none_is_guessed_and_all_keys_are_listed(tmp_path: Path) -> None:
    error = refusal(saved(tmp_path, two_models(authors_payload(SGR))))
    got = naming("epoch", "opt", "model_A", "model_B")
    check_error(error, got=got, hint=["--key", "model_A, model_B"])


@pytest.mark.parametrize(("key", "seed"), [("model_A", 0), ("model_B", 1)])
def test_a_key_takes_one_of_several_models(tmp_path: Path, key: str, seed: int) -> None:
    checkpoint = read_checkpoint(saved(tmp_path, two_models(authors_payload(SGR))), key)
    expected = tmp_path / "expected.pth.tar"
    torch.save(authors_payload(SGR, seed), expected)
    assert same_weights(checkpoint, read_checkpoint(expected))
    assert holds(checkpoint.inferred[0], key)
    assert checkpoint.epoch == 17


@pytest.mark.parametrize("key", ["runs/best.v1/model", "runs.best.v1.model", "runs.best.v1"])
def test_a_key_may_be_a_path_through_keys_with_dots(tmp_path: Path, key: str) -> None:
    payload = {"runs": {"best.v1": authors_payload(SGR), "best": 3}, "model": [1]}
    checkpoint = read_checkpoint(saved(tmp_path, payload), key)
    assert checkpoint.config == SGR
    assert checkpoint.options == authors_options(SGR)


@pytest.mark.parametrize("key", ["model_C", "model_A.0", "", "model", "model_"])
def test_a_key_that_leads_nowhere_lists_those_that_do(tmp_path: Path, key: str) -> None:
    error = refusal(saved(tmp_path, two_models(authors_payload(SGR))), key)
    naming("model_A", "model_B").check("error", error)


def test_a_key_to_what_is_no_model_says_what_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path, authors_payload(SGR))
    expected = naming("image", "text", "similarity")
    check_error(refusal(path, "epoch"), expected=expected, got=naming("int"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_within_keys_are_stripped(tmp_path: Path, prefix: str) -> None:
    payload = authors_payload(SGR)
    payload["model"] = [
        {re.sub(r"^(\w+)\.", rf"{prefix}\1.{prefix}", key): part[key] for key in part}
        for part in payload["model"]
    ]
    assert read_checkpoint(saved(tmp_path, payload)).config == SGR


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_of_all_weights_are_said(tmp_path: Path, dtype: torch.dtype) -> None:
    payload = authors_payload(SGR)
    payload["model"] = [
        {
            key: value.to(dtype) if value.is_floating_point() else value
            for key, value in part.items()
        }
        for part in payload["model"]
    ]
    kind = str(dtype).removeprefix("torch.")
    count = sum(value.is_floating_point() for part in payload["model"] for value in part.values())
    assert is_noted(read_checkpoint(saved(tmp_path, payload)).inferred, count, kind)


def tensors(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(2, 3) for name in names}


FC, TEXT = ("fc.weight", "fc.bias"), ("embed.weight", "rnn.weight_ih_l0", "rnn.bias_ih_l0")
SIBLINGS: dict[str, tuple[list[Any], set[str]]] = {
    "scan": ([tensors(*FC), tensors(*TEXT)], {"SCAN", "VSE++"}),
    "scan-parallel": (
        [tensors(*(f"module.{key}" for key in FC)), tensors(*TEXT)],
        {"SCAN", "VSE++"},
    ),
    "two-of-sgraf": (
        [tensors(*FC), tensors("embed.weight", "cap_rnn.weight_ih_l0")],
        {"image", "text"},
    ),
    "vse++": ([tensors("cnn.conv1.weight", *FC), tensors(*TEXT)], {"VSE++", "CNN"}),
    "vsrn": ([tensors("Rs_GCN_1.g.weight", *FC), tensors(*TEXT), tensors("x")], {"VSRN"}),
    "vse-infinity": ([tensors("fc.weight", "gpool.rnn.weight_ih_l0"), tensors(*TEXT)], {"VSE∞"}),
    "bert": ([tensors(*FC), tensors("bert.encoder.layer.0.weight")], {"BERT", "text"}),
    "rcar": (
        [tensors(*FC), tensors("embed.weight"), tensors("rar_modules.0.fc.weight")],
        {"RCAR"},
    ),
    "four-unknown": ([tensors("a"), tensors("b"), tensors("c"), tensors("d")], set()),
}
"""The state dicts of a file, and what the hint names of the model that has such."""


@pytest.mark.parametrize(("model", "names"), SIBLINGS.values(), ids=SIBLINGS)
def test_models_of_others_are_named_by_their_keys(
    tmp_path: Path, model: list[Any], names: set[str]
) -> None:
    error = refusal(saved(tmp_path, authors_payload(SGR) | {"model": model}))
    naming("(2, 3)").check("reason", error.reason)  # the shapes of what is there
    check_error(error, hint=ONLY_SGRAF)
    told = (error.hint or "").removesuffix(ONLY_SGRAF)
    known = {name for _, of in SIBLINGS.values() for name in of}
    assert {name for name in known if holds(told, name)} == names


def test_keys_are_listed_with_shapes_up_to_a_number(tmp_path: Path) -> None:
    payload = {f"layer{row}.weight": torch.zeros(row) for row in range(500)}
    path = saved(tmp_path, payload)
    error = refusal(path)
    check_error(error, got=naming("layer7.weight (7,)", 475))
    assert len(str(error).removeprefix(str(path))) < 1500


def test_extra_tensors_are_all_named(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["model"][1] |= tensors("head.0.weight", "glove.weight")
    names = ("text", "'head.0.weight' (2, 3)", "'glove.weight' (2, 3)")
    check_error(refusal(saved(tmp_path, payload)), *names)


def test_parts_in_another_order_are_said_to_be(tmp_path: Path) -> None:
    payload = authors_payload(SGR)
    payload["model"] = payload["model"][::-1]
    hint = ["similarity", "image, text, similarity"]
    check_error(refusal(saved(tmp_path, payload)), "image", hint=hint)


class Settings:
    """Options of another class than the authors'."""

    def __init__(self, **options: Any) -> None:
        self.__dict__.update(options)


class AttributeDict(dict[str, Any]):
    """As EasyDict and its like: a dict whose items are attributes, too."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.__dict__ = self


class Config:
    """As OmegaConf's: items, kept elsewhere than in its attributes."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._content = options

    def items(self) -> ItemsView[str, Any]:
        return self._content.items()


class Whole:
    """As the authors' SGRAF: an object whose state is that of three encoders."""

    def __init__(self, model: list[Any]) -> None:
        self.model = model

    def state_dict(self) -> list[Any]:
        return self.model


class Encoder(nn.Module):
    """An encoder whose state dict is whatever it was made of."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.state = OrderedDict(state)

    def state_dict(self, *_: Any, **__: Any) -> Any:
        return self.state


def with_opt(make: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda payload: payload | {"opt": make(vars(payload["opt"]))}


def with_nested(value: object) -> Callable[[dict[str, Any]], object]:
    def change(payload: dict[str, Any]) -> object:
        payload["opt"].more = value
        return payload

    return change


CLEANED: dict[str, tuple[Callable[[dict[str, Any]], object], tuple[str, ...], dict[str, Any]]] = {
    "opt-of-a-class": (with_opt(lambda opt: Settings(**opt)), ("Settings",), {}),
    "opt-as-attribute-dict": (with_opt(AttributeDict), ("AttributeDict",), {}),
    "opt-as-config": (with_opt(Config), ("Config",), {}),
    "attribute-dict-in-opt": (with_nested(AttributeDict(a=1)), ("AttributeDict",), {}),
    "parts-of-a-class": (
        moved(model=lambda model: [AttributeDict(part) for part in model]),
        ("AttributeDict",),
        {},
    ),
    "whole-object": (lambda payload: Whole(payload["model"]), ("Whole",), {}),
    "whole-model": (moved(model=Whole), ("Whole",), {}),
    "whole-encoders": (
        moved(model=lambda model: [Encoder(part) for part in model]),
        ("Encoder",),
        {},
    ),
    "flat": (lambda payload: flat(payload["model"]), PREFIXES, {}),
    "flat-parallel": (
        lambda payload: flat(payload["model"], ("i.module.", "t.module.", "s.module.")),
        ("i.", "t.", "s."),
        {},
    ),
    "flat-model": (moved(model=flat), PREFIXES, {}),
    "flat-elsewhere": (moved(state_dict=flat), PREFIXES, {}),
    "parts-by-name": (
        moved(model=lambda model: dict(zip(("sim", "txt", "img"), model[::-1], strict=True))),
        ("sim", "txt", "img"),
        {},
    ),
    "parts-beside-opt": (
        moved(**{f"part{row}": lambda model, row=row: model[row] for row in range(3)}),
        ("part0", "part1", "part2"),
        {},
    ),
    "newer-protocol": (itself, (), {"pickle_protocol": 4}),
}
"""What is saved, what its refusal names, and how it is saved."""


@pytest.mark.parametrize(("change", "names", "options"), CLEANED.values(), ids=CLEANED)
def test_the_three_lines_of_a_refusal_save_a_clean_copy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], object],
    names: tuple[str, ...],
    options: dict[str, Any],
) -> None:
    error = refusal(saved(tmp_path, change(authors_payload(SGR)), **options))
    naming(*names).check("reason", error.reason)
    follow(error, tmp_path, monkeypatch)
    checkpoint = read_checkpoint(tmp_path / "clean.pth.tar")
    expected = tmp_path / "expected.pth.tar"
    torch.save(authors_payload(SGR), expected)
    assert checkpoint.config == SGR
    assert same_weights(checkpoint, read_checkpoint(expected))


def test_the_three_lines_for_a_key_are_those_of_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = moved(nets=lambda model: {"best": flat(model), "last": 3})(authors_payload(SGR))
    follow(refusal(saved(tmp_path, payload), "nets.best"), tmp_path, monkeypatch)
    assert read_checkpoint(tmp_path / "clean.pth.tar").config == SGR


def test_the_three_lines_for_a_plain_pickle_save_a_clean_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Settings(a=1)))
    error = refusal(path)
    check_error(error, got=naming(f"{__name__}.Settings"))
    follow(error, tmp_path, monkeypatch)
    check_error(refusal(tmp_path / "clean.pth.tar"), got=naming(f"{__name__}.Settings"))


def follow(error: CheckpointError, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the three statements that the hint ends with."""
    monkeypatch.chdir(folder)
    assert error.hint is not None
    lines = error.hint[error.hint.index("import ") :].split("; ")
    assert len(lines) == 3
    exec("\n".join(lines), {})


def test_a_namespace_of_another_module_is_read(tmp_path: Path) -> None:
    from types import SimpleNamespace

    payload = authors_payload(SGR) | {"opt": SimpleNamespace(**authors_options(SGR))}
    assert read_checkpoint(saved(tmp_path, payload)).options == authors_options(SGR)


@pytest.mark.parametrize("opt", [argparse.Namespace(), {}], ids=["namespace", "dict"])
def test_empty_options_are_inferred(tmp_path: Path, opt: object) -> None:
    assert read_checkpoint(saved(tmp_path, authors_payload(SGR) | {"opt": opt})).config == SGR
