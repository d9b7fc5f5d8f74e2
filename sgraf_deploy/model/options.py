"""Reconcile the options that a checkpoint declares in `opt` with its tensors' shapes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, TypeAlias

from sgraf_deploy.config import MODULES, ModelConfig
from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.foreign import kind_of, printable
from sgraf_deploy.model.infer import check_shapes, infer_config, source_weight
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

    Values that are not plain data belong to the training code and are left out. Raises
    CheckpointError for anything but a Namespace, dict or None, and for an option without a plain
    value that cannot be inferred from the tensors.
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
    sentences = (
        [f"opt has values that are not plain data and are ignored: {', '.join(listed)}"]
        if others
        else []
    )
    plain = {name: _plain(value) for name, value in named.items() if name not in others}
    return plain, sentences


def reconcile(shapes: Shapes, options: Mapping[str, Plain]) -> tuple[ModelConfig, list[str]]:
    """The config of weights of these shapes, and a sentence for each inference.

    Raises CheckpointError for weights that are missing, unexpected or misshapen, for an unknown
    module, and for an option that contradicts the weights.
    """
    norms = {option: _switch(options, option, "True or False") for option in NORM_OPTIONS}
    module = options.get("module_name")
    inferred = infer_config(
        shapes,
        module=next((known for known in MODULES if known == module), None),
        image_norm=not norms["no_imgnorm"],
        text_norm=not norms["no_txtnorm"],
        label=describe,
    )
    declared = _declared(options, inferred, shapes)
    for field, value in declared.items():
        if value != getattr(inferred, field):
            if field != "module":
                _blame_a_tensor(shapes, inferred, declared)
            raise _contradiction(field, value, inferred, shapes)
    check_shapes(shapes, inferred, describe)
    return inferred, _inferences(inferred, options)


def options_of(config: ModelConfig, options: Mapping[str, Plain]) -> dict[str, Plain]:
    """`options` with everything that the authors' code reads from them to build `config`."""
    required: dict[str, Plain] = {
        option: getattr(config, field)
        for option, field in OPTIONS.items()
        if field != "sgr_steps" or config.module == "SGR"
    }
    required |= {option: not getattr(config, field) for option, field in NORM_OPTIONS.items()}
    # The authors' constructor takes a number of steps for SAF, too, and ignores it.
    steps: dict[str, Plain] = {"sgr_step": _DEFAULT_STEPS}
    return steps | dict(options) | required


def _declared(
    options: Mapping[str, Plain], inferred: ModelConfig, shapes: Shapes
) -> dict[str, Any]:
    """The fields of the config that the options declare, module first."""
    declared: dict[str, Any] = {}
    module = options.get("module_name")
    if module is not None:
        if module not in MODULES:
            expected = f"{inferred.module} by {_source('module', inferred, shapes)}"
            raise CheckpointError(
                "opt.module_name is unknown", expected=expected, got=_brief(module)
            )
        declared["module"] = module
    for option, field in OPTIONS.items():
        value = options.get(option)
        ignored = field == "module" or (field == "sgr_steps" and inferred.module == "SAF")
        if value is None or ignored:
            continue
        expected = f"{getattr(inferred, field)} by {_source(field, inferred, shapes)}"
        if field == "bidirectional":
            declared[field] = _switch(options, option, expected)
            continue
        highest = MOST_NUMBERED if field in {"num_layers", "sgr_steps"} else _HIGHEST
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
            expected = f"the integer {expected}"
            raise CheckpointError(f"opt.{option}", expected=expected, got=_brief(value))
        declared[field] = value
    return declared


def _switch(options: Mapping[str, Plain], option: str, expected: str) -> bool:
    """Whether an option is set; a missing option is not."""
    value = options.get(option)
    if value not in (None, True, False):
        raise CheckpointError(f"opt.{option}", expected=expected, got=_brief(value))
    return bool(value)


def _blame_a_tensor(shapes: Shapes, inferred: ModelConfig, declared: Mapping[str, Any]) -> None:
    """Raise for the wrong tensor if the tensors also contradict each other, not only `opt`."""
    try:
        check_shapes(shapes, inferred, describe)
    except CheckpointError:
        check_shapes(shapes, replace(inferred, **declared), describe)


def _contradiction(
    field: str, value: object, inferred: ModelConfig, shapes: Shapes
) -> CheckpointError:
    return CheckpointError(
        f"opt.{_option(field)} contradicts the tensors",
        expected=f"{getattr(inferred, field)} by {_source(field, inferred, shapes)}",
        got=_brief(value),
        hint=_HINT,
    )


def _source(field: str, inferred: ModelConfig, shapes: Shapes) -> str:
    """The source of an inferred field: a tensor's shape, or the presence of a tensor's name."""
    weight = source_weight(field)
    if weight is not None:
        return f"{describe(weight)}, which is {shapes[weight]}"
    beginning, end = {
        "module": ("reasoning." if inferred.module == "SGR" else "filtration.", ""),
        "sgr_steps": (f"reasoning.{inferred.sgr_steps - 1}.", ""),
        "num_layers": ("text_encoder.gru.", f"_l{inferred.num_layers - 1}"),
        "bidirectional": ("text_encoder.gru.", "_reverse" if inferred.bidirectional else ""),
    }[field]
    names = (name for name in shapes if name.startswith(beginning) and name.endswith(end))
    example = next(names, None)
    return "the names of its tensors" + (f", such as {describe(example)}" if example else "")


def _inferences(config: ModelConfig, options: Mapping[str, Plain]) -> list[str]:
    sentences = [f"regions {config.regions} from the region BatchNorm"]
    for option, field in OPTIONS.items():
        if options.get(option) is None and (field != "sgr_steps" or config.module == "SGR"):
            weight = source_weight(field)
            source = "the names of the tensors" if weight is None else describe(weight)
            sentences.append(f"{option} {getattr(config, field)} from {source}")
    for option in NORM_OPTIONS:
        if options.get(option) is None:
            sentences.append(f"{option} False by default, because neither opt nor a tensor says")
    return sentences


def _option(field: str) -> str:
    return next(option for option, name in OPTIONS.items() if name == field)


def _brief(value: object) -> str:
    """A value as Python writes it, shortened."""
    text = repr(value)  # The unpickler refuses integers with too many digits for Python to print.
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _is_plain(value: object, depth: int = 0) -> bool:
    # A pickled list can contain itself.
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
