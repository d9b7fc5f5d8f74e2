"""Timings, their spread, the matrix-product rate, and a process's peak memory."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from sgraf_deploy.config import ModelConfig

Clock = Callable[[], float]

PRODUCTS = ((2048, 2048, 2048), (1400, 1024, 256), (4096, 1024, 1024), (1024, 4096, 1024))
"""Shapes (m, k, n) of the matrix product; the best of them is the machine's rate."""

GPU_PRODUCTS = (*PRODUCTS, (4096, 4096, 4096), (8192, 8192, 8192))
"""A GPU needs larger products to be busy."""

_GPU_REPEATS = 20
"""Products in a row on a GPU, so that the cost of starting them does not dominate."""

UNSTABLE = 0.2
"""A spread above this share of the median makes a timing a poor basis for a comparison."""

UNSTABLE_RATIO = 0.5
"""A ratio whose rounds scatter over more than this share of it is withheld: the next run may well
give three quarters of it, or five quarters. Two timings that are just stable give about 0.3."""

WITHHELD = "unstable"
"""The text that a table shows in place of such a ratio."""

INTERVAL = 0.02
"""Seconds between two readings of the process's memory."""

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Timing:
    """Wall seconds of the same work, repeated."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, seconds."""
        return self.percentile(50)

    @property
    def spread(self) -> float:
        """The 90th minus the 10th percentile, as a share of the median."""
        return spread(self.seconds)

    def percentile(self, percent: float) -> float:
        """A percentile in seconds, interpolated linearly."""
        return float(np.percentile(self.seconds, percent))

    def rate(self, units: float) -> float:
        """Units per second at the median."""
        return units / self.median

    def to_json(self) -> dict[str, Any]:
        """The median, the spread and every value."""
        return {"median": self.median, "spread": self.spread, "seconds": list(self.seconds)}


def timed(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Wall seconds of one call."""
    start = clock()
    work()
    return clock() - start


def synchronised(work: Callable[[], object], device: str) -> Callable[[], object]:
    """The same work, but waiting until a GPU has finished it."""
    if not device.startswith("cuda"):
        return work
    import torch

    def waiting() -> None:
        work()
        torch.cuda.synchronize(device)

    return waiting


def spread(values: Sequence[float]) -> float:
    """The 90th minus the 10th percentile, as a share of the median; 0 for a single value."""
    low, median, high = np.percentile(values, (10, 50, 90))
    return float((high - low) / median)


@dataclass(frozen=True)
class Ratio:
    """A ratio of timings, and the scatter of its rounds as a share of their median.

    A ratio that scatters too far is withheld: tables show `unstable`, reports null and the reason.
    """

    value: float
    scatter: float

    @property
    def withheld(self) -> str | None:
        """The reason why the ratio is withheld; None if it is stable."""
        if self.scatter <= UNSTABLE_RATIO:
            return None
        most = f"{100 * UNSTABLE_RATIO:.0f} %"
        return f"the rounds scatter over {100 * self.scatter:.0f} % of the median, above {most}"

    def shown(self, form: str = ".2f", unit: str = "") -> str:
        """The text for a table."""
        return f"{self.value:{form}}{unit}" if self.withheld is None else WITHHELD


def ratios_to_json(ratios: Mapping[str, Ratio]) -> dict[str, Any]:
    """Values by name, null for a withheld one, and the reasons under `withheld`."""
    reasons = {name: ratio.withheld for name, ratio in ratios.items() if ratio.withheld}
    values = {name: None if name in reasons else ratio.value for name, ratio in ratios.items()}
    return values | {"withheld": reasons}


def times_faster(work: Timing, yardstick: Timing) -> Ratio:
    """How many times faster `work` is: the median of the ratios of the rounds, which may scatter
    less than the timings do."""
    ratios = [b / a for a, b in zip(work.seconds, yardstick.seconds, strict=True)]
    return Ratio(float(np.median(ratios)), spread(ratios))


def pair_flop(config: ModelConfig, words: float) -> float:
    """Floating-point operations per pair after the exact rewrites, for a mean number of words."""
    attention = 2 * 2 * config.regions * words * config.embed
    alignment = 2 * (words + 1) * config.embed * config.sim_dim
    reasoning = max(0, config.sgr_steps - 1) * 2 * 2 * (words + 1) * config.sim_dim**2
    return float(attention + alignment + reasoning)


class Product:
    """One matrix product (m, k) x (k, n) that can be run repeatedly.

    On the CPU it is float32, by PyTorch with its threads, or by NumPy if PyTorch is not installed.
    On a GPU it is float16, and a run waits until it is finished.
    """

    def __init__(self, shape: tuple[int, int, int], device: str = "cpu") -> None:
        m, k, n = shape
        self._repeats = _GPU_REPEATS if device.startswith("cuda") else 1
        self.flop = 2.0 * m * k * n * self._repeats
        rng = np.random.default_rng(0)
        operands: list[Any] = [rng.random(size, dtype=np.float32) for size in ((m, k), (k, n))]
        self.library, self.dtype = "NumPy", "float32"
        try:
            import torch
        except ImportError:
            pass
        else:
            self.library = "PyTorch"
            operands = [torch.from_numpy(operand).to(device) for operand in operands]
            if device.startswith("cuda"):
                operands, self.dtype = [operand.half() for operand in operands], "float16"
        self._operands = operands
        self.run = synchronised(self._run, device)

    def _run(self) -> None:
        a, b = self._operands
        for _ in range(self._repeats):
            _ = a @ b


class ProductRate:
    """Measures the rate of a device's matrix products: the best of a list of shapes."""

    def __init__(self, clock: Clock, device: str = "cpu") -> None:
        self._clock = clock
        shapes = GPU_PRODUCTS if device.startswith("cuda") else PRODUCTS
        self._products = [Product(shape, device) for shape in shapes]
        self.library, self.dtype = self._products[0].library, self._products[0].dtype

    def measure(self) -> float:
        """Run all shapes once and return the best rate, FLOP/s."""
        rates = []
        for product in self._products:
            product.run()
            rates.append(product.flop / timed(product.run, self._clock))
        return max(rates)


@dataclass(frozen=True)
class PeakMemory:
    """Resident bytes of this process at the start, and the peak since then; None if unknown."""

    start: int | None
    peak: int | None


class MemoryWatch:
    """Watches the peak memory, from here on if the system can reset it, else from the start."""

    def __init__(self) -> None:
        self._start = _status("VmRSS")
        try:
            _CLEAR_REFS.write_text("5")  # Linux: resets the high-water mark
        except OSError:
            self._start = None

    def read(self) -> PeakMemory:
        """The peak so far."""
        peak = _status("VmHWM")
        return PeakMemory(self._start, _largest() if peak is None else peak)


def _largest() -> int | None:
    """The peak memory of this process, bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident() -> dict[str, int]:
    """RssAnon and VmRSS of this process, bytes; empty if the system does not report them.

    RssAnon counts the process's own memory: the system can drop pages of a file at any time.
    """
    sizes = {name: _status(name) for name in ("RssAnon", "VmRSS")}
    return {name: size for name, size in sizes.items() if size is not None}


class ResidentPeak:
    """The largest values of `resident` that a thread reads while the block runs."""

    def __init__(self) -> None:
        self.values = resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self.look()

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL):
            self.look()

    def look(self) -> None:
        """Read the memory now, and keep the largest values."""
        for name, now in resident().items():
            self.values[name] = max(self.values[name], now)


def _status(field: str) -> int | None:
    """A size from the kernel's status of this process, bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(sizes[0]) * 1024 if sizes else None
