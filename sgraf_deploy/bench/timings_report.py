"""A profile: the time of every stage of the scorer, of every kind of work, and of a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgraf_deploy.bench.stages import ScorerStage

KINDS = ("products", "other arithmetic", "moving data")
"""What is done in a stage; the last computes nothing."""


@dataclass(frozen=True)
class StageTime:
    """A stage's milliseconds, all threads together, by kind, and its products' operations."""

    member: str
    stage: ScorerStage
    milliseconds: Mapping[str, float]
    flop: float

    @property
    def total(self) -> float:
        """Milliseconds."""
        return sum(self.milliseconds.values())

    @property
    def gflop_per_second(self) -> float | None:
        """Of one thread in the stage's products; None where it has none."""
        spent = self.milliseconds["products"]
        return self.flop / spent / 1e6 if self.flop and spent else None

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "member": self.member,
            "stage": self.stage.label,
            "milliseconds": self.total,
            "milliseconds_by_kind": dict(self.milliseconds),
            "product_flop": self.flop,
            "product_gflop_per_second": self.gflop_per_second,
        }


@dataclass(frozen=True)
class MemberTimings:
    """One member's stages; `inside` is what its scorer took, and `runs` how many tiles it ran."""

    stages: tuple[StageTime, ...]
    inside: float
    runs: int

    @property
    def between(self) -> float:
        """Milliseconds in the scorer and in no stage."""
        return self.inside - sum(stage.total for stage in self.stages)


@dataclass(frozen=True)
class ProductSpeed:
    """The machine's matrix-product rate, FLOP/s, and on how many threads; None where unknown."""

    rate: float
    library: str
    threads: int | None


@dataclass(frozen=True, eq=False)
class TimingsReport:
    """The milliseconds of all threads while one matrix was scored, `seconds` of wall time.

    `between` says what a member's scorer does in no stage.
    """

    run: dict[str, Any]
    members: dict[str, MemberTimings]
    seconds: float
    unprofiled_seconds: float
    workers: int
    products: ProductSpeed
    between: str = "between nodes"

    @property
    def total(self) -> float:
        """Milliseconds that the threads had."""
        return 1e3 * self.seconds * self.workers

    @property
    def unprofiled_total(self) -> float:
        """Milliseconds that the threads had while nobody profiled."""
        return 1e3 * self.unprofiled_seconds * self.workers

    @property
    def stages(self) -> list[StageTime]:
        """Every member's."""
        return [stage for member in self.members.values() for stage in member.stages]

    def kinds(self) -> dict[str, float]:
        """Milliseconds by kind, then in no stage and outside the graphs; they add up to `total`."""
        found = {kind: sum(stage.milliseconds[kind] for stage in self.stages) for kind in KINDS}
        members = self.members.values()
        return found | {
            self.between: sum(member.between for member in members),
            "outside the graphs": self.total - sum(member.inside for member in members),
        }

    @property
    def not_arithmetic(self) -> float:
        """The share of the time that computes no value, 0 … 1."""
        arithmetic = sum(self.kinds()[kind] for kind in KINDS[:2])
        return 1 - arithmetic / self.total

    @property
    def slowdown(self) -> float:
        """How much longer scoring took because it was profiled, as a share."""
        return self.seconds / self.unprofiled_seconds - 1

    def share(self, milliseconds: float) -> float:
        """Of the time that the threads had, 0 … 1."""
        return milliseconds / self.total

    def of_product_rate(self, stage: StageTime) -> float | None:
        """A stage's rate on all threads, as a share of the machine's.

        None where the stage has no products, or the machine's rate is of other threads.
        """
        if stage.gflop_per_second is None or self.products.threads != self.workers:
            return None
        return stage.gflop_per_second * 1e9 * self.workers / self.products.rate

    def to_json(self) -> dict[str, Any]:
        """The whole report as a JSON object."""
        return {
            "run": self.run,
            "seconds": self.seconds,
            "unprofiled_seconds": self.unprofiled_seconds,
            "workers": self.workers,
            "thread_milliseconds": self.total,
            "unprofiled_thread_milliseconds": self.unprofiled_total,
            "stage_milliseconds": sum(stage.total for stage in self.stages),
            "stages": [
                stage.to_json()
                | {
                    "share": self.share(stage.total),
                    "share_of_product_rate": self.of_product_rate(stage),
                }
                for stage in self.stages
            ],
            "tiles": {name: member.runs for name, member in self.members.items()},
            "milliseconds_by_kind": self.kinds(),
            "share_that_is_not_arithmetic": self.not_arithmetic,
            "product_rate": self.products.rate,
            "product_library": self.products.library,
            "product_threads": self.products.threads,
        }
