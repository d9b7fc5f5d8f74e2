"""Where the compiled scorer's time goes: stages, kinds of work and what `scorer.h` adds them to.

A run belongs to one stage at any moment, so that the stages' times add up to the run's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, Structure, c_double, c_int32, c_int64

STAGES = (
    *("REST", "WORDS", "ATTENTION", "WORD_ATTENTION", "CONTEXT_NORM", "CONTEXT", "LOCAL", "GLOBAL"),
    *("SGR", "SAF", "HEAD"),
)
"""In the order of `scorer.h`. `WORDS` transposes the captions' words; `CONTEXT` squares contexts'
differences to them, too."""

KINDS = ("products", "other arithmetic", "moving data")
"""What is done in a stage; the last computes nothing."""

_Clock = CFUNCTYPE(c_int64)


class Stages(Structure):
    """What `sgraf_profile` adds to. One thread at a time may use it."""

    _fields_ = (
        ("clock", _Clock),
        ("since", c_int64),
        ("stage", c_int32),
        ("kind", c_int32),
        ("spent", c_int64 * len(KINDS) * len(STAGES)),
        ("flop", c_double * len(STAGES)),
    )


def no_time(library: ctypes.CDLL, clock: Callable[[], int] | None = None) -> Stages:
    """Stages that nothing was spent on yet.

    `clock` returns whole numbers that never fall; None is the library's, in nanoseconds.
    """
    if clock is None:
        return Stages(ctypes.cast(library.sgraf_nanoseconds, _Clock))
    return Stages(_Clock(clock))
