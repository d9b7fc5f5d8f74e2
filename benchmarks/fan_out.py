"""How long a request waits for the slowest of several shards, with and without hedging, simulated.

A shard answers in a lognormal time of median 10 ms, and in one of a hundred cases six times as
late. A hedged request is sent to a second replica where the first has not answered after 25 ms, and
the earlier answer counts. The seed is fixed, so that the table is always the same; nothing is
measured here.

    python benchmarks/fan_out.py
"""

from __future__ import annotations

from dataclasses import dataclass

import click
import numpy as np
from numpy.typing import NDArray

MEDIAN_MS, SIGMA, SLOW, TIMES, HEDGE_MS = 10.0, 0.3, 0.01, 6.0, 25.0
SHARDS, TRIALS, SEED = (1, 10, 24, 100), 200_000, 0
CANDIDATES = 100
_CHUNK = 10_000


@dataclass(frozen=True)
class FanOut:
    """Latencies in milliseconds of requests to so many shards, and what hedging adds."""

    shards: int
    p50: float
    p99: float
    hedged_p50: float
    hedged_p99: float
    more: float
    """How many requests more than without hedging, as a share."""
    touched: float
    """The shards that hold one of CANDIDATES images, on average, as their ids' hashes say."""


def simulate(shards: int, trials: int = TRIALS, seed: int = SEED) -> FanOut:
    """Simulate requests that wait for all of so many shards."""
    rng = np.random.default_rng(seed)
    plain, hedged, asked = [], [], 0
    for start in range(0, trials, _CHUNK):
        shape = min(_CHUNK, trials - start), shards
        first, second = _latencies(rng, shape), _latencies(rng, shape)
        late = first > HEDGE_MS
        plain.append(first.max(axis=1))
        hedged.append(np.where(late, np.minimum(first, HEDGE_MS + second), first).max(axis=1))
        asked += int(late.sum())
    one, other = np.concatenate(plain), np.concatenate(hedged)
    p50, p99 = np.percentile(one, (50, 99))
    hedged_p50, hedged_p99 = np.percentile(other, (50, 99))
    touched = shards * (1 - (1 - 1 / shards) ** CANDIDATES)
    sizes = p50, p99, hedged_p50, hedged_p99
    return FanOut(shards, *map(float, sizes), asked / (trials * shards), touched)


def table(trials: int = TRIALS) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [
        f"| shards | shards that {CANDIDATES} candidates touch | p50, ms | p99, ms "
        "| p50 hedged | p99 hedged | more requests |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in (simulate(shards, trials) for shards in SHARDS):
        numbers = (found.p50, found.p99, found.hedged_p50, found.hedged_p99)
        cells = " | ".join(f"{number:.0f}" for number in numbers)
        lines.append(
            f"| {found.shards} | {found.touched:.1f} | {cells} | {100 * found.more:.1f} % |"
        )
    return lines


def _latencies(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Milliseconds (requests, shards)."""
    times = np.where(rng.random(shape) < SLOW, TIMES, 1.0)
    return MEDIAN_MS * times * rng.lognormal(0.0, SIGMA, shape)


@click.command()
def main() -> None:
    """Print the table."""
    for line in table():
        click.echo(line)


if __name__ == "__main__":
    main()
