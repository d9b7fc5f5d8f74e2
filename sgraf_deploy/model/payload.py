"""Find the model in what was saved: the three state dicts, wherever training code puts them."""

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
    """Something in the file, the fields around it, and Python for it where the file is `c`."""

    value: object
    beside: Mapping[str, Any]
    code: str


@dataclass(frozen=True, eq=False)
class Payload:
    """What a checkpoint holds: the three state dicts, and the fields beside them by name.

    `notes` says in a sentence each where it is otherwise than the authors' code saves it.
    """

    parts: list[dict[str, torch.Tensor]]
    fields: Mapping[str, Any]
    opt: object
    notes: list[str] = field(default_factory=list)


def find_payload(loaded: object, path: Path, key: str | None) -> Payload:
    """The model under `model`, under `key` if one is given, or in the only place where one is.

    Raises CheckpointError, without the path, where there is none or more than one.
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
    opt, more = _opt(place.beside)
    return Payload(parts, place.beside, opt, notes + more)


def _only(loaded: object, path: Path) -> tuple[_Place, list[str]]:
    """The place of the model and what there is to say about it."""
    found = list(_places(loaded))
    if isinstance(loaded, dict) and "model" in loaded:
        others = [name for name in found if name != "model"]
        note = f"not read: {', '.join(others)}, a model, too (export --key NAME takes it)"
        place = _Place(loaded["model"], loaded, "c['model']")
        return place, [note] if others and "model" in found else []
    if _is_model(loaded):
        return _Place(loaded, {}, "c"), ["the file is a bare list of three state dicts"]
    if len(found) == 1:
        return _under(loaded, found[0]), [f"model read from {found[0]!r}"]
    if found:
        raise CheckpointError(
            "it holds several models",
            expected="one, under model",
            got=_contents(loaded),
            hint=f"export --key NAME takes one of them: {', '.join(found)}",
        )
    raise _no_model(loaded, path)


def _no_model(loaded: object, path: Path) -> CheckpointError:
    got = f"a {kind_of(loaded)}"
    hint = "save the three state dicts of the image, text and similarity encoders as model"
    if isinstance(loaded, dict):
        got = f"a dict of {_contents(loaded)}"
        if _is_state(loaded):
            got = f"a bare state dict of {_contents(loaded)}"
        ways = {name: _regrouped(value, f"c[{name!r}]") for name, value in loaded.items()}
        for what, saved in filter(None, (_regrouped(loaded, "c"), *ways.values())):
            got, hint = what, f"its three parts must be a list: {clean_copy(path, saved)}"
    elif isinstance(loaded, list | tuple):
        got = f"a {type(loaded).__name__} of {len(loaded)}: {_contents(loaded)}"
    return CheckpointError(
        "it holds no model", expected=_FIELDS, got=got, hint=_named(loaded) or hint
    )


def _parts(place: _Place, path: Path) -> list[dict[str, torch.Tensor]]:
    """The three state dicts, checked to be dicts of tensors by name."""
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
    elif found := _regrouped(model, place.code):
        got, hint = found[0], f"its three parts must be a list: {clean_copy(path, found[1])}"
    others = [name for name in _places(place.beside) if name != "model"]
    if hint is None and others:
        hint = f"export --key NAME takes a model that is elsewhere in it: {', '.join(others)}"
    return CheckpointError(
        "its model", expected=_THREE, got=got, hint=hint or _named(model) or ONLY_SGRAF
    )


def _regrouped(model: object, code: str) -> tuple[str, str] | None:
    """What a dict of the three parts is, by name or in one, and Python that makes a list of it."""
    if not isinstance(model, dict):
        return None
    if _is_state(model) and (found := prefixes(model)):
        of_part = f"{{k[len(p):]: v for k, v in {code}.items() if k.startswith(p)}}"
        parts = f"[{of_part} for p in {tuple(found)!r}]"
        what = f"one state dict, of {', '.join(map(printable, found))}…"
        # What is nothing but tensors has no options.
        return what, f"{{'model': {parts}}}" if code == "c" else saved_of(parts)
    named = [(part_of(value), name) for name, value in model.items() if _is_state(value)]
    found = [name for part in PARTS for of, name in named if of == part]
    if sorted(PARTS) != sorted(of for of, _ in named if of is not None):
        return None
    return f"a dict of {_contents(model)}", saved_of(f"[{code}[k] for k in {tuple(found)!r}]")


def _whole_module(what: str, value: Foreign, path: Path, saved: str) -> CheckpointError:
    return CheckpointError(
        f"{what} a whole object, not its state dicts",
        expected=_THREE,
        got=f"an instance of {kind_of(value)}",
        hint=clean_copy(path, saved),
    )


def _opt(fields: Mapping[str, Any]) -> tuple[object, list[str]]:
    """The options: `opt`, or what is alone in holding them by another name."""
    if fields.get("opt") is not None:
        return fields["opt"], []
    known = OPTIONS.keys() | NORM_OPTIONS.keys()
    held = {
        name: vars(value) if isinstance(value, argparse.Namespace) else value
        for name, value in fields.items()
        if isinstance(value, argparse.Namespace | dict) and name != "model"
    }
    found = [name for name, value in held.items() if len(known & value.keys()) >= _FEWEST_OPTIONS]
    if len(found) == 1:
        return fields[found[0]], [f"the file has no opt: {found[0]!r} is read as it"]
    return None, ["the file has no opt"]


def _places(loaded: object) -> Iterator[str]:
    """The keys, dotted, that lead to a model inside of dicts."""
    waiting = [("", loaded)]
    seen: set[int] = set()
    while waiting:
        prefix, holder = waiting.pop(0)
        if not isinstance(holder, dict) or prefix.count(".") >= _DEEPEST or id(holder) in seen:
            continue
        seen.add(id(holder))
        for name, value in holder.items():
            if isinstance(name, str) and isinstance(value, dict | list | tuple):
                if _is_model(value):
                    yield printable(f"{prefix}{name}")
                waiting.append((f"{prefix}{name}.", value))


def _under(loaded: object, key: str) -> _Place:
    """What lies under a key, or under several, from the outside in, with `.` or `/` between."""
    fields = loaded if isinstance(loaded, dict) else {}
    for place in _walk(_Place(loaded, fields, "c"), key):
        return _Place(place.value, {**fields, **place.beside}, place.code)
    raise CheckpointError(
        f"--key {printable(key)!r}",
        expected=f"a key that leads to a model: {', '.join(_places(loaded)) or 'there is none'}",
        got=f"a file of {_contents(loaded)}",
    )


def _walk(place: _Place, key: str) -> Iterator[_Place]:
    holder = place.value
    if not key:
        yield place
    elif isinstance(holder, dict):
        for name, value in holder.items():
            if isinstance(name, str) and key.startswith(name):
                rest = key[len(name) :]
                if not rest or rest[0] in "./":
                    inner = _Place(value, holder, f"{place.code}[{name!r}]")
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
    """Whether this is a plain tensor in memory: no subclass, and a number for every element."""
    import torch

    if not isinstance(value, torch.Tensor) or type(value) not in (torch.Tensor, torch.nn.Parameter):
        return False
    plain = value.layout == torch.strided and not value.is_nested
    return plain and not value.is_quantized and value.device.type == "cpu"


def _tensor_kind(value: object) -> str | None:
    """What sets a tensor apart from a plain one, for people; None for what is no tensor."""
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
    found = (kind for kind, fits in kinds.items() if fits)
    return " ".join(["a", *found, type(value).__name__])


def _named(value: object) -> str | None:
    """A hint that says what other model's state dicts these are."""
    states = list(value) if isinstance(value, list | tuple) else [value]
    keys = [str(key) for state in states if isinstance(state, dict) for key in state]
    known = sibling(keys, len(states))
    return f"{known}; {ONLY_SGRAF}" if known else None


def _contents(value: object) -> str:
    """The keys of a dict or of a list's dicts, each with what it holds; all up to a number."""
    parts = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(part, dict) for part in parts):
        return ", ".join(map(_held, parts[:_LISTED])) or "nothing"
    lists = []
    for part in [part for part in parts if isinstance(part, dict)][: len(PARTS) + 1]:
        entries = [f"{_key(name)} {_held(item)}" for name, item in islice(part.items(), _LISTED)]
        more = [f"and {len(part) - _LISTED} more"] if len(part) > _LISTED else []
        lists.append(", ".join([*entries, *more]) or "nothing")
    return lists[0] if len(lists) == 1 else ", ".join(f"({text})" for text in lists) or "nothing"


def _held(value: object) -> str:
    """A value in a word: a tensor's shape, a container's size, the type of another."""
    if is_tensor(value):
        return str(tuple(getattr(value, "shape", ())))
    if isinstance(value, dict | list | tuple):
        return f"({type(value).__name__} of {len(value)})"
    return f"({_tensor_kind(value) or kind_of(value)})"


def _key(name: object) -> str:
    return printable(name[:_LONGEST_KEY]) if isinstance(name, str) else f"({kind_of(name)})"
