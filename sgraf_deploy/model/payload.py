"""Find the three state dicts of the model in a saved file, wherever training code puts them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.foreign import Foreign, kind_of, printable
from sgraf_deploy.model.keys import (
    NORM_OPTIONS,
    ONLY_SGRAF,
    OPTIONS,
    PARTS,
    part_of,
    prefixes,
    sibling,
)
from sgraf_deploy.model.untrusted import clean_copy, saved_of

if TYPE_CHECKING:
    import torch

_FIELDS = "a dict of epoch, model, best_rsum, opt and Eiters"
_THREE = f"a list of three state dicts ({', '.join(PARTS)})"
_DEEPEST = 3
_STATE_DICT = "save what the state_dict() of each encoder gives"
_LISTED = 25
_LONGEST_KEY = 100
_FEWEST_OPTIONS = 3


@dataclass(frozen=True, eq=False)
class _Place:
    """A value in the file, the dict that contains it, and Python for it if the file is `c`."""

    value: object
    fields: Mapping[str, Any]
    code: str


@dataclass(frozen=True, eq=False)
class Payload:
    """The content of a checkpoint: the three state dicts, and the other fields by name.

    `notes` has a sentence for each difference from the way in which the authors' code saves it.
    """

    parts: list[dict[str, torch.Tensor]]
    fields: Mapping[str, Any]
    opt: object
    notes: list[str] = field(default_factory=list)


def find_payload(loaded: object, path: Path, key: str | None) -> Payload:
    """Find the model under `key` if one is given, else under `model` or in the only other place.

    Raises CheckpointError, without the path, if there is no model or more than one.
    """
    if isinstance(loaded, Foreign):
        raise _whole_module("the file is", loaded, path, "{'model': c.state_dict()}")
    if key is not None:
        place, notes = _under(loaded, key), [f"model read from {printable(key)!r}"]
    else:
        place, notes = _only(loaded, path)
    if isinstance(place.value, dict) and "model" in place.value:
        # A whole checkpoint inside another file.
        place = _Place(place.value["model"], place.value, f"{place.code}['model']")
    parts = _parts(place, path)
    opt, more = _opt(place.fields)
    return Payload(parts, place.fields, opt, notes + more)


def _only(loaded: object, path: Path) -> tuple[_Place, list[str]]:
    """The place of the model, and notes about it."""
    keys = list(_places(loaded))
    if isinstance(loaded, dict) and "model" in loaded:
        others = [name for name in keys if name != "model"]
        note = f"not read: {', '.join(others)}, also a model (export --key NAME takes it)"
        place = _Place(loaded["model"], loaded, "c['model']")
        return place, [note] if others and "model" in keys else []
    if _is_model(loaded):
        return _Place(loaded, {}, "c"), ["the file is only a list of three state dicts"]
    if len(keys) == 1:
        return _under(loaded, keys[0]), [f"model read from {keys[0]!r}"]
    if keys:
        raise CheckpointError(
            "it contains several models",
            expected="one model, under model",
            got=_contents(loaded),
            hint=f"export --key NAME takes one of them: {', '.join(keys)}",
        )
    raise _no_model(loaded, path)


def _no_model(loaded: object, path: Path) -> CheckpointError:
    got = f"a {kind_of(loaded)}"
    hint = "save the three state dicts of the image, text and similarity encoders as model"
    if isinstance(loaded, dict):
        got = f"a dict of {_contents(loaded)}"
        if _is_state(loaded):
            got = f"a single state dict of {_contents(loaded)}"
        ways = {name: _regrouped(value, f"c[{name!r}]") for name, value in loaded.items()}
        for what, saved in filter(None, (_regrouped(loaded, "c"), *ways.values())):
            got, hint = what, f"its three parts must be a list: {clean_copy(path, saved)}"
    elif isinstance(loaded, list | tuple):
        got = f"a {type(loaded).__name__} of {len(loaded)}: {_contents(loaded)}"
    return CheckpointError(
        "it contains no model", expected=_FIELDS, got=got, hint=_named(loaded) or hint
    )


def _parts(place: _Place, path: Path) -> list[dict[str, torch.Tensor]]:
    """The three state dicts, which are checked to be dicts of tensors by name."""
    model = place.value
    if isinstance(model, Foreign):
        raise _whole_module("its model is", model, path, saved_of(f"{place.code}.state_dict()"))
    if not isinstance(model, list | tuple) or len(model) != len(PARTS):
        raise _not_three(place, path)
    for part, state in zip(PARTS, model, strict=True):
        if isinstance(state, Foreign):
            saved = saved_of(f"[p.state_dict() for p in {place.code}]")
            raise _whole_module(f"the {part} part is", state, path, saved)
        if not isinstance(state, dict):
            kind = kind_of(state)
            raise CheckpointError(f"the {part} part", expected="a state dict", got=kind)
        for key, value in state.items():
            if not isinstance(key, str) or not is_tensor(value):
                got = f"{_tensor_kind(value) or kind_of(value)} under {key!r}"
                raise CheckpointError(
                    f"the {part} part", expected="tensors by name", got=got, hint=_STATE_DICT
                )
    return list(model)


def _not_three(place: _Place, path: Path) -> CheckpointError:
    model = place.value
    got, hint = f"a {kind_of(model)}", None
    if isinstance(model, list | tuple | dict):
        got = f"{got} of {len(model)}: {_contents(model)}"
    if isinstance(model, list | tuple) and any(isinstance(part, Foreign) for part in model):
        hint = clean_copy(path, saved_of(f"[p.state_dict() for p in {place.code}]"))
    elif regrouped := _regrouped(model, place.code):
        got, saved = regrouped
        hint = f"its three parts must be a list: {clean_copy(path, saved)}"
    others = [name for name in _places(place.fields) if name != "model"]
    if hint is None and others:
        hint = f"export --key NAME takes a model from elsewhere in the file: {', '.join(others)}"
    return CheckpointError(
        "its model", expected=_THREE, got=got, hint=hint or _named(model) or ONLY_SGRAF
    )


def _regrouped(model: object, code: str) -> tuple[str, str] | None:
    """A description of a dict with the three parts, flat or by name, and Python that lists them."""
    if not isinstance(model, dict):
        return None
    if _is_state(model) and (starts := prefixes(model)):
        of_part = f"{{k[len(p):]: v for k, v in {code}.items() if k.startswith(p)}}"
        parts = f"[{of_part} for p in {tuple(starts)!r}]"
        what = f"a single state dict of {', '.join(map(printable, starts))}…"
        # A file with only tensors has no options.
        return what, f"{{'model': {parts}}}" if code == "c" else saved_of(parts)
    named = [(part_of(value), name) for name, value in model.items() if _is_state(value)]
    keys = [name for part in PARTS for of, name in named if of == part]
    if sorted(PARTS) != sorted(of for of, _ in named if of is not None):
        return None
    return f"a dict of {_contents(model)}", saved_of(f"[{code}[k] for k in {tuple(keys)!r}]")


def _whole_module(what: str, value: Foreign, path: Path, saved: str) -> CheckpointError:
    return CheckpointError(
        f"{what} a whole object instead of its state dicts",
        expected=_THREE,
        got=f"an instance of {kind_of(value)}",
        hint=clean_copy(path, saved),
    )


def _opt(fields: Mapping[str, Any]) -> tuple[object, list[str]]:
    """The options: `opt`, or the only other field that looks like them, and notes."""
    if fields.get("opt") is not None:
        return fields["opt"], []
    known = OPTIONS.keys() | NORM_OPTIONS.keys()
    dicts = {
        name: vars(value) if isinstance(value, argparse.Namespace) else value
        for name, value in fields.items()
        if isinstance(value, argparse.Namespace | dict) and name != "model"
    }
    names = [name for name, value in dicts.items() if len(known & value.keys()) >= _FEWEST_OPTIONS]
    if len(names) == 1:
        return fields[names[0]], [f"the file has no opt: {names[0]!r} is read in its place"]
    return None, ["the file has no opt"]


def _places(loaded: object) -> Iterator[str]:
    """The dotted keys of the models inside of nested dicts."""
    queue = [("", loaded)]
    seen: set[int] = set()
    while queue:
        prefix, container = queue.pop(0)
        if not isinstance(container, dict) or prefix.count(".") >= _DEEPEST:
            continue
        if id(container) in seen:
            continue
        seen.add(id(container))
        for name, value in container.items():
            if isinstance(name, str) and isinstance(value, dict | list | tuple):
                if _is_model(value):
                    yield printable(f"{prefix}{name}")
                queue.append((f"{prefix}{name}.", value))


def _under(loaded: object, key: str) -> _Place:
    """The value under a key, or under several keys, from the outside in, joined by `.` or `/`."""
    fields = loaded if isinstance(loaded, dict) else {}
    for place in _walk(_Place(loaded, fields, "c"), key):
        return _Place(place.value, {**fields, **place.fields}, place.code)
    raise CheckpointError(
        f"--key {printable(key)!r}",
        expected=f"the key of a model: {', '.join(_places(loaded)) or 'there is none'}",
        got=f"a file of {_contents(loaded)}",
    )


def _walk(place: _Place, key: str) -> Iterator[_Place]:
    container = place.value
    if not key:
        yield place
    elif isinstance(container, dict):
        for name, value in container.items():
            if isinstance(name, str) and key.startswith(name):
                rest = key[len(name) :]
                if not rest or rest[0] in "./":
                    inner = _Place(value, container, f"{place.code}[{name!r}]")
                    yield from _walk(inner, rest[1:])


def _is_model(value: object) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == len(PARTS) and all(map(_is_state, value))
    )


def _is_state(value: object) -> TypeGuard[dict[str, Any]]:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and is_tensor(item) for key, item in value.items())
    )


def is_tensor(value: object) -> bool:
    """Whether this is a plain tensor on the CPU: dense, not quantized and not of a subclass."""
    import torch

    if not isinstance(value, torch.Tensor) or type(value) not in (torch.Tensor, torch.nn.Parameter):
        return False
    plain = value.layout == torch.strided and not value.is_nested
    return plain and not value.is_quantized and value.device.type == "cpu"


def _tensor_kind(value: object) -> str | None:
    """A description of a tensor that is not plain, for messages; None for other values."""
    import torch

    if not isinstance(value, torch.Tensor):
        return None
    layout = str(value.layout).removeprefix("torch.")
    kinds = {
        layout: value.layout != torch.strided,
        "nested": value.is_nested,
        "quantized": value.is_quantized,
        str(value.device): value.device.type != "cpu",
    }
    listed = (kind for kind, fits in kinds.items() if fits)
    return " ".join(["a", *listed, type(value).__name__])


def _named(value: object) -> str | None:
    """A hint that names the other published model that these state dicts belong to, or None."""
    states = list(value) if isinstance(value, list | tuple) else [value]
    keys = [str(key) for state in states if isinstance(state, dict) for key in state]
    known = sibling(keys, len(states))
    return f"{known}; {ONLY_SGRAF}" if known else None


def _contents(value: object) -> str:
    """The first keys of a dict or of a list's dicts, each with a description of its value."""
    parts = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(part, dict) for part in parts):
        return ", ".join(map(_summary, parts[:_LISTED])) or "nothing"
    lists = []
    for part in [part for part in parts if isinstance(part, dict)][: len(PARTS) + 1]:
        entries = [f"{_key(name)} {_summary(item)}" for name, item in islice(part.items(), _LISTED)]
        more = [f"and {len(part) - _LISTED} more"] if len(part) > _LISTED else []
        lists.append(", ".join([*entries, *more]) or "nothing")
    return lists[0] if len(lists) == 1 else ", ".join(f"({text})" for text in lists) or "nothing"


def _summary(value: object) -> str:
    """A short description: a tensor's shape, a container's size, or the type of another value."""
    if is_tensor(value):
        return str(tuple(getattr(value, "shape", ())))
    if isinstance(value, dict | list | tuple):
        return f"({type(value).__name__} of {len(value)})"
    return f"({_tensor_kind(value) or kind_of(value)})"


def _key(name: object) -> str:
    return printable(name[:_LONGEST_KEY]) if isinstance(name, str) else f"({kind_of(name)})"
