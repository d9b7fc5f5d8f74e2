"""Fakes that any number of threads may use: every method of an object holds its one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, ClassVar, Self


class Locked:
    """Every method and property of a subclass, the private ones too, runs under one lock.

    The lock is there before `__init__` and belongs to the object. `unlocked` names what may be
    called while garbage is collected, at any place of any thread: such a method waits for nothing
    and changes state by a single operation of a dict or a set, which no other thread sees half
    done. What iterates over state that such methods change iterates over a copy.
    """

    unlocked: ClassVar[frozenset[str]] = frozenset()
    _lock: Any

    def __new__(cls, *_: Any, **__: Any) -> Self:
        made = super().__new__(cls)
        made._lock = threading.RLock()
        return made

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, member in list(vars(cls).items()):
            if name in cls.unlocked or name.startswith("__"):
                continue
            if isinstance(member, FunctionType):
                setattr(cls, name, _locked(member))
            elif isinstance(member, property) and isinstance(member.fget, FunctionType):
                setattr(cls, name, property(_locked(member.fget)))


def _locked(method: FunctionType) -> Callable[..., Any]:
    @wraps(method)
    def holding(self: Locked, *arguments: Any, **named: Any) -> Any:
        with self._lock:
            return method(self, *arguments, **named)

    return holding
