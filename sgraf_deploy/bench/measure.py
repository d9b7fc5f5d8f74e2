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
"""A GPU needs larger ones to be busy."""

_GPU_REPEATS = 20
"""Products in a row on a GPU, or starting them is what is measured."""

UNSTABLE = 0.2
"""A spread above this share of the median makes a timing a poor basis for a comparison."""

UNSTABLE_RATIO = 0.5
"""Rounds that scatter over more than this share of a ratio withhold it: the next run may as well
give three quarters of it, or five. Of two timings that are each just stable it has 0.3."""

WITHHELD = "unstable"
"""What a table shows in place of such a ratio."""

INTERVAL = 0.02
"""Seconds between two looks at the process's memory."""

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
        """The 90th less the 10th percentile, as a share of the median."""
        return spread(self.seconds)

    def percentile(self, percent: float) -> float:
        """Linear between the two nearest, seconds."""
        return float(np.percentile(self.seconds, percent))

    def rate(self, units: float) -> float:
        """Units per second at the median."""
        return units / self.median

    def to_json(self) -> dict[str, Any]:
        """Median, spread and every value."""
        return {"median": self.median, "spread": self.spread, "seconds": list(self.seconds)}


def timed(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Wall seconds of one call."""
    start = clock()
    work()
    return clock() - start


def synchronised(work: Callable[[], object], device: str) -> Callable[[], object]:
    """The same work, which waits for a GPU to finish it."""
    if not device.startswith("cuda"):
        return work
    import torch

    def waiting() -> None:
        work()
        torch.cuda.synchronize(device)

    return waiting


def spread(values: Sequence[float]) -> float:
    """The 90th less the 10th percentile, as a share of the median; 0 for a single value."""
    low, median, high = np.percentile(values, (10, 50, 90))
    return float((high - low) / median)


@dataclass(frozen=True)
class Ratio:
    """A ratio of timings, and how far its rounds scatter, as a share of their median.

    One that scatters too far is told to nobody: tables show `unstable`, reports null and why.
    """

    value: float
    scatter: float

    @property
    def withheld(self) -> str | None:
        """Why it is; None for a stable one."""
        if self.scatter <= UNSTABLE_RATIO:
            return None
        most = f"{100 * UNSTABLE_RATIO:.0f} %"
        return f"the rounds scatter over {100 * self.scatter:.0f} % of the median, above {most}"

    def shown(self, form: str = ".2f", unit: str = "") -> str:
        """For a table."""
        return f"{self.value:{form}}{unit}" if self.withheld is None else WITHHELD


def ratios_to_json(ratios: Mapping[str, Ratio]) -> dict[str, Any]:
    """Values by name, null for one that is withheld, and under `withheld` why it is."""
    reasons = {name: ratio.withheld for name, ratio in ratios.items() if ratio.withheld}
    values = {name: None if name in reasons else ratio.value for name, ratio in ratios.items()}
    return values | {"withheld": reasons}


def times_faster(work: Timing, yardstick: Timing) -> Ratio:
    """How many times faster, round by round: the median of the ratios, which may scatter less
    than the timings do."""
    ratios = [b / a for a, b in zip(work.seconds, yardstick.seconds, strict=True)]
    return Ratio(float(np.median(ratios)), spread(ratios))


def pair_flop(config: ModelConfig, words: float) -> float:
    """Floating-point operations per pair after the exact rewrites, at a mean of so many words."""
    attention = 2 * 2 * config.regions * words * config.embed
    alignment = 2 * (words + 1) * config.embed * config.sim_dim
    reasoning = max(0, config.sgr_steps - 1) * 2 * 2 * (words + 1) * config.sim_dim**2
    return float(attention + alignment + reasoning)


class Product:
    """One matrix product (m, k) x (k, n) that can be run again and again.

    On the CPU float32, with PyTorch on its threads, or NumPy where it is not; on a GPU float16,
    and a run has waited for it.
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
    """Measures what a device's matrix products reach: the best of a list of shapes."""

    def __init__(self, clock: Clock, device: str = "cpu") -> None:
        self._clock = clock
        shapes = GPU_PRODUCTS if device.startswith("cuda") else PRODUCTS
        self._products = [Product(shape, device) for shape in shapes]
        self.library, self.dtype = self._products[0].library, self._products[0].dtype

    def measure(self) -> float:
        """The best rate of all shapes once, FLOP/s."""
        rates = []
        for product in self._products:
            product.run()
            rates.append(product.flop / timed(product.run, self._clock))
        return max(rates)


@dataclass(frozen=True)
class PeakMemory:
    """Resident bytes of this process: at the start, and the most since; None where unknown."""

    start: int | None
    peak: int | None


class MemoryWatch:
    """Where the system allows it, the peak counts from here; elsewhere from the process's start."""

    def __init__(self) -> None:
        self._start = _status("VmRSS")
        try:
            _CLEAR_REFS.write_text("5")  # Linux: begin the high-water mark anew
        except OSError:
            self._start = None

    def read(self) -> PeakMemory:
        """The peak so far."""
        peak = _status("VmHWM")
        return PeakMemory(self._start, _largest() if peak is None else peak)


def _largest() -> int | None:
    """The most memory that this process has had, bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident() -> dict[str, int]:
    """RssAnon and VmRSS of this process, bytes; empty where the system does not tell.

    RssAnon is what a process itself holds: pages of a file are the system's to drop.
    """
    found = {name: _status(name) for name in ("RssAnon", "VmRSS")}
    return {name: size for name, size in found.items() if size is not None}


class ResidentPeak:
    """The largest values of `resident` that a thread sees while the block runs."""

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
        """See whether there is more now."""
        for name, now in resident().items():
            self.values[name] = max(self.values[name], now)


def _status(field: str) -> int | None:
    """A size from the kernel's account of this process, bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None
