"""The one policy: with which engine, in which precision and on which device a bundle is scored.

`choose` is a pure function of the request and of the facts about a bundle and a machine.
`machine.Machine` finds out each fact only when it is asked for, as some take seconds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from sgraf_deploy.config import PRECISIONS, Precision
from sgraf_deploy.engines.registry import ENGINES
from sgraf_deploy.errors import InputError, UnavailableError

AUTO = "auto"

ON_A_CPU = ("native", "ort", "torch")
"""The engines that `auto` tries on a CPU, fastest first."""
ON_A_GPU = ("trt", "torch", "ort-cuda")
"""The engines that `auto` tries on a GPU that was asked for; `trt` only with verified plans."""

FIRST_GPU = "cuda:0"

_DEVICE = re.compile(r"cpu|cuda(:\d{1,4})?", re.ASCII)


@dataclass(frozen=True)
class Request:
    """What a caller asks for; None leaves the choice to the policy."""

    engine: str = AUTO
    precision: Precision | None = None
    device: str | None = None


@dataclass(frozen=True)
class Choice:
    """The engine, by name, the precision and the device, `cpu` or `cuda:N`, to open a bundle with.

    Opening can still fail, on a damaged file or for want of memory: nothing else is then tried.
    """

    engine: str
    precision: Precision
    device: str


class Facts(Protocol):
    """What is known about the bundle, or any bundle, and about this machine."""

    @property
    def name(self) -> str:
        """The bundle, as messages name it."""

    @property
    def precisions(self) -> Collection[Precision]:
        """The precisions that the bundle has graphs of."""

    @property
    def weights(self) -> bool:
        """Whether the bundle, or a checkpoint in the options, has the original weights."""

    @property
    def allow_unverified(self) -> bool:
        """Whether plans may be opened that this user never compared with the reference."""

    def unavailable(self, engine: str, device: str) -> UnavailableError | None:
        """Why an engine does not work here on a device; None if it does."""

    def no_gpu(self) -> UnavailableError | None:
        """Why there is no GPU here at all; None if there is one."""

    def plans(self, device: str) -> Mapping[Precision, bool]:
        """The precisions that have plans for that GPU; true if this user verified all of them."""


def parse_request(text: str, precision: Precision | None, device: str | None) -> Request:
    """The request for `NAME`, in `precision`, or `NAME:PRECISION`; InputError for another one."""
    name, colon, own = text.partition(":")
    if not colon:
        return Request(name, precision, device)
    found = next((known for known in PRECISIONS if known == own), None)
    if found is None:
        expected = " or ".join(f"{name}:{each}" for each in PRECISIONS)
        raise InputError(f"engine {text}", expected=expected)
    return Request(name, found, device)


def choose(request: Request, facts: Facts) -> Choice:
    """The engine, precision and device for a request: one rule for every caller.

    - `auto` takes the fastest engine that works here and runs the precision. It takes an engine on
      a GPU only if the GPU was asked for, or if this user verified the bundle's plans on it.
    - An engine asked for by name runs on the first of its devices that works.
    - An engine takes the first precision, in its own order, that the bundle has; `trt` takes the
      first that there are plans of.

    Raises InputError for an unknown engine, an unknown device, a precision that the bundle lacks,
    and for parts of a request that contradict each other; UnavailableError, with a hint at what
    puts it right, where nothing here can do what was asked for. Nothing is replaced silently.
    """
    device = None if request.device is None else _parse_device(request.device)
    if request.engine != AUTO and request.engine not in ENGINES:
        expected = " or ".join((AUTO, *ENGINES))
        raise InputError("engine", expected=expected, got=request.engine)
    if request.precision is not None and request.precision not in facts.precisions:
        raise InputError(
            f"{facts.name} has no {request.precision} graphs",
            expected=f"precision {' or '.join(facts.precisions)}",
            got=request.precision,
        )
    if request.engine == AUTO:
        return _fastest(request.precision, device, facts)
    return _named(request, device, facts)


def default_precision(engine: str, available: Collection[Precision]) -> Precision | None:
    """The first available precision in an engine's own order; None if it runs none of them."""
    return next((one for one in ENGINES[engine].precisions if one in available), None)


def _fastest(precision: Precision | None, device: str | None, facts: Facts) -> Choice:
    """The first candidate that works; UnavailableError, which says why each does not."""
    reasons: dict[str, UnavailableError] = {}
    for engine, place in _candidates(device):
        found = _try(Request(engine, precision), place, facts, auto=True)
        if isinstance(found, Choice):
            return found
        if device is not None and ENGINES[engine].compiled:
            # That it does not work here matters more than that plans are missing.
            found = facts.unavailable(engine, place) or found
        reasons[engine] = found
    if device is None:
        del reasons["trt"]  # No GPU was asked for.
    wanted = ("" if precision is None else f" that runs {precision}") + (
        "" if device is None else f" on {device}"
    )
    why = "; ".join(f"{name}: {error.reason}" for name, error in reasons.items())
    ways = sorted(reasons, key=lambda name: ENGINES[name].compiled)  # Compiling takes longest.
    hint = next((reasons[name].hint for name in ways if reasons[name].hint), None)
    if device not in (None, "cpu") and facts.no_gpu() is not None:
        hint = _without_a_gpu(precision, facts)
    raise UnavailableError(f"no engine is available{wanted}: {why}", hint=hint)


