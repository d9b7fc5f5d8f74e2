"""Bring what a checkpoint's `opt` says together with what its tensors' shapes tell."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from sgraf_deploy.config import MODULES, ModelConfig, Module
from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.infer import check_shapes, infer_config, telling_weight
from sgraf_deploy.model.keys import MOST_NUMBERED, NORM_OPTIONS, OPTIONS, describe

Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_DEFAULT_STEPS = 3
_HIGHEST = 2**31 - 1
_DEEPEST = 8
_BI_GRU = {option: field for option, field in OPTIONS.items() if field == "bidirectional"}
_MEND = "it was edited or put together from two models: use the original file"


def plain_options(opt: object) -> dict[str, Plain] | None:
    """The plain values of an `argparse.Namespace` or dict by name; None for None.

    Values that are no plain data are left out: they belong to code that this is not. Raises
    CheckpointError for anything else than a Namespace or dict.
    """
    if opt is None:
        return None
    items = vars(opt) if isinstance(opt, argparse.Namespace) else opt
    if not isinstance(items, dict):
        raise CheckpointError("opt", expected="argparse.Namespace or dict", got=type(opt).__name__)
    return {
        name: _plain(value)
        for name, value in items.items()
        if isinstance(name, str) and _is_plain(value)
    }


def reconcile(shapes: Shapes, options: Mapping[str, Plain]) -> tuple[ModelConfig, list[str]]:
    """The config of the weights of these shapes, and a sentence per inference.

    Raises CheckpointError for weights that are missing, unexpected or misshapen, for an unknown
    module, and for an option that contradicts the weights.
    """
    norms = _switches(options, NORM_OPTIONS)
    told = infer_config(
        shapes,
        module=_module(options),
        image_norm=not norms.get("image_norm", False),
        text_norm=not norms.get("text_norm", False),
        label=describe,
    )
    if _module(options) not in (None, told.module):
        raise _contradiction("module", _module(options), told, shapes)
    said: dict[str, Any] = {**_numbers(options, told), **_switches(options, _BI_GRU)}
    for field, value in said.items():
        if value != getattr(told, field):
            _blame_a_tensor(shapes, told, said)
            raise _contradiction(field, value, told, shapes)
    check_shapes(shapes, told, describe)
    return told, _inferences(told, options)


def options_of(config: ModelConfig, options: Mapping[str, Plain]) -> dict[str, Plain]:
    """`options` with everything that the authors' code reads from them to build `config`."""
    required: dict[str, Plain] = {
        option: getattr(config, field)
        for option, field in OPTIONS.items()
        if field != "sgr_steps" or config.module == "SGR"
    }
    required |= {option: not getattr(config, field) for option, field in NORM_OPTIONS.items()}
    # Their constructor takes a number of steps for SAF too, and ignores it.
    steps: dict[str, Plain] = {"sgr_step": _DEFAULT_STEPS}
    return steps | dict(options) | required


def _module(options: Mapping[str, Plain]) -> Module | None:
    value = options.get("module_name")
    for module in MODULES:
        if value == module:
            return module
    if value is not None:
        raise CheckpointError(
            "opt.module_name is unknown", expected=" or ".join(MODULES), got=repr(value)
        )
    return None


def _switches(options: Mapping[str, Plain], names: Mapping[str, str]) -> dict[str, bool]:
    """The fields of these options where the options say True or False."""
    found = {}
    for option, field in names.items():
        value = options.get(option)
        if value is not None:
            if value not in (True, False):
                raise CheckpointError(f"opt.{option}", expected="True or False", got=repr(value))
            found[field] = bool(value)
    return found


def _numbers(options: Mapping[str, Plain], told: ModelConfig) -> dict[str, int]:
    """The fields of the options that count something, where the options say a number."""
    found = {}
    for option, field in OPTIONS.items():
        value = options.get(option)
        unread = field == "module" or option in _BI_GRU
        if value is None or unread or (field == "sgr_steps" and told.module == "SAF"):
            continue
        highest = MOST_NUMBERED if field in {"num_layers", "sgr_steps"} else _HIGHEST
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
            raise CheckpointError(
                f"opt.{option}", expected=f"a whole number from 1 to {highest}", got=repr(value)
            )
        found[field] = value
    return found


def _blame_a_tensor(shapes: Shapes, told: ModelConfig, said: Mapping[str, Any]) -> None:
    """Raise for the tensor at fault where the tensors contradict each other, not only `opt`."""
    try:
        check_shapes(shapes, told, describe)
    except CheckpointError:
        check_shapes(shapes, replace(told, **said), describe)


def _contradiction(field: str, value: object, told: ModelConfig, shapes: Shapes) -> CheckpointError:
    weight = telling_weight(field)
    source = "the names of its tensors"
    if weight is not None:
        source = f"{describe(weight)}, which is {shapes[weight]}"
    return CheckpointError(
        f"opt.{_option(field)} contradicts the tensors",
        expected=f"{getattr(told, field)} by {source}",
        got=repr(value),
        mend=_MEND,
    )


def _inferences(config: ModelConfig, options: Mapping[str, Plain]) -> list[str]:
    sentences = [f"regions {config.regions} from the region BatchNorm"]
    for option, field in OPTIONS.items():
        if options.get(option) is None and (field != "sgr_steps" or config.module == "SGR"):
            weight = telling_weight(field)
            source = "the names of the tensors" if weight is None else describe(weight)
            sentences.append(f"{option} {getattr(config, field)} from {source}")
    for option in NORM_OPTIONS:
        if options.get(option) is None:
            sentences.append(f"{option} False assumed: opt does not say, and no tensor tells")
    return sentences


def _option(field: str) -> str:
    return next(option for option, name in OPTIONS.items() if name == field)


def _is_plain(value: object, depth: int = 0) -> bool:
    # A pickled list can hold itself.
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        return all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, dict) and depth < _DEEPEST:
        return all(
            isinstance(key, str) and _is_plain(item, depth + 1) for key, item in value.items()
        )
    return value is None or isinstance(value, bool | int | float | str)


def _plain(value: Any) -> Plain:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    plain: Plain = value
    return plain
