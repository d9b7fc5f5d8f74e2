"""Chooses the compiled scorer's instruction set: the widest, or the one asked for."""

from __future__ import annotations

from dataclasses import dataclass

from sgraf_deploy.errors import UnavailableError

SETS = ("generic", "avx2", "avx512")
"""The instruction sets of `scorer.h`, from narrow to wide; every processor runs `generic`."""

VARIABLE = "SGRAF_DEPLOY_ISA"
"""The environment variable that asks for one of them; empty counts as unset."""


@dataclass(frozen=True)
class InstructionSets:
    """The sets that the library was built for, those that this processor runs, and one wanted."""

    built: tuple[str, ...]
    runnable: tuple[str, ...]
    wanted: str | None = None

    @property
    def usable(self) -> tuple[str, ...]:
        """The sets that are built and that this processor runs; `generic` is always among them."""
        return tuple(name for name in self.built if name in self.runnable)

    @property
    def used(self) -> str:
        """The set that was asked for, else the widest usable one.

        Raises UnavailableError for a set that is unknown, not built, or does not run here.
        """
        if self.wanted is None:
            return self.usable[-1]
        if self.wanted in self.usable:
            return self.wanted
        hint = f"unset {VARIABLE}"
        if self.wanted in self.runnable:
            hint += ", or install the package with a newer C compiler (CC=…)"
        raise UnavailableError(
            f"{VARIABLE}: an instruction set of engine native",
            expected=" or ".join(self.usable),
            got=f"{self.wanted} ({self})",
            hint=hint,
        )

    def __str__(self) -> str:
        built, runnable = ", ".join(self.built), ", ".join(self.runnable)
        return f"built: {built}; this processor runs: {runnable}"


def named(bits: int) -> tuple[str, ...]:
    """The names of the instruction sets whose bits are set."""
    return tuple(name for place, name in enumerate(SETS) if bits >> place & 1)