def _candidates(device: str | None) -> list[tuple[str, str]]:
    """The engines that `auto` tries, each with its device, fastest first."""
    if device is None:
        return [("trt", FIRST_GPU), *((name, "cpu") for name in ON_A_CPU)]
    return [(name, device) for name in (ON_A_CPU if device == "cpu" else ON_A_GPU)]


def _named(request: Request, device: str | None, facts: Facts) -> Choice:
    """The choice for an engine that was asked for by name."""
    name, entry = request.engine, ENGINES[request.engine]
    if device is not None and device.partition(":")[0] not in entry.devices:
        raise InputError(
            f"engine {name}: device",
            expected=" or ".join(entry.devices),
            got=request.device,
            hint=_instead(request.precision, device, facts),
        )
    wanted = _wanted(request, facts)
    if default_precision(name, wanted) is None:
        raise UnavailableError(
            f"engine {name}",
            expected=f"precision {' or '.join(entry.precisions)}",
            got=" or ".join(wanted),
            hint="use --engine torch or, on a GPU, trt",
        )
    places = [FIRST_GPU if kind == "cuda" else kind for kind in entry.devices]
    reasons = []
    for place in places if device is None else [device]:
        found = _try(request, place, facts)
        if isinstance(found, Choice):
            return found
        reasons.append(found)
    error = reasons[0]
    needs_package = len(reasons) > 1 and len({one.reason for one in reasons}) == 1
    absent = None if device == "cpu" or needs_package else facts.no_gpu()
    if absent is not None and "cuda" in entry.devices:
        hint = _without_a_gpu(request.precision, facts)
        error = UnavailableError(absent.reason, hint=hint)
    raise UnavailableError(f"engine {name} is not available: {error.reason}", hint=error.hint)


def _without_a_gpu(precision: Precision | None, facts: Facts) -> str:
    """The hint where an engine needs a GPU and there is none: what works, and how to go on."""
    try:
        here = f"use --engine {_fastest(precision, 'cpu', facts).engine}, which works here; "
    except UnavailableError:
        here = ""
    return (
        f"{here}to go on with a GPU: `sgraf-deploy compile BUNDLE` builds what engine trt needs, "
        "on any machine with TensorRT for RTX, and `sgraf-deploy bench gpu` measures every engine "
        "on one with a GPU"
    )


def _instead(precision: Precision | None, device: str, facts: Facts) -> str:
    """The hint where an engine does not run on a device: what does."""
    try:
        other = _fastest(precision, device, facts)
    except UnavailableError:
        return f"leave out the device: no engine works on {device} here"
    return f"leave out the device, or take engine {other.engine} for {device}"


def _wanted(request: Request, facts: Facts) -> Collection[Precision]:
    return facts.precisions if request.precision is None else (request.precision,)


def _try(
    request: Request, device: str, facts: Facts, *, auto: bool = False
) -> Choice | UnavailableError:
    """The choice of one engine on one device, or why it cannot do there what is asked for."""
    name, entry = request.engine, ENGINES[request.engine]
    available = [one for one in _wanted(request, facts) if not (auto and one in entry.by_name)]
    precision = default_precision(name, available)
    if precision is None:
        runs = [one for one in entry.precisions if not (auto and one in entry.by_name)]
        return UnavailableError(f"it runs only {' and '.join(runs)}")
    if auto and entry.weights and not facts.weights:
        what = f"{facts.name} was exported without its original weights"
        return UnavailableError(what, hint="give the checkpoint with `--checkpoint FILE`")
    if entry.compiled:
        plans = facts.plans(device)
        allowed = facts.allow_unverified and not auto
        usable = [one for one in available if plans.get(one, False) or (one in plans and allowed)]
        if auto and not usable:
            return _unverified(plans)
        built = [one for one in available if one in plans]
        precision = default_precision(name, usable or built) or precision
    return facts.unavailable(name, device) or Choice(name, precision, device)


def _unverified(plans: Mapping[Precision, bool]) -> UnavailableError:
    """Why `auto` leaves a bundle's plans alone."""
    if not plans:
        what = "the bundle has no compiled plans for this GPU"
        return UnavailableError(what, hint="build them with `sgraf-deploy compile BUNDLE`")
    return UnavailableError(
        "the bundle's compiled plans were never compared with the reference on this GPU",
        hint="compare them: --engine trt --allow-unverified",
    )


def _parse_device(device: str) -> str:
    """`cpu` or `cuda:N`; InputError for another name."""
    if not _DEVICE.fullmatch(device):
        raise InputError("device", expected="cpu, cuda or cuda:N", got=device)
    return FIRST_GPU if device == "cuda" else device
