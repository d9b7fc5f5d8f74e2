"""Bring what a checkpoint's `opt` says together with what its tensors' shapes tell."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, TypeAlias

from sgraf_deploy.config import MODULES, ModelConfig
from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.foreign import kind_of, printable
from sgraf_deploy.model.infer import check_shapes, infer_config, telling_weight
from sgraf_deploy.model.keys import MOST_NUMBERED, NORM_OPTIONS, OPTIONS, describe
from sgraf_deploy.schema import SHOWN

Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_DEFAULT_STEPS = 3
_HIGHEST = 2**31 - 1
_DEEPEST = 8
_LISTED = 5
_HINT = "it was edited or put together from two models: use the original file"


def plain_options(opt: object) -> tuple[dict[str, Plain], list[str]]:
    """The plain values of an `argparse.Namespace` or dict by name, and a sentence on the others.

    Values that are no plain data are left out: they belong to code that this is not. Raises
    CheckpointError for anything else than a Namespace, dict or None, and for a value of no plain
    type where nothing but the option tells.
    """
    items = vars(opt) if isinstance(opt, argparse.Namespace) else opt
    if items is None:
        return {}, []
    if not isinstance(items, dict):
        raise CheckpointError("opt", expected="argparse.Namespace or dict", got=kind_of(opt))
    named = {name: value for name, value in items.items() if isinstance(name, str)}
    others = {name: kind_of(value) for name, value in named.items() if not _is_plain(value)}
    for option in NORM_OPTIONS:
        if option in others:
            raise CheckpointError(f"opt.{option}", expected="True or False", got=others[option])
    listed = [f"{printable(name)} ({kind})" for name, kind in islice(others.items(), _LISTED)]
    listed += [f"{len(others) - _LISTED} more"] if len(others) > _LISTED else []
    sentences = [f"left out of opt, being no plain values: {', '.join(listed)}"] if others else []
    plain = {name: _plain(value) for name, value in named.items() if name not in others}
    return plain, sentences


def reconcile(shapes: Shapes, options: Mapping[str, Plain]) -> tuple[ModelConfig, list[str]]:
    """The config of the weights of these shapes, and a sentence per inference.

    Raises CheckpointError for weights that are missing, unexpected or misshapen, for an unknown
    module, and for an option that contradicts the weights.
    """
    norms = {option: _switch(options, option, "True or False") for option in NORM_OPTIONS}
    module = options.get("module_name")
    told = infer_config(
        shapes,
        module=next((known for known in MODULES if known == module), None),
        image_norm=not norms["no_imgnorm"],
        text_norm=not norms["no_txtnorm"],
        label=describe,
    )
    said = _said(options, told, shapes)
    for field, value in said.items():
        if value != getattr(told, field):
            if field != "module":
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


def _said(options: Mapping[str, Plain], told: ModelConfig, shapes: Shapes) -> dict[str, Any]:
    """The fields of the options, module first, where the options say something of a meaning."""
    found: dict[str, Any] = {}
    module = options.get("module_name")
    if module is not None:
        if module not in MODULES:
            expected = f"{told.module} by {_source('module', told, shapes)}"
            raise CheckpointError(
                "opt.module_name is unknown", expected=expected, got=_brief(module)
            )
        found["module"] = module
    for option, field in OPTIONS.items():
        value = options.get(option)
        unread = field == "module" or (field == "sgr_steps" and told.module == "SAF")
        if value is None or unread:
            continue
        expected = f"{getattr(told, field)} by {_source(field, told, shapes)}"
        if field == "bidirectional":
            found[field] = _switch(options, option, expected)
            continue
        highest = MOST_NUMBERED if field in {"num_layers", "sgr_steps"} else _HIGHEST
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
            expected = f"the whole number {expected}"
            raise CheckpointError(f"opt.{option}", expected=expected, got=_brief(value))
        found[field] = value
    return found


def _switch(options: Mapping[str, Plain], option: str, expected: str) -> bool:
    """Whether an option is set; one that is not there is not."""
    value = options.get(option)
    if value not in (None, True, False):
        raise CheckpointError(f"opt.{option}", expected=expected, got=_brief(value))
    return bool(value)


def _blame_a_tensor(shapes: Shapes, told: ModelConfig, said: Mapping[str, Any]) -> None:
    """Raise for the tensor at fault where the tensors contradict each other, not only `opt`."""
    try:
        check_shapes(shapes, told, describe)
    except CheckpointError:
        check_shapes(shapes, replace(told, **said), describe)


def _contradiction(field: str, value: object, told: ModelConfig, shapes: Shapes) -> CheckpointError:
    return CheckpointError(
        f"opt.{_option(field)} contradicts the tensors",
        expected=f"{getattr(told, field)} by {_source(field, told, shapes)}",
        got=_brief(value),
        hint=_HINT,
    )


def _source(field: str, told: ModelConfig, shapes: Shapes) -> str:
    """What tells a field: a tensor's shape, or that there is a tensor of some name."""
    weight = telling_weight(field)
    if weight is not None:
        return f"{describe(weight)}, which is {shapes[weight]}"
    beginning, end = {
        "module": ("reasoning." if told.module == "SGR" else "filtration.", ""),
        "sgr_steps": (f"reasoning.{told.sgr_steps - 1}.", ""),
        "num_layers": ("text_encoder.gru.", f"_l{told.num_layers - 1}"),
        "bidirectional": ("text_encoder.gru.", "_reverse" if told.bidirectional else ""),
    }[field]
    names = (name for name in shapes if name.startswith(beginning) and name.endswith(end))
    found = next(names, None)
    return "the names of its tensors" + (f", such as {describe(found)}" if found else "")


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


def _brief(value: object) -> str:
    """A value as Python writes it, shortened."""
    text = repr(value)  # The unpickler takes no integer of so many digits that Python writes none.
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


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
